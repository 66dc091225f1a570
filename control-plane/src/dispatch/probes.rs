//! Probes that are on their way: whoever asked waits here for the agent's answer.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use countersign_shared::probe::{ProbeId, ProbeReport};
use tokio::sync::oneshot;

/// Probes without an answer yet.
#[derive(Debug, Default)]
pub struct Probes(Mutex<HashMap<ProbeId, oneshot::Sender<ProbeReport>>>);

/// Waits for one answer; gives its place up when it is dropped.
pub(super) struct Awaited<'a> {
    probes: &'a Probes,
    id: ProbeId,
    answer: oneshot::Receiver<ProbeReport>,
}

impl Probes {
    /// Before the probe is sent.
    pub(super) fn expect(&self, id: ProbeId) -> Awaited<'_> {
        let (sender, answer) = oneshot::channel();
        self.lock().insert(id, sender);
        Awaited {
            probes: self,
            id,
            answer,
        }
    }

    /// An agent has answered. An answer that nobody waits for is dropped.
    pub fn answered(&self, report: ProbeReport) {
        let waiting = self.lock().remove(&report.id);
        if let Some(waiting) = waiting {
            // Whoever asked may have given up meanwhile.
            let _ = waiting.send(report);
        }
    }

    /// Entries are each complete.
    fn lock(&self) -> MutexGuard<'_, HashMap<ProbeId, oneshot::Sender<ProbeReport>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited<'_> {
    /// The answer; `None` when there will be none.
    pub(super) async fn answer(&mut self) -> Option<ProbeReport> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.probes.lock().remove(&self.id);
    }
}
