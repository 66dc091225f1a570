//! Revoked certificates of delivery authorities, and the lists of them.

use async_trait::async_trait;
use countersign_shared::time::Timestamp;

use super::Result;
use crate::model::{AuthorityOwner, Crl, Revocation};

/// The revoked certificates of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// In the order in which they were recorded.
    pub revocations: Vec<Revocation>,
    /// Number of the last one: what a list that is made of them covers.
    pub last: u64,
}

/// One generation of a delivery authority.
pub type Generation = (AuthorityOwner, u32);

/// Revocations and lists. Every generation of a delivery authority has a list that is due from its
/// birth on.
#[async_trait]
pub trait RevocationStore: Send + Sync {
    /// Records revoked certificates of a generation; what is recorded already stays as it is. Its list
    /// becomes due.
    async fn revoke(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
        revocations: Vec<Revocation>,
    ) -> Result<()>;
    /// The revoked certificates of a generation that end after `after`.
    async fn revocations(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
        after: Timestamp,
    ) -> Result<Revoked>;
    /// Replaces a generation's list; the next one is due at `due_at`, or at once when it does not cover
    /// all that is recorded. `Changed` when its number is not greater than the last one's, `NotFound`
    /// without such a generation.
    async fn put_crl(&self, crl: Crl, covers: u64, due_at: Timestamp) -> Result<()>;
    /// The list of one generation; `None` when it has not been signed yet, or there is no such
    /// generation.
    async fn crl(&self, owner: &AuthorityOwner, generation: u32) -> Result<Option<Crl>>;
    /// The lists of all generations, oldest first.
    async fn crls(&self, owner: &AuthorityOwner) -> Result<Vec<Crl>>;
    /// Generations whose list is due, in order, after `after`: not those that were aborted or have
    /// ended.
    async fn crls_due(
        &self,
        now: Timestamp,
        after: Option<Generation>,
        size: usize,
    ) -> Result<Vec<Generation>>;
}
