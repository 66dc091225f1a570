//! Key-encryption keys: what wraps the store's data keys. A provider holds the key; the store never
//! sees it.
//!
//! Providers at a distance may be away, or say no. Both are told apart, and neither is the end of a process
//! that has started: it goes on with the data keys that it holds, for a time (`standing`).

mod aws;
mod breaker;
mod file;
mod open;
mod pkcs11;
mod standing;
mod transit;

use std::error::Error;

use async_trait::async_trait;
use countersign_shared::{random, seal::SealError, secret::SecretBytes};
use thiserror::Error;

pub use aws::{AwsKmsKek, AwsSecretKek};
pub use breaker::Breaker;
pub use file::FileKek;
pub use open::{Opened, open};
pub use pkcs11::Pkcs11Kek;
pub use standing::{Standing, standing};
pub use transit::TransitKek;

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
    /// The key service can't be reached, or can't serve now.
    #[error("{place} can't be used now: {problem}")]
    Away {
        /// Which key, and where.
        place: String,
        /// What happened.
        problem: String,
    },
    /// The key service says no, and will until somebody acts.
    #[error("{place} can't be used: {problem}")]
    Refused {
        /// Which key, and where.
        place: String,
        /// What it said, and what to do.
        problem: String,
    },
    /// A secret is where other programs and crash reports find it.
    #[error(
        "{0} is in the environment, which other processes and crash reports can see: take it out, and \
         {1}"
    )]
    Environment(&'static str, &'static str),
    /// What should be unwrapped was not wrapped with this key, or not for this purpose.
    #[error("a data key does not unwrap: {0}")]
    Seal(#[from] SealError),
}

impl KekError {
    /// Whether the provider did not serve, which says nothing about what it was asked to unwrap.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Away { .. } | Self::Refused { .. } | Self::Token(_) | Self::Io(_)
        )
    }
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
    /// Whether the key can still be used; asked every now and then.
    async fn check(&self) -> Result<(), KekError>;
    /// Whether `wrapped` is by the same version of the key as `fresh`, which was wrapped just now. Where
    /// that is not known, no.
    fn is_of_version(&self, _wrapped: &[u8], _fresh: &[u8]) -> bool {
        false
    }
}

/// Context of what is wrapped only to see whether that can be done.
const TRIAL: &str = "trial";

/// Wraps and unwraps something, to see whether both can be done.
async fn try_out(kek: &dyn KekProvider) -> Result<(), KekError> {
    let key = random::secret::<32>();
    let wrapped = kek.wrap(&key, TRIAL).await?;
    let unwrapped = kek.unwrap(&wrapped, TRIAL).await?;
    if unwrapped == key {
        Ok(())
    } else {
        Err(SealError::DoesNotOpen.into())
    }
}

/// What a refusal to unwrap means: services differ in how they say that a blob is not theirs, and some say no
/// more than that something failed. One that does unwrap something else is well, so it is the blob.
async fn whose_fault(kek: &dyn KekProvider, context: &str, error: KekError) -> KekError {
    let unclear = matches!(
        error,
        KekError::Refused { .. } | KekError::Token(TokenError::Failed(_))
    );
    if unclear && context != TRIAL && try_out(kek).await.is_ok() {
        tracing::warn!(%error, "a data key was not unwrapped");
        return SealError::DoesNotOpen.into();
    }
    error
}

/// An error's text with what is behind it.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}
