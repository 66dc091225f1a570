//! The audit log as JSON lines: for other systems, and to be verified by whoever has the file. Pure.
//!
//! A line is a record, as it is stored but for its hash, which comes first; without that member it is what
//! the hash covers. Or it is a signature over the log up to a record that has come; or, where an export does
//! not begin with the first record, what that one hangs on.

use std::collections::VecDeque;

use countersign_shared::{
    digest::{hex, unhex},
    signature::ed25519,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chain::{Broken, Chain, GENESIS};
use crate::model::{AuditCheckpoint, AuditEntry};

/// What a line of a record begins with, before the hash in hex and [`AFTER_HASH`].
const BEFORE_HASH: &str = "{\"hash\":\"";
const AFTER_HASH: &str = "\",";

/// A line that is no record.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Other {
    /// The log up to a record, signed.
    Checkpoint {
        sequence: u64,
        hash: String,
        sign_unix_micros: i64,
        signature: String,
        public_key: String,
    },
    /// The record before the first of the export.
    Continues { sequence: u64, hash: String },
}

impl Other {
    fn line(&self) -> String {
        // Numbers and text have JSON, always.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The line of a record.
pub fn record_line(entry: &AuditEntry) -> String {
    let rest = entry.line.strip_prefix('{').unwrap_or(&entry.line);
    format!("{BEFORE_HASH}{}{AFTER_HASH}{rest}", hex(&entry.hash))
}

/// The line of a signature.
pub fn checkpoint_line(checkpoint: &AuditCheckpoint, public_key: &[u8; 32]) -> String {
    let line = Other::Checkpoint {
        sequence: checkpoint.sequence,
        hash: hex(&checkpoint.hash),
        sign_unix_micros: checkpoint.signed_at.as_unix_micros(),
        signature: hex(&checkpoint.signature),
        public_key: hex(public_key),
    };
    line.line()
}

/// The line before a first record that is not the log's first.
pub fn continues_line(last: &AuditEntry) -> String {
    let (sequence, hash) = (last.sequence, hex(&last.hash));
    Other::Continues { sequence, hash }.line()
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Wrong {
    /// The records do not hang together.
    #[error("{0}")]
    Broken(#[from] Broken),
    /// It is none of ours.
    #[error("it is no line of an export")]
    Unreadable,
    /// An export begins only once.
    #[error("an export begins in the middle of another")]
    BeginsAgain,
    /// A signature over another log.
    #[error("the signature over record {0} is over another hash than the export leads to")]
    OtherLog(u64),
    /// A signature over what has not come, or came before the last signature.
    #[error("the signature over record {0} is not in its place")]
    Misplaced(u64),
    /// A signature that is not by the key.
    #[error("the signature over record {0} is not by the key {1}")]
    Signature(u64, String),
    /// A key other than the one before, or the one that was asked for.
    #[error("the signature over record {0} names the key {1}, not {2}")]
    OtherKey(u64, String, String),
}

/// Follows an export, line by line.
#[derive(Debug, Default)]
pub struct Export {
    chain: Chain,
    /// Where it began; `None` before its first line.
    began_after: Option<u64>,
    /// Hashes of the records that no signature covers yet.
    unsigned: VecDeque<(u64, [u8; 32])>,
    key: Option<[u8; 32]>,
    signatures: u64,
    signed: u64,
}

/// What an export has told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// How many records hang together.
    pub records: u64,
    /// The last of them; 0 when there is none.
    pub last_sequence: u64,
    /// Its hash, in hex.
    pub last_hash: String,
    /// The record before the first, which is not in it; 0 for an export that begins with the log.
    pub began_after: u64,
    /// How many signatures are right.
    pub signatures: u64,
    /// The last record that a signature covers; 0 when none does.
    pub signed_sequence: u64,
    /// The key of the signatures, in hex; empty when there is none.
    pub public_key: String,
}

impl Export {
    /// Signatures must be by this key; without one, by the first that the export names.
    pub fn signed_by(key: Option<[u8; 32]>) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }

    /// Takes in the next line.
    ///
    /// # Errors
    /// [`Wrong`]: from there on nothing can be said.
    pub fn follow(&mut self, line: &str) -> Result<(), Wrong> {
        if let Some(entry) = self.record(line) {
            self.began_after.get_or_insert(0);
            self.chain.follow(&entry)?;
            self.unsigned.push_back((entry.sequence, entry.hash));
            return Ok(());
        }
        match serde_json::from_str(line).map_err(|_| Wrong::Unreadable)? {
            Other::Continues { sequence, hash } => {
                if self.began_after.is_some() {
                    return Err(Wrong::BeginsAgain);
                }
                // The store's numbers have a sign, so none of ours is larger.
                if i64::try_from(sequence).is_err() {
                    return Err(Wrong::Unreadable);
                }
                let hash = bytes(&hash)?;
                self.began_after = Some(sequence);
                self.unsigned.push_back((sequence, hash));
                self.chain = Chain { sequence, hash };
                Ok(())
            }
            Other::Checkpoint {
                sequence,
                hash,
                sign_unix_micros,
                signature,
                public_key,
            } => {
                let checkpoint = AuditCheckpoint {
                    sequence,
                    hash: bytes(&hash)?,
                    signed_at: Timestamp::from_unix_micros(sign_unix_micros),
                    signature: unhex(&signature).ok_or(Wrong::Unreadable)?,
                };
                self.checkpoint(&checkpoint, bytes(&public_key)?)
            }
        }
    }

    /// The record that a line is; its number is its place, which the chain compares with what it says.
    fn record(&self, line: &str) -> Option<AuditEntry> {
        let (hash, rest) = line.strip_prefix(BEFORE_HASH)?.split_once(AFTER_HASH)?;
        Some(AuditEntry {
            sequence: self.chain.sequence + 1,
            line: format!("{{{rest}"),
            hash: bytes(hash).ok()?,
        })
    }

    fn checkpoint(&mut self, checkpoint: &AuditCheckpoint, key: [u8; 32]) -> Result<(), Wrong> {
        let sequence = checkpoint.sequence;
        let expected = *self.key.get_or_insert(key);
        if key != expected {
            return Err(Wrong::OtherKey(sequence, hex(&key), hex(&expected)));
        }
        while self.unsigned.front().is_some_and(|it| it.0 < sequence) {
            self.unsigned.pop_front();
        }
        let (_, hash) = self
            .unsigned
            .pop_front()
            .filter(|it| it.0 == sequence)
            .ok_or(Wrong::Misplaced(sequence))?;
        if hash != checkpoint.hash {
            return Err(Wrong::OtherLog(sequence));
        }
        let message = AuditCheckpoint::message(sequence, &hash, checkpoint.signed_at);
        if !ed25519::verify(&key, &message, &checkpoint.signature) {
            return Err(Wrong::Signature(sequence, hex(&key)));
        }
        self.signatures += 1;
        self.signed = sequence;
        Ok(())
    }

    /// What it has told so far.
    pub fn told(&self) -> Told {
        let began_after = self.began_after.unwrap_or_default();
        let empty = self.chain.hash == GENESIS;
        Told {
            records: self.chain.sequence - began_after,
            last_sequence: self.chain.sequence,
            last_hash: if empty {
                String::new()
            } else {
                hex(&self.chain.hash)
            },
            began_after,
            signatures: self.signatures,
            signed_sequence: self.signed,
            public_key: self.key.map_or_else(String::new, |key| hex(&key)),
        }
    }
}

fn bytes(text: &str) -> Result<[u8; 32], Wrong> {
    let bytes = unhex(text).ok_or(Wrong::Unreadable)?;
    bytes.try_into().map_err(|_| Wrong::Unreadable)
}

#[cfg(test)]
mod tests {
    use countersign_shared::signature::ed25519::SigningKey;

    use super::*;
    use crate::{audit::empty, model::AuditKind};

    /// Four records, and a signature over the third.
    fn log() -> (Vec<AuditEntry>, AuditCheckpoint, SigningKey) {
        let (_, key) = ed25519::generate();
        let mut chain = Chain::default();
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let record = || empty(AuditKind::Change, now);
        let entries: Vec<_> = (0..4).map(|_| chain.append(record()).unwrap()).collect();
        let message = AuditCheckpoint::message(3, &entries[2].hash, now);
        let checkpoint = AuditCheckpoint {
            sequence: 3,
            hash: entries[2].hash,
            signed_at: now,
            signature: key.sign(&message).unwrap(),
        };
        (entries, checkpoint, key)
    }

    fn lines() -> Vec<String> {
        let (entries, checkpoint, key) = log();
        let mut lines: Vec<_> = entries.iter().map(record_line).collect();
        // A signature may come later than what it is over.
        lines.push(checkpoint_line(&checkpoint, key.public()));
        lines
    }

    fn follow(lines: &[String]) -> Result<Told, Wrong> {
        let mut export = Export::default();
        for line in lines {
            export.follow(line)?;
        }
        Ok(export.told())
    }

    #[test]
    fn an_export_is_followed_to_its_end() {
        let told = follow(&lines()).unwrap();
        assert_eq!((told.records, told.last_sequence), (4, 4));
        assert_eq!((told.signatures, told.signed_sequence), (1, 3));
        for line in lines() {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(value.is_object(), "{line}");
        }
        let nothing = follow(&[]).unwrap();
        assert_eq!((nothing.records, nothing.last_hash.as_str()), (0, ""));
    }

    #[test]
    fn an_export_may_begin_later() {
        let (entries, checkpoint, key) = log();
        let lines = [
            continues_line(&entries[1]),
            record_line(&entries[2]),
            checkpoint_line(&checkpoint, key.public()),
            record_line(&entries[3]),
        ];
        let told = follow(&lines).unwrap();
        assert_eq!((told.records, told.began_after), (2, 2));
        assert_eq!(told.signatures, 1);
        let again = [lines[0].clone(), lines[0].clone()];
        assert_eq!(follow(&again), Err(Wrong::BeginsAgain));
        let beyond = lines[0].replace("\"sequence\":2", &format!("\"sequence\":{}", u64::MAX));
        assert_eq!(follow(&[beyond]), Err(Wrong::Unreadable));
        // It does not follow from another record.
        let other = [continues_line(&entries[0]), lines[1].clone()];
        assert!(matches!(follow(&other), Err(Wrong::Broken(_))));
    }

    #[test]
    fn whatever_is_done_to_it_shows() {
        let good = lines();
        let with = |place: usize, line: String| {
            let mut lines = good.clone();
            lines[place] = line;
            follow(&lines)
        };
        let edited = with(1, good[1].replace("\"count\":1", "\"count\":2"));
        assert_eq!(edited, Err(Wrong::Broken(Broken::Altered(2))));
        let mut cut = good.clone();
        cut.remove(1);
        assert!(matches!(
            follow(&cut),
            Err(Wrong::Broken(Broken::Altered(2)))
        ));
        assert_eq!(with(2, "{}".to_owned()), Err(Wrong::Unreadable));
        assert_eq!(
            with(2, "{\"hash\":\"00\",".to_owned()),
            Err(Wrong::Unreadable)
        );

        // The records are the same each time, the key is not.
        let (_, mut checkpoint, key) = log();
        checkpoint.signed_at = Timestamp::from_unix_seconds(1);
        let forged = with(4, checkpoint_line(&checkpoint, key.public()));
        assert_eq!(forged, Err(Wrong::Signature(3, hex(key.public()))));
        checkpoint.hash = [7; 32];
        let other = with(4, checkpoint_line(&checkpoint, key.public()));
        assert_eq!(other, Err(Wrong::OtherLog(3)));
        let early = [good[4].clone(), good[0].clone()];
        assert_eq!(follow(&early), Err(Wrong::Misplaced(3)));
        let twice: Vec<_> = good.iter().chain([&good[4]]).cloned().collect();
        assert_eq!(follow(&twice), Err(Wrong::Misplaced(3)));
        let mut asked = Export::signed_by(Some([7; 32]));
        for line in &good[..4] {
            asked.follow(line).unwrap();
        }
        assert!(matches!(
            asked.follow(&good[4]),
            Err(Wrong::OtherKey(3, ..))
        ));
    }
}
