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
    /// In the transit engine of HashiCorp Vault or OpenBao, which it never leaves.
    Transit(TransitKey),
    /// In AWS Key Management Service, which it never leaves.
    AwsKms(AwsName),
    /// In AWS Secrets Manager, from where it is fetched into memory.
    AwsSecret(AwsName),
}

/// A key of a transit engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitKey {
    /// URL of the server, without a path.
    pub address: String,
    /// The authorities that its certificate may come from; `None`: those of the host.
    pub ca_file: Option<PathBuf>,
    /// Namespace of engine and login.
    pub namespace: Option<String>,
    /// Where the engine is mounted.
    pub mount: String,
    /// Name of the key.
    pub key: String,
    /// How to log in.
    pub login: TransitLogin,
}

/// How to log in to HashiCorp Vault or OpenBao.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransitLogin {
    /// With the token in this file, which is read again when the token is refused.
    TokenFile(PathBuf),
    /// With AppRole.
    AppRole {
        /// Where the auth method is mounted.
        mount: String,
        /// Id of the role, which is not secret.
        role_id: String,
        /// File with the secret id.
        secret_id_file: PathBuf,
    },
    /// With a Kubernetes service account.
    Kubernetes {
        /// Where the auth method is mounted.
        mount: String,
        /// Name of the role.
        role: String,
        /// File with the service account's token, which is read again for each login.
        token_file: PathBuf,
    },
}

/// Something at AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsName {
    /// Name or ARN.
    pub name: String,
    /// Region; `None`: that of the ARN, of the profile or of the instance.
    pub region: Option<String>,
    /// URL of the service, where it is not the public one.
    pub endpoint: Option<String>,
}

impl fmt::Display for KekSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Token(key) => write!(
                f,
                "the key '{}' in the token '{}'",
                key.key, key.place.token
            ),
            Self::Transit(TransitKey {
                address,
                mount,
                key,
                ..
            }) => {
                write!(f, "the transit key '{mount}/{key}' at {address}")
            }
            Self::AwsKms(AwsName { name, .. }) => write!(f, "the AWS KMS key '{name}'"),
            Self::AwsSecret(AwsName { name, .. }) => write!(f, "the AWS secret '{name}'"),
        }
    }
}
