//! Why a bundle can't be used: what the control plane is told, and the operator reads there.

use thiserror::Error;

use super::verifier::TrustError;

/// Why a bundle is of no use; the control plane gets this text.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum PrepareError {
    /// Not X.509.
    #[error("the client certificate is not an X.509 certificate")]
    NotACertificate,
    /// Not a key.
    #[error("the private key is not a usable PKCS#8 key")]
    Key,
    /// They don't fit together.
    #[error("the client certificate is not for the private key")]
    OtherKey,
    /// The TLS library refuses the policy.
    #[error("the TLS versions are not usable")]
    Tls,
    /// Characters that HTTP does not take.
    #[error("the URL can't be requested")]
    Url,
    /// Whom to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
}
