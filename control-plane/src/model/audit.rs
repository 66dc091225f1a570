//! What the audit log holds.

use countersign_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Why something is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuditKind {
    /// The store was changed, in the very transaction that holds the record.
    Change,
    /// A secret was handed out.
    Disclosure,
    /// A call was refused.
    Refusal,
}

impl AuditKind {
    /// As it stands in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change => "CHANGE",
            Self::Disclosure => "DISCLOSURE",
            Self::Refusal => "REFUSAL",
        }
    }
}

/// A record of the audit log. Its JSON, with the fields in this order and without spaces, is what the
/// hash chain covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its place in the log: 1, 2, …
    pub sequence: u64,
    /// When, as RFC 3339 has it.
    pub time: String,
    /// When, in microseconds since 1970.
    pub unix_micros: i64,
    /// Why it is on record.
    pub kind: AuditKind,
    /// Who: `apiKeys/…`, `clients/…`, `agents/…`, `system/…`; empty when a caller proved nothing.
    pub principal: String,
    /// From where: an address; empty for the control plane itself.
    pub address: String,
    /// What was called, `Service/Method`, or what runs in the background.
    pub method: String,
    /// Names in the request, and of what was made.
    pub resources: Vec<String>,
    /// The same in all records of one call; empty for what was not let in.
    pub call_id: String,
    /// SHA-256 of the encoded request in hex; empty where there is none.
    pub request_sha256: String,
    /// How many rows of the store were changed.
    pub rows: u64,
    /// Why a call was refused: a reason of the API's errors.
    pub reason: String,
    /// How many calls this stands for: refusals of a second that are alike are one record.
    pub count: u64,
    /// What the resources were before and are after it, where that differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ResourceChange>,
}

/// What a change made of a resource: hashes of its rows, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// Its name.
    pub resource: String,
    /// Before; empty when it did not exist.
    pub before_sha256: String,
    /// After; empty when it no longer exists.
    pub after_sha256: String,
}

impl AuditRecord {
    /// When it happened.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.unix_micros)
    }
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place in the log.
    pub sequence: u64,
    /// The record's JSON.
    pub line: String,
    /// SHA-256 over the hash before it and the line.
    pub hash: [u8; 32],
}

/// The chain up to a record, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheckpoint {
    /// The record.
    pub sequence: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// When it was signed.
    pub signed_at: Timestamp,
    /// Ed25519 (RFC 8032) over [`AuditCheckpoint::message`].
    pub signature: Vec<u8>,
}

impl AuditCheckpoint {
    /// What is signed: four lines.
    pub fn message(sequence: u64, hash: &[u8; 32], signed_at: Timestamp) -> Vec<u8> {
        let hash = countersign_shared::digest::hex(hash);
        let micros = signed_at.as_unix_micros();
        format!("countersign-audit-checkpoint-v1\n{sequence}\n{hash}\n{micros}\n").into_bytes()
    }
}

/// Which records are wanted; empty and `None`: all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this principal.
    pub principal: String,
    /// Of this method.
    pub method: String,
    /// That name this resource, or one below it.
    pub resource: String,
    /// Of this kind.
    pub kind: Option<AuditKind>,
    /// From then on.
    pub from: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}
