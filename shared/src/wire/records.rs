//! Handshake records that come again and again: an agent sends one with each attempt over a connection.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::{WireError, outcome::handshake_from_encoded};
use crate::outcome::SharedRecord;

/// How many are remembered, at about a kilobyte each, before all are forgotten.
const MOST: usize = 8192;
/// Larger ones, in bytes, are read anew each time.
const LARGEST: usize = 2048;

/// Records that were read.
#[derive(Debug, Default)]
pub struct Records(Mutex<HashMap<Bytes, SharedRecord>>);

impl Records {
    /// Reads a record from its encoded form, if it is not remembered.
    ///
    /// # Errors
    /// [`WireError`]: it is none.
    pub fn read(&self, encoded: &Bytes) -> Result<SharedRecord, WireError> {
        // Entries are whole or not there; a panic elsewhere leaves none half.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = known.get(encoded) {
            return Ok(record.clone());
        }
        let record = handshake_from_encoded(encoded)?;
        if encoded.len() <= LARGEST {
            if known.len() >= MOST {
                known.clear();
            }
            // A copy: what comes is a piece of a message, and would keep all of it.
            known.insert(Bytes::copy_from_slice(encoded), record.clone());
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use countersign_proto::v1;
    use prost::Message as _;

    use super::*;

    fn encoded(peer_address: String) -> Bytes {
        let record = v1::HandshakeRecord {
            peer_address,
            ..v1::HandshakeRecord::default()
        };
        record.encode_to_vec().into()
    }

    #[test]
    fn a_record_is_read_once_and_few_are_kept() {
        let records = Records::default();
        let (one, other) = (encoded("a:1".to_owned()), encoded("b:1".to_owned()));
        let read = |of: &Bytes| records.read(of).unwrap();
        assert_eq!(read(&one).peer_address.as_deref(), Some("a:1"));
        assert_eq!(read(&one), read(&one));
        assert_ne!(read(&one), read(&other));
        assert_eq!(
            read(&encoded("x".repeat(LARGEST))),
            read(&encoded("x".repeat(LARGEST)))
        );
        assert_eq!(
            records.0.lock().unwrap().len(),
            2,
            "large ones are not kept"
        );
        for number in 0..2 * MOST {
            read(&encoded(number.to_string()));
        }
        assert!(records.0.lock().unwrap().len() <= MOST);
        assert!(records.read(&Bytes::from_static(b"\xff")).is_err());
    }
}
