//! Tasks and shutdown: the one place that spawns. Every task has a name and says what its failure
//! means; shutdown is a signal, a deadline, and the list of who did not make it.

use std::{
    collections::HashMap,
    fmt::Display,
    future::Future,
    io,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What it means when a task ends with an error or panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The process can't do its work without it: stop everything and exit with an error.
    StopProcess,
    /// One connection, session or attempt: say so in the log, go on.
    Log,
}

/// Spawns tasks and ends them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    running: Arc<Mutex<HashMap<&'static str, usize>>>,
    failures: mpsc::UnboundedSender<String>,
}

/// Learns when a task failed whose failure stops the process. Bounded by the number of tasks: each
/// fails once.
#[derive(Debug)]
pub struct Failures(mpsc::UnboundedReceiver<String>);

impl Tasks {
    /// An empty set.
    pub fn new() -> (Self, Failures) {
        let (failures, received) = mpsc::unbounded_channel();
        let tasks = Self {
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            running: Arc::default(),
            failures,
        };
        (tasks, Failures(received))
    }

    /// Cancelled when the process should stop: finish up, take on nothing new.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs `future` in the background under `name`.
    pub fn spawn<E: Display>(
        &self,
        name: &'static str,
        on_failure: OnFailure,
        future: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let guard = Running::enter(&self.running, name, on_failure, &self.failures);
        self.tracker.spawn(async move {
            guard.finish(future.await.map_err(|error| error.to_string()));
        });
    }

    /// Runs `work` on a thread of its own under `name`: for what blocks, such as a database.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn spawn_thread<E: Display>(
        &self,
        name: &'static str,
        on_failure: OnFailure,
        work: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> io::Result<()> {
        let guard = Running::enter(&self.running, name, on_failure, &self.failures);
        let token = self.tracker.token();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                guard.finish(work().map_err(|error| error.to_string()));
                drop(token);
            })?;
        Ok(())
    }

    /// Tells every task to stop and waits until the last has, at most for `deadline`.
    ///
    /// # Errors
    /// The names of those that are still running then.
    pub async fn stop(&self, deadline: Duration) -> Result<(), Vec<&'static str>> {
        self.shutdown.cancel();
        self.tracker.close();
        match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(lock(&self.running).keys().copied().collect()),
        }
    }
}

impl Failures {
    /// Waits for a failure that stops the process: the task's name and its error.
    pub async fn next(&mut self) -> String {
        match self.0.recv().await {
            Some(failure) => failure,
            // Every Tasks is gone, so nothing is left to fail.
            None => std::future::pending().await,
        }
    }
}

/// Runs `work` on a thread for work that takes the processor for long, such as making an RSA key, and
/// waits for it. It has to end by itself: shutdown waits for it.
///
/// # Errors
/// When `work` panicked, or the process is ending.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, io::Error> {
    #[allow(clippy::disallowed_methods)] // this is the place
    let work = tokio::task::spawn_blocking(work);
    work.await.map_err(io::Error::other)
}

/// Runs `work`, which waits for something else than the processor and can't be awaited, and lets other tasks go on
/// meanwhile where the runtime has threads for them.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let threads = |handle: &Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
    match Handle::try_current() {
        Ok(handle) if threads(&handle) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When the operating system refuses the handlers.
pub async fn stop_signal() -> io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// A poisoned lock still holds counts of names; nothing in them can be half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Held while a task runs; when it is dropped without a result, the task panicked.
struct Running {
    name: &'static str,
    on_failure: OnFailure,
    running: Arc<Mutex<HashMap<&'static str, usize>>>,
    failures: mpsc::UnboundedSender<String>,
    result: Option<Result<(), String>>,
}

impl Running {
    fn enter(
        running: &Arc<Mutex<HashMap<&'static str, usize>>>,
        name: &'static str,
        on_failure: OnFailure,
        failures: &mpsc::UnboundedSender<String>,
    ) -> Self {
        *lock(running).entry(name).or_default() += 1;
        Self {
            name,
            on_failure,
            running: Arc::clone(running),
            failures: failures.clone(),
            // Replaced by a task that comes to its end, cancelled ones included; see `Drop`.
            result: None,
        }
    }

    fn finish(mut self, result: Result<(), String>) {
        self.result = Some(result);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
        drop(running);
        let error = match self.result.take() {
            Some(Ok(())) => return,
            Some(Err(error)) => error,
            None if thread::panicking() => "panicked".to_owned(),
            // Dropped with the runtime.
            None => return,
        };
        match self.on_failure {
            OnFailure::StopProcess => {
                tracing::error!(task = self.name, %error, "task failed; stopping");
                // Nobody listening means that the process is stopping already.
                let _ = self.failures.send(format!("{}: {error}", self.name));
            }
            OnFailure::Log => tracing::warn!(task = self.name, %error, "task failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_waits_for_tasks_and_threads_and_names_the_stragglers() {
        let (tasks, _failures) = Tasks::new();
        let token = tasks.shutdown().clone();
        tasks.spawn("polite", OnFailure::Log, async move {
            token.cancelled().await;
            Ok::<_, String>(())
        });
        tasks.spawn(
            "deaf",
            OnFailure::Log,
            std::future::pending::<Result<(), String>>(),
        );
        let late = tasks.stop(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(late, ["deaf"]);
    }

    #[tokio::test]
    async fn failures_and_panics_that_matter_are_heard() {
        let (tasks, mut failures) = Tasks::new();
        tasks.spawn("quiet", OnFailure::Log, async { Err("unimportant") });
        tasks.spawn("store", OnFailure::StopProcess, async { Err("disk full") });
        assert_eq!(failures.next().await, "store: disk full");
        tasks.spawn("loop", OnFailure::StopProcess, async {
            assert_eq!(1, 2, "on purpose");
            Ok::<_, String>(())
        });
        assert_eq!(failures.next().await, "loop: panicked");
        tasks
            .spawn_thread("writer", OnFailure::StopProcess, || Err("fsync"))
            .unwrap();
        assert_eq!(failures.next().await, "writer: fsync");
    }
}
