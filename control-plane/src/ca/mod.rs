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
mod hierarchy;
mod issue;
mod profile;
mod request;

use countersign_shared::{name::AccountName, seal::SealError};
use thiserror::Error;

pub use authority::SigningAuthority;
pub use hierarchy::{new_account_authority, new_agents_authority, new_root, new_server_authority};
pub use issue::{IssuedClientCertificate, issue_agent_identity, issue_client, issue_server};
pub use profile::{CLIENT_LIFE, ClientNames, IDENTITY_LIFE, SERVER_LIFE, identity_of};
pub use request::{SigningRequest, parse_request};

use crate::{store::StoreError, vault::VaultError};

/// A certificate in PEM (RFC 7468).
pub fn pem(der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
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
    Sign(#[from] rcgen::Error),
    /// What was signed is not what its profile says; it was thrown away.
    #[error("the certificate does not match its profile: {0}")]
    Profile(&'static str),
    /// The account has no authority.
    #[error("{0} has no certificate authority")]
    NoAuthority(AccountName),
    /// The signing request is not acceptable.
    #[error("certificate signing request: {0}")]
    Request(&'static str),
}

impl From<SealError> for CaError {
    fn from(error: SealError) -> Self {
        Self::Vault(VaultError::Seal("certificate key".to_owned(), error))
    }
}
