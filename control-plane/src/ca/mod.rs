//! The certificate authority: who may sign what, in which shape.
//!
//! The internal root signs the agents' authority and, as provenance, every account's authority. An
//! account's authority has two certificates of one key and subject: the trust anchor (self-signed),
//! which receivers install because OpenSSL-based servers take no intermediate as an anchor, and the
//! provenance certificate (signed by the root), for audit. Giving receivers the root instead would
//! make every account's certificates acceptable to every receiver.
//!
//! The control plane's own server certificate comes from an authority apart from all of these: what
//! API clients and agents trust can't vouch for a delivery, and the other way round.

mod authority;
mod check;
mod customer;
mod hierarchy;
mod import;
mod issue;
mod keys;
mod names;
mod profile;
mod request;
mod revocation_list;
mod signing_key;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use countersign_shared::{name::DestinationName, seal::SealError};
use thiserror::Error;

pub use authority::SigningAuthority;
pub use customer::{
    MAX_UPLOADED, NewRequest, UploadError, Uploaded, check_upload, new_request, request_key,
};
pub use hierarchy::{
    NewGeneration, RootKey, forget_key, forget_unused_key, import_account_authority,
    new_account_authority, new_agents_authority, new_root, new_server_authority,
    new_shared_authority,
};
pub use import::{ImportError, ImportedAuthority, Purpose};
pub use issue::{NewClient, identity_issued_at, issue_agent_identity, issue_client, issue_server};
pub use names::{ClientNames, identity_of};
pub use profile::{CLIENT_LIFE, IDENTITY_LIFE, SERVER_LIFE};
pub use request::{SigningRequest, parse_request};
pub use revocation_list::{CRL_LIFE, sign_crl};
pub use signing_key::AuthorityKey;

use crate::{model::AuthorityOwner, store::StoreError, vault::VaultError};

/// Whether the authority with the certificate `issuer` has signed the certificate `der`.
pub fn is_signed_by(der: &[u8], issuer: &[u8]) -> bool {
    let both = check::parse(der).zip(check::parse(issuer));
    both.is_some_and(|(certificate, issuer)| check::signed_by(&certificate, &issuer))
}

/// A certificate in PEM (RFC 7468 section 5).
pub fn pem(der: &[u8]) -> String {
    pem_section("CERTIFICATE", der)
}

/// A certificate revocation list in PEM (RFC 7468 section 6).
pub fn crl_pem(der: &[u8]) -> String {
    pem_section("X509 CRL", der)
}

/// A certificate signing request in PEM (RFC 7468 section 7).
pub fn request_pem(der: &[u8]) -> String {
    pem_section("CERTIFICATE REQUEST", der)
}

fn pem_section(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// Why nothing was signed.
#[derive(Debug, Error)]
pub enum CaError {
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key could not be opened or sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Signing itself failed.
    #[error("signing failed: {0}")]
    Sign(rcgen::Error),
    /// The token that holds an authority's key did not sign.
    #[error(
        "the token that holds the authority's key does not sign now: the log has the reason; try again \
         when the token is back"
    )]
    TokenAway,
    /// The key is in a token, and nobody said in which.
    #[error(
        "the key of the authority '{0}' is in a token: configure {1} as when the authority was made"
    )]
    InToken(AuthorityOwner, &'static str),
    /// A token is configured for a key that is not in it.
    #[error(
        "the key of the authority '{0}' is in the store, not in a token: a root gets its key in a token \
         at the first start only; take certificates.root_token away"
    )]
    NotInToken(AuthorityOwner),
    /// The token has another key.
    #[error(
        "the key in the token is not the key of the authority '{0}': check certificates.root_token. \
         Nothing was changed"
    )]
    OtherKey(AuthorityOwner),
    /// What was signed is not what its profile says; it was thrown away.
    #[error("what was signed does not match its profile: {0}")]
    Profile(&'static str),
    /// The thread that makes keys ended without one.
    #[error("no key was made: the process is ending")]
    KeyGeneration,
    /// An authority that must not sign for this destination.
    #[error("the authority of {0} does not sign for {1}")]
    WrongAuthority(AuthorityOwner, DestinationName),
    /// A generation that does not follow the one that is to vouch for it.
    #[error("generation {1} of the authority of {0} does not follow the one before")]
    Generation(AuthorityOwner, u32),
    /// The account has no authority.
    #[error("{0} has no certificate authority")]
    NoAuthority(AuthorityOwner),
    /// The signing request is not acceptable.
    #[error("certificate signing request: {0}")]
    Request(&'static str),
}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        match error {
            rcgen::Error::RemoteKeyError => Self::TokenAway,
            other => Self::Sign(other),
        }
    }
}

impl From<SealError> for CaError {
    fn from(error: SealError) -> Self {
        Self::Vault(VaultError::Seal("certificate key".to_owned(), error))
    }
}
