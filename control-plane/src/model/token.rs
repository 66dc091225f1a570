//! Keys that live in hardware security modules.

use std::path::PathBuf;

/// Where a key in a token is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// The library of the PKCS#11 module.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The key's label.
    pub key: String,
    /// The file with the user's PIN, which only its owner may read.
    pub pin_file: PathBuf,
}
