//! The processes that are running, and what they have cost so far.

use std::{ffi::OsString, io, time::Duration};

use super::{database::Database, failure::Failure, process::Usage};
use crate::{
    local::{
        children::{Child, Stopped},
        directory::Directory,
    },
    output::Console,
};

/// How often readiness is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long a child may take to stop: longer than its own deadline.
const CHILD_STOP: Duration = Duration::from_secs(12);

/// The processes, once they are started; it outlives the steps that start them.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Where everything is.
    pub(crate) directory: Directory,
    /// Shows how far it is.
    pub(crate) console: Console,
    /// The control plane, or the first of them.
    pub(crate) control_plane: Option<Child>,
    /// The other control planes.
    pub(crate) others: Vec<Child>,
    /// The store's server.
    pub(crate) database: Option<Database>,
    /// The agents.
    pub(crate) agents: Vec<Child>,
    /// The receiver.
    pub(crate) receiver: Option<Child>,
    /// The load generator.
    pub(crate) generator: Option<Child>,
}

/// What each kind of process has cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Costs {
    /// All control planes together.
    pub(crate) control_plane: Usage,
    /// The store's server, if it has one.
    pub(crate) database: Option<Usage>,
    /// All agents together.
    pub(crate) agents: Usage,
    /// The receiver.
    pub(crate) receiver: Usage,
    /// The load generator.
    pub(crate) generator: Usage,
}

impl Costs {
    /// What came on top of `earlier`.
    #[must_use]
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            control_plane: self.control_plane.since(earlier.control_plane),
            database: self
                .database
                .zip(earlier.database)
                .map(|(now, earlier)| now.since(earlier)),
            agents: self.agents.since(earlier.agents),
            receiver: self.receiver.since(earlier.receiver),
            generator: self.generator.since(earlier.generator),
        }
    }
}

impl Parts {
    /// With nothing running yet.
    pub(crate) fn new(directory: Directory, console: Console) -> Self {
        Self {
            directory,
            console,
            control_plane: None,
            others: Vec::new(),
            database: None,
            agents: Vec::new(),
            receiver: None,
            generator: None,
        }
    }

    /// Starts a child with a log file of its own.
    ///
    /// # Errors
    /// [`Failure::Child`].
    pub(crate) fn start(
        &self,
        name: &'static str,
        log: &str,
        arguments: Vec<OsString>,
    ) -> Result<Child, Failure> {
        Ok(Child::start(name, arguments, &self.directory.log(log))?)
    }

    /// Looks again and again until `look` finds something, at most for `patience`.
    ///
    /// # Errors
    /// What `look` says; a child ended; the time is over.
    pub(crate) async fn wait_for<T>(
        &mut self,
        what: &'static str,
        patience: Duration,
        mut look: impl AsyncFnMut(&mut Console) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        self.console.busy(what);
        let waiting = async {
            loop {
                if let Some(found) = look(&mut self.console).await? {
                    return Ok(found);
                }
                self.check()?;
                tokio::time::sleep(POLL).await;
            }
        };
        let waited = tokio::time::timeout(patience, waiting).await;
        waited.unwrap_or(Err(Failure::Deadline {
            seconds: patience.as_secs(),
            what,
        }))
    }

    fn check(&mut self) -> Result<(), Failure> {
        let single = [
            &mut self.control_plane,
            &mut self.receiver,
            &mut self.generator,
        ];
        let several = self.agents.iter_mut().chain(&mut self.others);
        let all = single.into_iter().flatten().chain(several);
        for child in all {
            child.check()?;
        }
        Ok(())
    }

    /// What the control plane has cost so far.
    ///
    /// # Errors
    /// When `/proc` does not tell, as for a process that has ended.
    pub(crate) fn control_plane_usage(&self) -> Result<Usage, Failure> {
        let pid = self.control_plane.as_ref().and_then(Child::pid);
        Usage::of(pid.unwrap_or_default())
            .map_err(Failure::io("can't read what the processes have cost"))
    }

    /// What they have cost so far.
    ///
    /// # Errors
    /// When `/proc` does not tell, as for a process that has ended.
    pub(crate) fn costs(&self) -> Result<Costs, Failure> {
        let of = |child: &Child| match child.pid() {
            Some(pid) => Usage::of(pid),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let single = |child: &Option<Child>| child.as_ref().map_or(Ok(Usage::default()), of);
        let costs = || {
            let mut agents = Usage::default();
            for agent in &self.agents {
                agents = agents.and(of(agent)?);
            }
            let mut control_plane = single(&self.control_plane)?;
            for other in &self.others {
                control_plane = control_plane.and(of(other)?);
            }
            Ok(Costs {
                control_plane,
                database: self.database.as_ref().map(Database::usage).transpose()?,
                agents,
                receiver: single(&self.receiver)?,
                generator: single(&self.generator)?,
            })
        };
        costs().map_err(Failure::io("can't read what the processes have cost"))
    }

    /// Stops the receiver, which writes its records then.
    pub(crate) async fn stop_receiver(&mut self) {
        let receiver = self.receiver.take();
        self.stop_one("receiver", receiver).await;
    }

    /// Stops everything in order.
    pub(crate) async fn stop(&mut self) {
        self.console.idle();
        let generator = self.generator.take();
        self.stop_one("load generator", generator).await;
        for agent in std::mem::take(&mut self.agents) {
            self.stop_one("agent", Some(agent)).await;
        }
        let control_plane = self.control_plane.take();
        let others = std::mem::take(&mut self.others);
        for one in control_plane.into_iter().chain(others) {
            self.stop_one("control plane", Some(one)).await;
        }
        self.database = None;
        self.stop_receiver().await;
    }

    async fn stop_one(&self, name: &str, child: Option<Child>) {
        if let Some(child) = child
            && child.stop(CHILD_STOP).await == Stopped::Killed
        {
            self.console
                .say(&format!("the {name} did not stop and was killed"));
        }
    }
}
