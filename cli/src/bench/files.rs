//! How the processes of the benchmark talk: small JSON files that one writes, all or nothing, and
//! another waits for.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use countersign_shared::{files, time::Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::pace::Kind;

/// What the generator is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Addresses of the API, one of each control plane.
    pub(crate) apis: Vec<SocketAddr>,
    /// CA file for it.
    pub(crate) ca_file: PathBuf,
    /// File with an API key.
    pub(crate) key_file: PathBuf,
    /// Where to deliver to, in turn.
    pub(crate) destinations: Vec<PlannedDestination>,
    /// Deliveries per second; 0: as fast as they are accepted.
    pub(crate) rate: u32,
    /// Size of a payload in bytes.
    pub(crate) payload: usize,
    /// Whether each submission has a request id.
    pub(crate) request_ids: bool,
    /// How long to warm up.
    pub(crate) warm_up: Duration,
    /// How long to submit after that.
    pub(crate) duration: Duration,
    /// Where to write [`Started`].
    pub(crate) started: PathBuf,
    /// Where to write the records of accepted deliveries.
    pub(crate) records: PathBuf,
    /// Where to write [`Submitted`], last of all.
    pub(crate) submitted: PathBuf,
}

/// A destination.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlannedDestination {
    /// Its resource name.
    pub(crate) name: String,
    /// What it does with deliveries.
    pub(crate) kind: Kind,
}

/// The generator has warmed up.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Started {
    /// When the measured time begins, in microseconds since the Unix epoch.
    pub(crate) at: i64,
}

impl Started {
    /// The same as a time.
    pub(crate) fn at(self) -> Timestamp {
        Timestamp::from_unix_micros(self.at)
    }
}

/// The generator has its answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Submitted {
    /// How many submissions were refused.
    pub(crate) refused: u64,
    /// Why the first was.
    pub(crate) first_refusal: Option<String>,
}

/// The receiver listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listening {
    /// Where.
    pub(crate) address: SocketAddr,
    /// The authority of its certificate, in PEM.
    pub(crate) ca_pem: String,
}

/// What the bare client did in its measured time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct BareResult {
    /// Requests that were answered 2xx.
    pub(crate) posts: usize,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// CPU time of its process.
    pub(crate) cpu: Duration,
}

impl BareResult {
    /// This run of it and another.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            posts: self.posts + other.posts,
            elapsed: self.elapsed + other.elapsed,
            cpu: self.cpu + other.cpu,
        }
    }
}

/// Writes `content` for another process.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn tell<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    files::replace_private(path, &serde_json::to_vec(content)?)
}

/// Reads what another process wrote; `None` until it has.
///
/// # Errors
/// When the file is there and can't be read.
pub(crate) fn told<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_there_until_all_of_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("started.json");
        assert!(told::<Started>(&path).unwrap().is_none());
        tell(&path, &Started { at: 7 }).unwrap();
        let found = told::<Started>(&path).unwrap().unwrap();
        assert_eq!(found.at(), Timestamp::from_unix_micros(7));
        std::fs::write(&path, "{").unwrap();
        assert!(told::<Started>(&path).is_err());
    }
}
