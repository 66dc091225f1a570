//! Where the control plane listens, for people and programs that start it on port 0: `listeners.json`
//! in the data directory, there only while it is true.

use std::{fs, io, net::SocketAddr, path::Path};

use countersign_shared::files;
use tokio::net::TcpListener;

const FILE: &str = "listeners.json";

/// The three addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listeners {
    pub(super) api: SocketAddr,
    pub(super) agents: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Listeners {
    pub(super) fn of(
        api: &TcpListener,
        agents: &TcpListener,
        http: &TcpListener,
    ) -> io::Result<Self> {
        Ok(Self {
            api: api.local_addr()?,
            agents: agents.local_addr()?,
            http: http.local_addr()?,
        })
    }

    pub(super) fn announce(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::json!({
            "pid": std::process::id(),
            "api": self.api.to_string(),
            "agents": self.agents.to_string(),
            "http": self.http.to_string(),
        });
        files::replace_private(&folder.join(FILE), format!("{text}\n").as_bytes())
    }

    pub(super) fn withdraw(&self, folder: &Path) {
        withdraw_old(folder);
    }
}

/// Removes the file of a process that is gone.
pub(super) fn withdraw_old(folder: &Path) {
    // Not being there is what is wanted.
    let _ = fs::remove_file(folder.join(FILE));
}
