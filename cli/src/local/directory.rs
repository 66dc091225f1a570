//! The data directory of `dev` and `bench`: what is where, what a later run takes over, and its removal when it
//! was a temporary one.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use countersign_shared::{
    files,
    name::{AgentName, Id},
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// The addresses that a control plane listens at, as its `listeners.json` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// For API clients.
    pub(crate) api: SocketAddr,
    /// For agents.
    pub(crate) agents: SocketAddr,
    /// Metrics, health and trust anchors.
    pub(crate) http: SocketAddr,
}

/// `listeners.json`.
#[derive(Debug, Deserialize)]
struct Listeners {
    pid: u32,
    #[serde(flatten)]
    addresses: Addresses,
}

/// What a later run on the same directory takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// Where the control plane listened: the agent looks for it there.
    #[serde(flatten)]
    pub(crate) addresses: Addresses,
    /// The id of the enrolled agent.
    agent: String,
}

impl Remembered {
    /// Of an agent that is enrolled with a control plane at `addresses`.
    pub(crate) fn new(addresses: Addresses, agent: &Id) -> Self {
        Self {
            addresses,
            agent: agent.to_string(),
        }
    }

    /// The agent; `None` when somebody wrote something else into the file.
    pub(crate) fn agent(&self) -> Option<AgentName> {
        Id::existing(&self.agent).ok().map(AgentName::from)
    }
}

/// A data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    temporary: Option<TempDir>,
}

impl Directory {
    /// Makes or takes `given`; without one, makes a temporary directory, whose name begins with
    /// `prefix` and which stays if `keep`.
    ///
    /// # Errors
    /// When it can't be made, or others may enter it.
    pub(crate) fn open(given: Option<&Path>, keep: bool, prefix: &str) -> io::Result<Self> {
        let (root, temporary) = match given {
            Some(path) => (std::path::absolute(path)?, None),
            None => {
                let made = tempfile::Builder::new()
                    .prefix(prefix)
                    .permissions(fs::Permissions::from_mode(0o700))
                    .disable_cleanup(keep)
                    .tempdir()?;
                (made.path().to_owned(), (!keep).then_some(made))
            }
        };
        files::private_directory(&root)?;
        Ok(Self { root, temporary })
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it goes at the end.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// The control plane's data directory.
    pub(crate) fn control_plane(&self) -> PathBuf {
        self.root.join("control-plane")
    }

    /// The data directory of another control plane; 1 is the first of these.
    pub(crate) fn other_control_plane(&self, number: u32) -> PathBuf {
        self.root.join(format!("control-plane-{}", number + 1))
    }

    /// The data directory of an agent.
    pub(crate) fn agent(&self, agent: &Id) -> PathBuf {
        self.root.join(format!("agent-{agent}"))
    }

    /// The log file of a child.
    pub(crate) fn log(&self, child: &str) -> PathBuf {
        self.root.join(format!("{child}.log"))
    }

    /// The administrator's API key.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.root.join("admin.key")
    }

    /// The CA file for clients of the API.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.control_plane().join("ca.pem")
    }

    /// Where the control plane of process `pid` listens; `None` until it does. The file of an
    /// earlier process, left by a crash, does not count.
    pub(crate) fn listeners(&self, pid: u32) -> Option<Addresses> {
        listeners(&self.control_plane(), pid)
    }

    /// What an earlier run left; `None` when there was none.
    pub(crate) fn remembered(&self) -> Option<Remembered> {
        let text = fs::read_to_string(self.memory()).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// For a later run.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn remember(&self, what: &Remembered) -> io::Result<()> {
        let text = serde_json::to_vec(what)?;
        files::replace_private(&self.memory(), &text)
    }

    fn memory(&self) -> PathBuf {
        self.root.join("dev.json")
    }

    /// Removes it when it is a temporary one that should go; says where it stays otherwise.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(crate) fn close(self) -> io::Result<Option<PathBuf>> {
        match self.temporary {
            Some(temporary) => temporary.close().map(|()| None),
            None => Ok(Some(self.root)),
        }
    }
}

/// Where the control plane of process `pid` with this data directory listens; `None` until it does.
pub(crate) fn listeners(data_dir: &Path, pid: u32) -> Option<Addresses> {
    let text = fs::read_to_string(data_dir.join("listeners.json")).ok()?;
    let listeners: Listeners = serde_json::from_str(&text).ok()?;
    (listeners.pid == pid).then_some(listeners.addresses)
}

/// Whether nothing listens at any of the addresses.
pub(crate) fn all_free(addresses: &Addresses) -> bool {
    let Addresses { api, agents, http } = addresses;
    [api, agents, http]
        .iter()
        .all(|address| TcpListener::bind(address).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses {
            api: "127.0.0.1:1".parse().unwrap(),
            agents: "127.0.0.1:2".parse().unwrap(),
            http: "127.0.0.1:3".parse().unwrap(),
        }
    }

    #[test]
    fn a_temporary_directory_goes_unless_it_is_kept() {
        let gone = Directory::open(None, false, "countersign-test-").unwrap();
        let path = gone.root().to_owned();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(gone.close().unwrap(), None);
        assert!(!path.exists());
        let kept = Directory::open(None, true, "countersign-test-")
            .unwrap()
            .close()
            .unwrap()
            .unwrap();
        assert!(kept.is_dir());
        fs::remove_dir_all(kept).unwrap();
    }

    #[test]
    fn a_given_directory_stays_and_remembers() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let directory = Directory::open(Some(&path), false, "").unwrap();
        assert_eq!(directory.remembered(), None);
        let id = Id::chosen("dev-1").unwrap();
        let what = Remembered::new(addresses(), &id);
        directory.remember(&what).unwrap();
        assert_eq!(directory.remembered(), Some(what.clone()));
        assert_eq!(what.agent().unwrap().id(), &id);
        assert_eq!(directory.close().unwrap(), Some(path.clone()));
        assert!(path.is_dir());
    }

    #[test]
    fn listeners_count_only_for_the_process_that_wrote_them() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::open(Some(&parent.path().join("data")), false, "").unwrap();
        fs::create_dir(directory.control_plane()).unwrap();
        let file = directory.control_plane().join("listeners.json");
        assert_eq!(directory.listeners(7), None);
        let text = r#"{"pid":7,"api":"127.0.0.1:1","agents":"127.0.0.1:2","http":"127.0.0.1:3"}"#;
        fs::write(file, text).unwrap();
        assert_eq!(directory.listeners(7), Some(addresses()));
        assert_eq!(directory.listeners(8), None);
    }

    #[test]
    fn taken_addresses_are_not_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut wanted = addresses();
        wanted.api = taken.local_addr().unwrap();
        assert!(!all_free(&wanted));
    }
}
