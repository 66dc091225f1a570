//! Key-encryption keys: what wraps the store's data keys. A provider holds the key; the store never
//! sees it.

mod file;
mod open;
mod pkcs11;

use async_trait::async_trait;
use countersign_shared::{seal::SealError, secret::SecretBytes};
use thiserror::Error;

pub use file::FileKek;
pub use open::{Opened, open};
pub use pkcs11::Pkcs11Kek;

use crate::pkcs11::TokenError;

/// Why a key could not be wrapped or unwrapped.
#[derive(Debug, Error)]
pub enum KekError {
    /// No key file where one is needed.
    #[error(
        "the key-encryption key {path} is missing, and without it nothing in the store can be \
         opened: put the file back from where it was saved (the store needs KEK {needed})"
    )]
    Missing {
        /// The file.
        path: String,
        /// Which key the store needs.
        needed: String,
    },
    /// A key, but another than the store's.
    #[error(
        "{path} holds KEK {found}, but the store was sealed with KEK {needed}: put back the right \
         one. Nothing was changed"
    )]
    Wrong {
        /// Where it came from.
        path: String,
        /// Which key that is.
        found: String,
        /// Which key the store needs.
        needed: String,
    },
    /// Something is wrapped by a KEK that is not configured.
    #[error(
        "the data key of {0} is wrapped by KEK {1}, which is not here: configure it as kek.previous"
    )]
    Unknown(String, String),
    /// The file is not a key.
    #[error(
        "{0} is not a key-encryption key of Countersign: expected one line that starts with {1}"
    )]
    Malformed(String, &'static str),
    /// The file can't be read or written.
    #[error("{0}")]
    Io(String),
    /// The key is in a token that can not be used.
    #[error("key-encryption key: {0}")]
    Token(#[from] TokenError),
    /// What should be unwrapped was not wrapped with this key, or not for this purpose.
    #[error("a data key does not unwrap: {0}")]
    Seal(#[from] SealError),
}

/// Wraps and unwraps data keys.
#[async_trait]
pub trait KekProvider: Send + Sync + std::fmt::Debug {
    /// Identifies the key without telling anything about it.
    fn id(&self) -> &str;
    /// Wraps a data key; `context` must be given again to unwrap it.
    async fn wrap(&self, key: &SecretBytes, context: &str) -> Result<Vec<u8>, KekError>;
    /// The inverse of [`KekProvider::wrap`].
    async fn unwrap(&self, wrapped: &[u8], context: &str) -> Result<SecretBytes, KekError>;
}
