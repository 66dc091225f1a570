//! What generator and receiver write down of every delivery, and its form in their files: fixed-size
//! records of big-endian numbers, since there can be millions.

use std::{io, path::Path};

use countersign_shared::{files, name::DeliveryId, time::Timestamp};

/// A delivery's id: the number in its UUID.
pub(crate) type DeliveryNumber = u128;

/// The number of the delivery with this id or resource name.
pub(crate) fn delivery_number(name: &str) -> Option<DeliveryNumber> {
    let id = name.rsplit('/').next()?;
    let id: DeliveryId = id.parse().ok()?;
    Some(u128::from_be_bytes(*id.as_bytes()))
}

/// A delivery that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Which.
    pub(crate) id: DeliveryNumber,
    /// Index of its destination in the plan.
    pub(crate) destination: u32,
    /// When it was due to be submitted.
    pub(crate) due: Timestamp,
    /// When the answer came that it is durable.
    pub(crate) accepted: Timestamp,
}

/// A delivery that came in, once for each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// Which.
    pub(crate) id: DeliveryNumber,
    /// When its last byte was read.
    pub(crate) at: Timestamp,
}

/// A record of a fixed size.
pub(crate) trait Record: Sized {
    /// Its size in bytes.
    const SIZE: usize;
    /// Appends its bytes.
    fn write(&self, to: &mut Vec<u8>);
    /// Reads it; `None` unless there are [`Record::SIZE`] bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Record for Accepted {
    const SIZE: usize = 36;

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.id.to_be_bytes());
        to.extend_from_slice(&self.destination.to_be_bytes());
        to.extend_from_slice(&self.due.as_unix_micros().to_be_bytes());
        to.extend_from_slice(&self.accepted.as_unix_micros().to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (destination, rest) = rest.split_first_chunk()?;
        let (due, rest) = rest.split_first_chunk()?;
        Some(Self {
            id: u128::from_be_bytes(*id),
            destination: u32::from_be_bytes(*destination),
            due: timestamp(*due),
            accepted: timestamp(rest.try_into().ok()?),
        })
    }
}

impl Record for Received {
    const SIZE: usize = 24;

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.id.to_be_bytes());
        to.extend_from_slice(&self.at.as_unix_micros().to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        Some(Self {
            id: u128::from_be_bytes(*id),
            at: timestamp(rest.try_into().ok()?),
        })
    }
}

fn timestamp(bytes: [u8; 8]) -> Timestamp {
    Timestamp::from_unix_micros(i64::from_be_bytes(bytes))
}

/// Writes records to a file, all or nothing.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn save<R: Record>(path: &Path, records: &[R]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(records.len() * R::SIZE);
    for record in records {
        record.write(&mut bytes);
    }
    files::replace_private(path, &bytes)
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// When the file can't be read or does not hold whole records.
pub(crate) fn load<R: Record>(path: &Path) -> io::Result<Vec<R>> {
    let bytes = std::fs::read(path)?;
    let records = bytes.chunks(R::SIZE).map(R::read).collect::<Option<_>>();
    records.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        let accepted: Vec<Accepted> = (0..3_u32)
            .map(|n| Accepted {
                id: u128::MAX - u128::from(n),
                destination: n,
                due: Timestamp::from_unix_micros(i64::from(n)),
                accepted: Timestamp::from_unix_micros(-1),
            })
            .collect();
        save(&path, &accepted).unwrap();
        assert_eq!(load::<Accepted>(&path).unwrap(), accepted);
        let received = [Received {
            id: 7,
            at: Timestamp::from_unix_seconds(1),
        }];
        save(&path, &received).unwrap();
        assert_eq!(load::<Received>(&path).unwrap(), received);
        save::<Received>(&path, &[]).unwrap();
        assert_eq!(load::<Received>(&path).unwrap(), []);
    }

    #[test]
    fn half_a_record_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        std::fs::write(&path, [0; 37]).unwrap();
        assert!(load::<Accepted>(&path).is_err());
        assert!(load::<Received>(&path).is_err());
    }
}
