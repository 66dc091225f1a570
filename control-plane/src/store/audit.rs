//! The audit log. Changes put themselves on record, by whoever is at work (see [`crate::audit`]).

use async_trait::async_trait;

use super::Result;
use crate::model::{AuditCheckpoint, AuditEntry, AuditFilter, AuditRecord, Page};

/// The audit log: records are added and never change.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Puts on record what changes nothing else.
    async fn record(&self, records: Vec<AuditRecord>) -> Result<()>;
    /// Records after the one of number `after`, oldest first.
    async fn audit_entries(
        &self,
        filter: AuditFilter,
        after: u64,
        size: usize,
    ) -> Result<Page<AuditEntry>>;
    /// The last record; `None` when there is none.
    async fn last_audit_entry(&self) -> Result<Option<AuditEntry>>;
    /// Adds a signature over the chain up to a record. A second one for the same record changes nothing.
    async fn add_audit_checkpoint(&self, checkpoint: AuditCheckpoint) -> Result<()>;
    /// Signatures over records after the one of number `after`, oldest first.
    async fn audit_checkpoints(&self, after: u64, size: usize) -> Result<Page<AuditCheckpoint>>;
}
