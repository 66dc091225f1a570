//! API keys.

use countersign_shared::{name::Id, time::Timestamp};

/// SHA-256 of an API key's secret. The secret has 256 random bits, so a plain hash can't be guessed
/// backwards.
pub type ApiKeyHash = [u8; 32];

/// What may call the API; only the hash of the secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Which key; part of the key's text, not secret.
    pub id: Id,
    /// Hash of the secret.
    pub secret_sha256: ApiKeyHash,
    /// For people.
    pub display_name: String,
    /// When it was made.
    pub created_at: Timestamp,
}
