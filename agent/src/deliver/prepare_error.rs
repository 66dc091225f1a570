//! Why a bundle can't be used: what the control plane is told, and the operator reads there.

use thiserror::Error;

use super::verifier::TrustError;

/// Why a bundle is of no use; the control plane gets this text.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum PrepareError {
    /// The active certificate.
    #[error("{0}")]
    Active(CredentialError),
    /// The next certificate.
    #[error("candidate on standby: {0}")]
    Candidate(CredentialError),
    /// The certificate before.
    #[error("fallback on standby: {0}")]
    Fallback(CredentialError),
    /// The TLS library refuses the policy.
    #[error("the TLS versions are not usable")]
    Tls,
    /// Characters that HTTP does not take.
    #[error("the URL can't be requested")]
    Url,
    /// A key of the signatures.
    #[error("a signing seed has not 32 bytes")]
    SigningKey,
    /// Whom to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Why a client certificate is of no use.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum CredentialError {
    /// Not X.509.
    #[error("the client certificate is not an X.509 certificate")]
    NotACertificate,
    /// Not a key.
    #[error("the private key is not a usable PKCS#8 key")]
    Key,
    /// They don't fit together.
    #[error("the client certificate is not for the private key")]
    OtherKey,
}
