//! Keys in hardware security modules, reached through PKCS#11 (version 2.40): an AES key that wraps
//! data keys, and an EC key that signs certificates. Neither ever leaves its token.
//!
//! `token` finds a key and keeps a session; `signer` makes signatures of X.509's shape with one; `keys` makes
//! keys there.

mod keys;
mod signer;
#[cfg(test)]
pub(crate) mod testing;
mod token;

use thiserror::Error;

pub use keys::TokenKeys;
pub use signer::{Curve, TokenSigner};
pub use token::{Kind, Token};

/// Why a key in a token is of no use now; the text says what to do.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The configuration, the PIN or the key is not as it must be: it stays so until somebody acts.
    #[error("{0}")]
    Setup(String),
    /// The token did not do it this time.
    #[error("{0}")]
    Failed(String),
}
