//! The hash chain: each record's hash covers the one before it, so that a record that is changed, left
//! out, put in or moved breaks every link after it.

use countersign_shared::digest::sha256;
use thiserror::Error;

use crate::model::{AuditEntry, AuditRecord};

/// What the first record hangs on.
pub const GENESIS: [u8; 32] = [0; 32];

/// Where a chain breaks, and how.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Broken {
    /// A record is missing, or there are too many.
    #[error("record {expected} is missing: {found} comes next")]
    Missing {
        /// Which should have come.
        expected: u64,
        /// Which came.
        found: u64,
    },
    /// A record was altered, or stood elsewhere.
    #[error(
        "record {0} is not what was written: its hash does not fit the record and those before it"
    )]
    Altered(u64),
    /// A record is no record, or of another place.
    #[error("record {0} is not a record of this place")]
    Unreadable(u64),
}

/// A chain up to some record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The last record; 0 when there is none yet.
    pub sequence: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            sequence: 0,
            hash: GENESIS,
        }
    }
}

impl Chain {
    /// Puts a record at the end; `None` when it has no JSON, which none that we make has.
    pub fn append(&mut self, mut record: AuditRecord) -> Option<AuditEntry> {
        record.sequence = self.sequence + 1;
        let line = serde_json::to_string(&record).ok()?;
        let hash = link(&self.hash, &line);
        (self.sequence, self.hash) = (record.sequence, hash);
        Some(AuditEntry {
            sequence: record.sequence,
            line,
            hash,
        })
    }

    /// Follows the chain to its next record.
    ///
    /// # Errors
    /// [`Broken`]: it does not hang together there.
    pub fn follow(&mut self, entry: &AuditEntry) -> Result<AuditRecord, Broken> {
        let expected = self.sequence + 1;
        if entry.sequence != expected {
            let found = entry.sequence;
            return Err(Broken::Missing { expected, found });
        }
        if link(&self.hash, &entry.line) != entry.hash {
            return Err(Broken::Altered(expected));
        }
        let record: Option<AuditRecord> = serde_json::from_str(&entry.line).ok();
        let record = record.filter(|record| record.sequence == expected);
        let record = record.ok_or(Broken::Unreadable(expected))?;
        (self.sequence, self.hash) = (expected, entry.hash);
        Ok(record)
    }
}

/// SHA-256 over the hash before and the line.
fn link(before: &[u8; 32], line: &str) -> [u8; 32] {
    sha256(&[before.as_slice(), line.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use countersign_shared::time::Timestamp;

    use super::*;
    use crate::{audit::empty, model::AuditKind};

    fn log(length: u64) -> Vec<AuditEntry> {
        let mut chain = Chain::default();
        let record = |number| AuditRecord {
            method: format!("S/{number}"),
            ..empty(
                AuditKind::Change,
                Timestamp::from_unix_seconds(1_700_000_000),
            )
        };
        let entries = (0..length).map(|number| chain.append(record(number)).unwrap());
        entries.collect()
    }

    fn walk(entries: &[AuditEntry]) -> Result<Chain, Broken> {
        let mut chain = Chain::default();
        for entry in entries {
            chain.follow(entry)?;
        }
        Ok(chain)
    }

    #[test]
    fn what_was_appended_hangs_together() {
        let entries = log(5);
        let end = walk(&entries).unwrap();
        assert_eq!((end.sequence, end.hash), (5, entries[4].hash));
    }

    #[test]
    fn whatever_is_done_to_it_shows_at_its_place() {
        let good = log(5);
        let mut edited = good.clone();
        edited[2].line = edited[2].line.replace("S/2", "S/9");
        assert_eq!(walk(&edited), Err(Broken::Altered(3)));
        // Whoever alters a record and its hash breaks the next one.
        edited[2].hash = link(&good[1].hash, &edited[2].line);
        assert_eq!(walk(&edited), Err(Broken::Altered(4)));

        let mut cut = good.clone();
        cut.remove(1);
        let missing = Broken::Missing {
            expected: 2,
            found: 3,
        };
        assert_eq!(walk(&cut), Err(missing));

        let mut swapped = good.clone();
        swapped.swap(1, 3);
        assert!(matches!(walk(&swapped), Err(Broken::Missing { .. })));
        let (two, four) = (good[1].sequence, good[3].sequence);
        (swapped[1].sequence, swapped[3].sequence) = (two, four);
        assert_eq!(walk(&swapped), Err(Broken::Altered(2)));

        let mut renumbered = good[..1].to_vec();
        renumbered[0].line = renumbered[0]
            .line
            .replace("\"sequence\":1", "\"sequence\":7");
        renumbered[0].hash = link(&GENESIS, &renumbered[0].line);
        assert_eq!(walk(&renumbered), Err(Broken::Unreadable(1)));
    }
}
