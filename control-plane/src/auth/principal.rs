//! Principals: who makes a call, once that is proved.

use std::{sync::Arc, time::Duration};

use countersign_shared::{name::Id, time::Timestamp};
use tokio_util::sync::CancellationToken;

use super::rate::Bucket;
use crate::model::{ApiKey, ClientRule, Role, Scope};

/// Who makes a call. Resolved once a call, and in the request's extensions as `Arc<Principal>`.
#[derive(Debug)]
pub struct Principal {
    /// As it is called in logs and answers: `apiKeys/{key}`, or `clients/` and what its certificate
    /// says. Not secret.
    pub name: String,
    /// The key's id; `None` when it is no key.
    pub api_key: Option<Id>,
    /// What it may do.
    pub roles: Vec<Role>,
    /// For which accounts.
    pub scope: Scope,
    /// Cancelled when it is let in no longer: its streams end.
    pub ended: CancellationToken,
    /// From when on it is let in no longer.
    expires_at: Option<Timestamp>,
    bucket: Arc<Bucket>,
}

impl Principal {
    /// Whoever holds `key`, with `calls_per_second` unless the key says otherwise.
    pub(super) fn of_key(key: &ApiKey, calls_per_second: u32) -> Self {
        Self {
            name: format!("apiKeys/{}", key.id),
            api_key: Some(key.id.clone()),
            roles: key.roles.clone(),
            scope: key.scope.clone(),
            ended: CancellationToken::new(),
            expires_at: key.expires_at,
            bucket: Arc::new(Bucket::per_second(
                key.calls_per_second.unwrap_or(calls_per_second),
            )),
        }
    }

    /// Whoever has a client certificate for `identity`, until that ends.
    pub(super) fn of_client(
        identity: &str,
        rule: &ClientRule,
        not_after: Timestamp,
        bucket: Arc<Bucket>,
    ) -> Self {
        Self {
            name: format!("clients/{identity}"),
            api_key: None,
            roles: rule.roles.clone(),
            scope: rule.scope.clone(),
            ended: CancellationToken::new(),
            expires_at: Some(not_after),
            bucket,
        }
    }

    /// Whether it would be let in still: for calls that last.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        !self.ended.is_cancelled() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Counts a call, or one message of a stream of them.
    ///
    /// # Errors
    /// When there were too many: how long to wait.
    pub fn count(&self, now: Timestamp) -> Result<(), Duration> {
        self.bucket.take(now)
    }
}
