//! Keys that live in hardware security modules.

use std::path::PathBuf;

/// Where a token is, and how one gets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPlace {
    /// The library of the PKCS#11 module.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The file with the user's PIN, which only its owner may read.
    pub pin_file: PathBuf,
}

/// Where a key in a token is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// The token.
    pub place: TokenPlace,
    /// The key's label.
    pub key: String,
}

/// An existing certificate authority that becomes an installation's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootImport {
    /// The file with its certificate, in PEM.
    pub certificate_file: PathBuf,
    /// The file with its private key (PKCS#8 in PEM), which only its owner may read; `None`: it is in a token.
    pub key_file: Option<PathBuf>,
}
