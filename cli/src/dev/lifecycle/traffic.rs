//! Deliveries that flow at a steady rate for as long as a story lasts.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::local::provision::{Administrator, Event};

const EVENT: Event = Event {
    kind: "order.created",
    payload:
        br#"{"type":"order.created","data":{"order":"1001","amount":"42.00","currency":"EUR"}}"#,
};

/// What was submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Submitted {
    /// How many deliveries were accepted.
    pub(crate) accepted: u64,
    /// How many were not.
    pub(crate) refused: u64,
    /// Why the first was not.
    pub(crate) why: Option<String>,
}

/// Deliveries that flow.
#[derive(Debug)]
pub(crate) struct Traffic {
    submitted: Arc<Mutex<Submitted>>,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Traffic {
    /// Submits `rate` deliveries a second to `destination`.
    pub(crate) fn start(
        administrator: &Administrator,
        destination: &str,
        rate: u32,
        tasks: &Tasks,
    ) -> Self {
        let submitted = Arc::default();
        let stop = tasks.shutdown().child_token();
        let (end, ended) = oneshot::channel();
        let (administrator, destination) = (administrator.clone(), destination.to_owned());
        let (counts, told) = (Arc::clone(&submitted), stop.clone());
        let submit = async move {
            let mut due = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
            loop {
                tokio::select! {
                    () = told.cancelled() => break,
                    _ = due.tick() => {}
                }
                let result = administrator.submit(&destination, EVENT).await;
                let mut counts = lock(&counts);
                match result {
                    Ok(_) => counts.accepted += 1,
                    Err(error) => {
                        counts.refused += 1;
                        counts.why.get_or_insert_with(|| error.to_string());
                    }
                }
            }
            // Nobody waits for it when the story broke off.
            let _ = end.send(());
            Ok::<_, Infallible>(())
        };
        tasks.spawn("traffic", OnFailure::Log, submit);
        Self {
            submitted,
            stop,
            ended,
        }
    }

    /// What was submitted until now.
    pub(crate) fn submitted(&self) -> Submitted {
        lock(&self.submitted).clone()
    }

    /// Stops, and tells what was submitted in all.
    pub(crate) async fn stop(&mut self) -> Submitted {
        self.stop.cancel();
        // An error says that the task is gone, which is as good.
        let _ = (&mut self.ended).await;
        lock(&self.submitted).clone()
    }
}

fn lock(submitted: &Mutex<Submitted>) -> MutexGuard<'_, Submitted> {
    // Counts are never half written.
    submitted.lock().unwrap_or_else(PoisonError::into_inner)
}
