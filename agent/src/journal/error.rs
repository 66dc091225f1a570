//! Why something is not on disk.

use countersign_shared::seal::SealError;
use thiserror::Error;

/// Why something is not on disk.
#[derive(Debug, Error, Clone)]
pub enum JournalError {
    /// The disk or the database refuses.
    #[error("the journal can't be written ({0})")]
    Disk(String),
    /// It can't be opened, and not because of its content.
    #[error("the journal {path} can't be opened ({reason})")]
    Open {
        /// Where.
        path: String,
        /// Why.
        reason: String,
    },
    /// Too large to seal.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The agent is stopping.
    #[error("the journal is closed")]
    Closed,
}
