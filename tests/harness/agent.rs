//! An agent as a process: enrolled with a token, started, killed, started again.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    process::{Finished, Process, run},
    tools,
};

/// A running agent.
pub struct Agent {
    data_dir: PathBuf,
    work: PathBuf,
    flags: Vec<String>,
    process: Process,
}

/// Lets an agent connect to the receivers of the stories, which are all on loopback.
const LOOPBACK: [&str; 2] = ["--egress-allow", "127.0.0.0/8"];

/// Enrolls an agent as `name`, with the token on standard input.
pub fn enroll(data_dir: &Path, control_plane: &str, token: &str, name: &str) -> Finished {
    let mut command = Command::new(tools::countersign());
    command
        .args(["agent", "enroll"])
        .arg("--data-dir")
        .arg(data_dir);
    command.args(["--control-plane", control_plane, "--token-file", "-"]);
    command.args(["--name", name]);
    run(&mut command, token.as_bytes())
}

impl Agent {
    /// Starts the agent that was enrolled in `data_dir`, with `flags` and with leave to connect to
    /// loopback; its log is in `work`.
    pub fn start(work: &Path, data_dir: &Path, flags: &[&str]) -> Self {
        Self::start_alone(work, data_dir, &[&LOOPBACK, flags].concat())
    }

    /// As [`Agent::start`], with `flags` alone: it connects to public addresses.
    pub fn start_alone(work: &Path, data_dir: &Path, flags: &[&str]) -> Self {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self {
            process: Process::start(command(work, data_dir, &flags), "agent", work),
            data_dir: data_dir.to_owned(),
            work: work.to_owned(),
            flags,
        }
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

    /// Starts it again on the same data directory.
    pub fn restart(&mut self) {
        let command = command(&self.work, &self.data_dir, &self.flags);
        self.process = Process::start(command, "agent", &self.work);
    }

    /// Stops it gracefully.
    ///
    /// # Panics
    /// When it does not stop, or not with exit code 0.
    pub fn stop(&mut self) {
        let status = self.process.stop();
        assert!(status.success(), "the agent stopped with {status}");
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
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

fn command(work: &Path, data_dir: &Path, flags: &[String]) -> Command {
    let mut command = Command::new(tools::countersign_in(work));
    command
        .args(["agent", "run"])
        .arg("--data-dir")
        .arg(data_dir);
    command.args(flags);
    command
}
