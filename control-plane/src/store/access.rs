//! API keys.

use async_trait::async_trait;
use countersign_shared::{name::ApiKeyName, time::Timestamp};

use super::Result;
use crate::model::{ApiKey, Page};

/// API keys. The first one comes with the installation.
#[async_trait]
pub trait AccessStore: Send + Sync {
    /// Adds a key. `AlreadyExists` when its id is taken, `Precondition` when `most` keys are valid at
    /// `now` already.
    async fn create_api_key(&self, key: ApiKey, most: usize, now: Timestamp) -> Result<()>;
    /// One key.
    async fn api_key(&self, name: &ApiKeyName) -> Result<ApiKey>;
    /// Keys with ids after `after`.
    async fn api_keys(&self, after: &str, size: usize) -> Result<Page<ApiKey>>;
    /// Every key that is valid at `now`.
    async fn valid_api_keys(&self, now: Timestamp) -> Result<Vec<ApiKey>>;
    /// Revokes a key; a second time changes nothing.
    async fn revoke_api_key(&self, name: &ApiKeyName, now: Timestamp) -> Result<ApiKey>;
    /// Notes when keys were last used; an earlier time never replaces a later one. Keys that are gone
    /// are left out.
    async fn note_api_key_use(&self, used: Vec<(ApiKeyName, Timestamp)>) -> Result<()>;
}
