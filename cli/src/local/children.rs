//! Child processes: this executable again, as control plane or agent, with a log file each.
//!
//! They are in process groups of their own, so that Ctrl-C on the terminal reaches their
//! parent alone, which stops them in order. They don't outlive it: they are killed when dropped, and
//! they stop by themselves when the pipe on their standard input closes, as it does even if the
//! parent is killed.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use countersign_shared::secret::SecretText;
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child as Process, Command},
};

/// How much of a log is shown when a child died.
const TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 15;

/// What went wrong with a child.
#[derive(Debug, Error)]
pub(crate) enum ChildError {
    /// It did not start.
    #[error("can't start the {name}: {error}")]
    Start {
        /// Which child.
        name: &'static str,
        /// Why.
        error: io::Error,
    },
    /// It ended, and should not have, or not this way.
    #[error("the {name} ended with {status}; {log_end}")]
    Ended {
        /// Which child.
        name: &'static str,
        /// How.
        status: ExitStatus,
        /// The last lines of its log, and where they are.
        log_end: String,
    },
}

/// How a child was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// By itself, after SIGTERM.
    Gracefully,
    /// By SIGKILL, after the deadline.
    Killed,
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    process: Process,
    log: PathBuf,
}

impl Child {
    /// Runs this executable with `arguments`; its output is appended to `log`.
    ///
    /// # Errors
    /// [`ChildError::Start`].
    pub(crate) fn start(
        name: &'static str,
        arguments: Vec<OsString>,
        log: &Path,
    ) -> Result<Self, ChildError> {
        let start = || {
            let mut command = command(log)?;
            command.arg("--stop-when-stdin-ends").args(arguments);
            command.spawn()
        };
        Ok(Self {
            name,
            process: start().map_err(|error| ChildError::Start { name, error })?,
            log: log.to_owned(),
        })
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// The last lines of its log, and where they are.
    pub(crate) fn log_end(&self) -> String {
        log_end(&self.log)
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// [`ChildError::Ended`].
    pub(crate) fn check(&mut self) -> Result<(), ChildError> {
        match self.process.try_wait() {
            Ok(Some(status)) => Err(ended(self.name, status, &self.log)),
            // An error says that somebody else waited for it: the next connection will tell.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Sends SIGKILL and waits: as a host that loses its power would end it.
    pub(crate) async fn kill(mut self) {
        // It may have ended by itself.
        let _ = self.process.kill().await;
    }

    /// Sends SIGTERM and waits; after `deadline`, SIGKILL.
    pub(crate) async fn stop(mut self, deadline: Duration) -> Stopped {
        // Kept open: `wait` would close it, and the child would be told to stop twice.
        let _input = self.process.stdin.take();
        if let Some(pid) = self.process.id().and_then(as_pid) {
            // It may have ended meanwhile; until it is waited for, its id is nobody else's.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(deadline, self.process.wait()).await {
            Ok(_) => Stopped::Gracefully,
            Err(_) => {
                let _ = self.process.kill().await;
                Stopped::Killed
            }
        }
    }
}

/// Runs this executable with `arguments` to its end, with `input` on its standard input.
///
/// # Errors
/// [`ChildError`]; an exit status other than 0 is one.
pub(crate) async fn run_to_end(
    name: &'static str,
    arguments: Vec<OsString>,
    input: &SecretText,
    log: &Path,
) -> Result<(), ChildError> {
    let run = async {
        let mut process = command(log)?.args(arguments).spawn()?;
        if let Some(mut stdin) = process.stdin.take() {
            // A child that ends before it has read everything is judged by its exit status.
            let _ = stdin.write_all(input.expose().as_bytes()).await;
        }
        process.wait().await
    };
    match run.await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ended(name, status, log)),
        Err(error) => Err(ChildError::Start { name, error }),
    }
}

fn command(log: &Path) -> io::Result<Command> {
    let file = File::options().append(true).create(true).open(log)?;
    let mut command = Command::new(env::current_exe()?);
    command
        .stdin(Stdio::piped())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

fn as_pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

fn ended(name: &'static str, status: ExitStatus, log: &Path) -> ChildError {
    ChildError::Ended {
        name,
        status,
        log_end: log_end(log),
    }
}

fn log_end(log: &Path) -> String {
    let tail = tail(log).unwrap_or_else(|error| format!("(not readable: {error})"));
    format!("the end of {}:\n{tail}", log.display())
}

/// The last lines of a file.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    Ok(lines[first..].join("\n"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("agent.log");
        let lines: Vec<String> = (0..10_000).map(|n| format!("line {n}")).collect();
        std::fs::write(&log, lines.join("\n")).unwrap();
        let text = ended("agent", ExitStatus::from_raw(256), &log).to_string();
        assert!(
            text.contains("the agent ended with exit status: 1"),
            "{text}"
        );
        assert!(text.ends_with("line 9998\nline 9999"), "{text}");
        assert_eq!(text.lines().count(), TAIL_LINES + 1);
    }

    #[test]
    fn a_missing_log_is_said() {
        let text = ended("agent", ExitStatus::from_raw(9), Path::new("/nowhere/x")).to_string();
        assert!(text.contains("not readable"), "{text}");
    }
}
