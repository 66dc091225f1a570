//! Child processes that end with their test: each in a process group of its own, with its output in
//! a file, asked to stop first and killed when it does not.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{
    tools,
    wait::{PATIENCE, wait_for, wait_until},
};

/// How long a process may take to stop when it is asked to.
const GRACE: Duration = Duration::from_secs(15);
/// How many lines of a process's output are shown when its test fails.
const TAIL: usize = 60;

/// A running process.
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` as `name`; what it prints is appended to `<name>.log` in `folder`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(mut command: Command, name: &str, folder: &Path) -> Self {
        let output = folder.join(format!("{name}.log"));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&output)
            .expect("a log file");
        let also = log.try_clone().expect("a second handle");
        command.stdin(Stdio::null());
        command.stdout(log).stderr(also);
        let child = spawn(&mut command);
        Self {
            name: name.to_owned(),
            child,
            output,
            ended: None,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, when it has.
    ///
    /// # Panics
    /// When the operating system does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the state of a child");
        }
        self.ended
    }

    /// All that it and earlier ones of its name have printed.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `check` gives something.
    ///
    /// # Panics
    /// When the process ends before that, or [`PATIENCE`] does.
    pub fn wait_until<T>(&mut self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        wait_until(what, PATIENCE, || {
            let found = check();
            if found.is_none()
                && let Some(status) = self.ended()
            {
                panic!("{} ended ({status}) before {what}", self.name);
            }
            found
        })
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it is still running after [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_until(&what, PATIENCE, || self.ended())
    }

    /// Ends it as a power cut would: SIGKILL, to all of its group.
    ///
    /// # Panics
    /// When it has ended already: then the test would prove nothing.
    pub fn kill9(&mut self) {
        assert!(
            self.ended().is_none(),
            "{} ended before it was killed",
            self.name
        );
        let group = Pid::from_child(&self.child);
        kill_process_group(group, Signal::KILL).expect("SIGKILL");
        self.wait();
    }

    /// Stops it where it is (SIGSTOP), as a host that hangs would.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("SIGSTOP");
    }

    /// Lets it go on after [`Process::pause`].
    ///
    /// # Panics
    /// When it has ended.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("SIGCONT");
    }

    /// Asks it to read its configuration again (SIGHUP).
    ///
    /// # Panics
    /// When it has ended.
    pub fn reload(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("SIGHUP");
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn stop(&mut self) -> ExitStatus {
        if self.ended().is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).expect("SIGTERM");
        }
        self.wait()
    }

    fn show_tail(&self) {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        // Captured by the test runner and shown with the failure.
        #[allow(clippy::print_stdout)]
        {
            println!("---- last lines of {} ----\n{tail}", self.name);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only while it has not ended: then its number, and its group's, are still its own.
        if self.ended().is_none() {
            let pid = Pid::from_child(&self.child);
            let _ = kill_process(pid, Signal::TERM);
            let asked = Instant::now();
            while self.ended().is_none() && asked.elapsed() < GRACE {
                thread::sleep(Duration::from_millis(10));
            }
            if self.ended().is_none() {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = self.child.wait();
            }
        }
        if thread::panicking() {
            self.show_tail();
        }
    }
}

/// What a process that has ended leaves.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it printed as errors and logs.
    pub stderr: String,
}

impl Finished {
    /// Both outputs.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `command` with `input` on its standard input until it ends.
///
/// # Panics
/// When it can't be started, or is still running after [`PATIENCE`]; it is killed then.
pub fn run(command: &mut Command, input: &[u8]) -> Finished {
    let mut stdin = tempfile::tempfile().expect("a temporary file");
    stdin.write_all(input).expect("writing to it");
    stdin.rewind().expect("rewinding it");
    let stdout = tempfile::tempfile().expect("a temporary file");
    let stderr = tempfile::tempfile().expect("a temporary file");
    let same = |file: &File| file.try_clone().expect("a second handle");
    command
        .stdin(stdin)
        .stdout(same(&stdout))
        .stderr(same(&stderr));
    let mut guard = Process {
        name: format!("{:?}", command.get_program()),
        child: spawn(command),
        output: PathBuf::new(),
        ended: None,
    };
    Finished {
        status: guard.wait(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn text(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewinding it");
    file.read_to_end(&mut bytes).expect("reading it");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn spawn(command: &mut Command) -> Child {
    use std::os::unix::process::CommandExt as _;
    command
        .env("COUNTERSIGN_TESTS_PROCESS", tools::run_mark())
        .process_group(0);
    let shown = format!("{:?}", command.get_program());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{shown} can't be started: {error}"))
}

/// Processes, other than this one, whose environment holds `variable` with `value`: those that were
/// started with it, and their children.
pub fn with_environment(variable: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{variable}={value}");
    let folders = fs::read_dir("/proc").expect("/proc");
    let ids = folders.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        // Gone meanwhile, or another user's: not one of ours.
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    })
    .collect()
}

/// Waits until no process has `variable` with `value` in its environment.
///
/// # Panics
/// When one is left after [`PATIENCE`].
pub fn wait_until_gone(variable: &str, value: &str) {
    let what = format!("processes with {variable} in their environment to be gone");
    wait_for(&what, PATIENCE, || {
        with_environment(variable, value).is_empty()
    });
}
