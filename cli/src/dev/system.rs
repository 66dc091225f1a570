//! What is running: the children, the receiver's tasks, the console that tells of them, and the
//! report about them. It outlives the steps that build it up, so that it can be taken down in order
//! wherever they stopped.

use std::{path::PathBuf, sync::Arc, time::Duration};

use countersign_shared::{
    tasks::Tasks,
    time::{Clock, Timestamp},
};

use super::{failure::Failure, report::Report, story, timeline::Entry};
use crate::{
    local::{
        children::{Child, ChildError, Stopped},
        directory::Directory,
    },
    output::Console,
};

/// How often readiness is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a child may take to stop: longer than its own deadline.
const CHILD_STOP: Duration = Duration::from_secs(12);
/// How long the receiver may take.
const RECEIVER_STOP: Duration = Duration::from_secs(2);

/// The demonstration as it stands.
#[derive(Debug)]
pub(crate) struct System {
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Where everything is.
    pub(crate) directory: Directory,
    /// The control plane's configuration file, when it has one.
    pub(crate) settings: Option<PathBuf>,
    /// The receiver's tasks.
    pub(crate) tasks: Tasks,
    /// The control plane, once it is started.
    pub(crate) control_plane: Option<Child>,
    /// The agent, once it is started.
    pub(crate) agent: Option<Child>,
    /// What is known so far.
    pub(crate) report: Report,
    /// How the last attempt ended, if it failed: class and resolution.
    pub(crate) last_failure: Option<String>,
    console: Console,
    started: Timestamp,
    waiting_for: &'static str,
}

impl System {
    /// With nothing running yet.
    pub(crate) fn new(directory: Directory, console: Console, clock: Arc<dyn Clock>) -> Self {
        // The receiver says itself when it ends: its events do.
        let (tasks, _failures) = Tasks::new();
        let report = Report {
            data_dir: Some(directory.root().to_owned()),
            ..Report::default()
        };
        Self {
            started: clock.now(),
            clock,
            directory,
            settings: None,
            tasks,
            control_plane: None,
            agent: None,
            report,
            last_failure: None,
            console,
            waiting_for: "the start",
        }
    }

    /// Tells what happened.
    pub(crate) fn tell(&self, entry: &Entry) {
        self.tell_of(self.clock.now(), entry);
    }

    /// Tells what happened at `at`.
    pub(crate) fn tell_of(&self, at: Timestamp, entry: &Entry) {
        let elapsed = at.since(self.started);
        self.console
            .say(&entry.render(elapsed, self.console.colour()));
    }

    /// When it started.
    pub(crate) fn started(&self) -> Timestamp {
        self.started
    }

    /// Writes text outside the timeline.
    pub(crate) fn say(&self, text: &str) {
        self.console.say(text);
    }

    /// Notes and shows what is awaited from now on.
    pub(crate) fn wait_for(&mut self, what: &'static str) {
        self.waiting_for = what;
        self.console.busy(what);
    }

    /// Nothing is awaited any more.
    pub(crate) fn idle(&mut self) {
        self.console.idle();
    }

    /// Fails when a child has ended.
    ///
    /// # Errors
    /// [`ChildError::Ended`].
    pub(crate) fn check_children(&mut self) -> Result<(), ChildError> {
        let children = [&mut self.control_plane, &mut self.agent];
        children.into_iter().flatten().try_for_each(Child::check)
    }

    /// A short time, after which readiness is worth another look.
    ///
    /// # Errors
    /// [`ChildError::Ended`] when waiting is in vain.
    pub(crate) async fn pause(&mut self) -> Result<(), ChildError> {
        tokio::time::sleep(POLL).await;
        self.check_children()
    }

    /// The failure that the passing of `deadline` is.
    pub(crate) fn deadline_passed(&self, deadline: Duration) -> Failure {
        let running = [&self.control_plane, &self.agent];
        let logs = running.into_iter().flatten().map(Child::log_end);
        Failure::Deadline {
            seconds: deadline.as_secs(),
            what: self.waiting_for,
            last: self.last_failure_text(),
            logs: logs.map(|log| format!("\n{log}")).collect(),
        }
    }

    /// How the last attempt ended, to go after a sentence; empty when none failed.
    pub(crate) fn last_failure_text(&self) -> String {
        let failure = self.last_failure.as_ref();
        failure.map_or_else(String::new, |failure| {
            format!("; the last attempt: {failure}")
        })
    }

    /// Stops everything: the agent first, which finishes up what it has begun, the control plane,
    /// which takes its outcomes, and then the receiver. Names what had to be killed.
    pub(crate) async fn stop(&mut self) -> Vec<&'static str> {
        self.console.idle();
        let mut killed = Vec::new();
        let children = [
            ("agent", self.agent.take()),
            ("control plane", self.control_plane.take()),
        ];
        for (name, child) in children {
            if let Some(child) = child
                && child.stop(CHILD_STOP).await == Stopped::Killed
            {
                killed.push(name);
            }
        }
        // What does not stop in time ends with the process.
        let _ = self.tasks.stop(RECEIVER_STOP).await;
        killed
    }

    /// Tells of a failure and notes it in the report.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        let reason = failure.to_string();
        let going = self.directory.is_temporary() && !matches!(failure, Failure::Interrupted(_));
        self.console.say(&story::failed(&reason, going));
        self.report.failed(reason);
    }

    /// The end: removes the data directory if it was a temporary one. `killed` is what
    /// [`System::stop`] returned.
    pub(crate) fn close(self, killed: &[&str]) {
        let elapsed = self.clock.now().since(self.started);
        let entry = match self.directory.close() {
            Ok(kept) => story::stopped(killed, kept.as_deref()),
            Err(error) => story::not_removed(&error),
        };
        self.console
            .say(&entry.render(elapsed, self.console.colour()));
    }
}
