//! The control plane as a process: started, killed, started again on the same data directory.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    grpcurl::Grpcurl,
    ports::free_port,
    process::Process,
    softhsm, tools,
    wait::{PATIENCE, wait_until},
};

/// A running control plane.
pub struct ControlPlane {
    work: PathBuf,
    agents_port: u16,
    log_filter: String,
    process: Process,
    listeners: Listeners,
}

/// Where it listens: `listeners.json`.
#[derive(Clone, Copy, Debug)]
pub struct Listeners {
    /// For clients.
    pub api: SocketAddr,
    /// For agents.
    pub agents: SocketAddr,
    /// Plain HTTP: metrics, health, trust bundles.
    pub http: SocketAddr,
}

impl ControlPlane {
    /// Starts one with its files in `work`: data directory, log and administrator key. `toml` is its
    /// configuration file.
    ///
    /// # Panics
    /// When it does not come up, five ports later.
    pub fn start(work: &Path, toml: &str) -> Self {
        Self::start_with_log(work, toml, "info")
    }

    /// As [`ControlPlane::start`] with a log filter.
    ///
    /// # Panics
    /// As [`ControlPlane::start`].
    pub fn start_with_log(work: &Path, toml: &str, log_filter: &str) -> Self {
        fs::write(work.join("control-plane.toml"), toml).expect("writing the configuration");
        for _ in 0..5 {
            // Agents remember this address, so it must still be right after a restart.
            let agents_port = free_port();
            let mut command = command(work, agents_port, log_filter);
            command.arg("--admin-key-file").arg(work.join("admin.key"));
            let mut process = Process::start(command, "control-plane", work);
            if let Some(listeners) = wait_for_listeners(work, &mut process) {
                return Self {
                    work: work.to_owned(),
                    agents_port,
                    log_filter: log_filter.to_owned(),
                    process,
                    listeners,
                };
            }
            let port_taken = process.output().to_lowercase().contains("in use");
            assert!(port_taken, "the control plane ended before it listened");
        }
        panic!("five ports in a row were taken");
    }

    /// Starts it again, after [`ControlPlane::kill9`] or [`ControlPlane::stop`]. Agents find it where
    /// it was; clients have to look.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        let command = command(&self.work, self.agents_port, &self.log_filter);
        self.process = Process::start(command, "control-plane", &self.work);
        self.listeners = wait_for_listeners(&self.work, &mut self.process)
            .expect("the control plane ended before it listened");
    }

    /// Stops it where it is, as a host that hangs would.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Ends it as a power cut would.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Stops it gracefully.
    ///
    /// # Panics
    /// When it does not stop, or not with exit code 0.
    pub fn stop(&mut self) {
        let status = self.process.stop();
        assert!(status.success(), "the control plane stopped with {status}");
        assert!(
            !self.data_dir().join("listeners.json").exists(),
            "listeners.json outlives a graceful stop"
        );
    }

    /// Where it listens now.
    pub fn listeners(&self) -> Listeners {
        self.listeners
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.work)
    }

    /// The CA file for clients and agents.
    pub fn ca_file(&self) -> PathBuf {
        self.data_dir().join("ca.pem")
    }

    /// The administrator's API key.
    ///
    /// # Panics
    /// When the file is not there.
    pub fn admin_key(&self) -> String {
        let key = fs::read_to_string(self.work.join("admin.key")).expect("the administrator's key");
        key.trim().to_owned()
    }

    /// A caller with the administrator's API key.
    pub fn api(&self) -> Grpcurl {
        self.anonymous_api().with_key(&self.admin_key())
    }

    /// A caller without an API key.
    pub fn anonymous_api(&self) -> Grpcurl {
        Grpcurl::new(self.listeners.api, &self.ca_file())
    }

    /// What agents enroll with.
    pub fn agents_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.agents_port)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// All that it has printed and logged.
    pub fn output(&self) -> String {
        self.process.output()
    }
}

fn data_dir(work: &Path) -> PathBuf {
    work.join("control-plane")
}

/// Variables of the control plane's environment in its folder, one in a line.
pub const ENVIRONMENT: &str = "environment";

/// The command that starts it.
pub fn command(work: &Path, agents_port: u16, log_filter: &str) -> Command {
    let mut command = Command::new(tools::countersign_in(work));
    command.arg("control-plane");
    command.arg("--config").arg(work.join("control-plane.toml"));
    command.arg("--data-dir").arg(data_dir(work));
    command.args([
        "--listen-api",
        "127.0.0.1:0",
        "--listen-http",
        "127.0.0.1:0",
    ]);
    command.args(["--listen-agents", &format!("127.0.0.1:{agents_port}")]);
    command.args(["--log-filter", log_filter]);
    // SoftHSM's library learns from the environment alone where its tokens are.
    let tokens = work.join(softhsm::CONF);
    if tokens.exists() {
        command.env("SOFTHSM2_CONF", tokens);
    }
    let environment = fs::read_to_string(work.join(ENVIRONMENT)).unwrap_or_default();
    command.envs(environment.lines().filter_map(|line| line.split_once('=')));
    command
}

/// Waits until `listeners.json` is this process's; `None` when it ends before.
fn wait_for_listeners(work: &Path, process: &mut Process) -> Option<Listeners> {
    let path = data_dir(work).join("listeners.json");
    wait_until("the control plane to listen", PATIENCE, || {
        if process.ended().is_some() {
            return Some(None);
        }
        // One of an earlier process may still lie there.
        let listeners: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        (listeners["pid"] == process.id()).then(|| {
            let address = |name: &str| {
                let text = listeners[name].as_str().expect("an address");
                text.parse().expect("an address and port")
            };
            Some(Listeners {
                api: address("api"),
                agents: address("agents"),
                http: address("http"),
            })
        })
    })
}
