//! Where the key-encryption key is.

use std::{fmt, path::PathBuf};

use super::TokenKey;

/// Where the key-encryption key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KekSource {
    /// In a file, which the first start makes.
    File(PathBuf),
    /// In a token, which it never leaves.
    Token(TokenKey),
}

impl fmt::Display for KekSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Token(key) => write!(f, "the key '{}' in the token '{}'", key.key, key.token),
        }
    }
}
