//! Outcomes on their way to the control plane: each is kept until it is acknowledged.
//!
//! An outcome is reported at once. To disk it goes only if no acknowledgement has come within 250 ms,
//! and at once while there is no session: with a control plane that answers promptly nothing is
//! written at all. How many there can be is bounded by the credit that the agent grants.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countersign_shared::{job::LeaseId, outcome::Outcome};
use tokio::{sync::Notify, time::Instant};

use super::{
    handle::Journal,
    outbox_state::{State, Step},
};
use crate::metrics::Metrics;

/// How long to wait after a disk error.
const RETRY: Duration = Duration::from_secs(1);

/// Unacknowledged outcomes.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    news: Notify,
    to_write: Notify,
    journal: Journal,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// With what was found in the journal.
    pub fn new(journal: Journal, restored: Vec<Outcome>, metrics: Arc<Metrics>) -> Self {
        let mut state = State::default();
        metrics
            .journal_entries
            .set(i64::try_from(restored.len()).unwrap_or(i64::MAX));
        for outcome in restored {
            state.restore(outcome);
        }
        Self {
            state: Mutex::new(state),
            news: Notify::new(),
            to_write: Notify::new(),
            journal,
            metrics,
        }
    }

    /// Takes an outcome in.
    pub fn add(&self, outcome: Outcome) {
        let wake_writer = self.lock().add(outcome, Instant::now());
        self.news.notify_one();
        if wake_writer {
            self.to_write.notify_one();
        }
    }

    /// Up to `most` outcomes that this session has not been told yet, oldest first.
    pub fn take_unsent(&self, most: usize) -> Vec<Arc<Outcome>> {
        self.lock().take_unsent(most)
    }

    /// Whether there are outcomes that this session has not been told.
    pub fn has_unsent(&self) -> bool {
        self.lock().has_unsent()
    }

    /// Waits for an outcome to be added. For one waiter at a time.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Forgets what the control plane has made durable.
    pub fn acknowledge(&self, leases: &[LeaseId]) {
        if self.lock().acknowledge(leases) {
            self.to_write.notify_one();
        }
    }

    /// The leases of all outcomes.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.lock().leases()
    }

    /// A session begins: everything is to be reported again, oldest first.
    pub fn begin_session(&self) {
        self.lock().begin_session();
    }

    /// The session ended: what is not acknowledged goes to disk now.
    pub fn end_session(&self) {
        self.lock().end_session();
        self.to_write.notify_one();
    }

    /// No outcome is added any more: the writer ends once everything is on disk.
    pub fn finish(&self) {
        self.lock().finish();
        self.to_write.notify_one();
    }

    /// How many are unacknowledged.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether every outcome is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes outcomes to disk when they are due and removes them when they are acknowledged, until
    /// [`Outbox::finish`].
    pub async fn write_behind(&self) {
        loop {
            let step = self.lock().step(Instant::now());
            match step {
                Step::End => return,
                Step::Wait(None) => self.to_write.notified().await,
                Step::Wait(Some(until)) => {
                    // Either way the next step finds out what there is to do.
                    let woken = self.to_write.notified();
                    let _ = tokio::time::timeout_at(until, woken).await;
                }
                Step::Write(puts, removes) => self.write(puts, removes).await,
            }
        }
    }

    async fn write(&self, puts: Vec<Arc<Outcome>>, removes: Vec<LeaseId>) {
        let result = self.journal.write_outcomes(&puts, &removes).await;
        let Err(error) = result else {
            let change = puts.len() as i64 - removes.len() as i64;
            self.metrics.journal_entries.inc_by(change);
            return;
        };
        tracing::warn!(%error, outcomes = puts.len(), "outcomes are not on disk; they stay in memory");
        let again = self.lock().not_written(&puts, removes, Instant::now());
        if again {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A poisoned lock: every change to the state is whole before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::{seal::SealingKey, tasks::Tasks};

    use super::*;
    use crate::journal::{
        self,
        outbox_state::testing::{NOW, outcome},
    };

    struct Fixture {
        folder: tempfile::TempDir,
        kek: SealingKey,
    }

    impl Fixture {
        fn open(&self) -> (Outbox, Vec<Outcome>, Tasks) {
            let (tasks, _failures) = Tasks::new();
            let (store, contents) = journal::open(self.folder.path(), &self.kek, NOW).unwrap();
            let journal = Journal::start(store, &tasks).unwrap();
            let found = contents.outcomes.clone();
            let outbox = Outbox::new(journal, contents.outcomes, Arc::default());
            (outbox, found, tasks)
        }

        /// Runs the writer until everything is on disk, and gives the journal up.
        async fn close(&self, outbox: Outbox, tasks: Tasks) -> i64 {
            outbox.finish();
            outbox.write_behind().await;
            let entries = outbox.metrics.journal_entries.get();
            drop(outbox);
            tasks.stop(Duration::from_secs(10)).await.unwrap();
            entries
        }
    }

    #[tokio::test]
    async fn unacknowledged_outcomes_survive_and_acknowledged_ones_do_not() {
        let fixture = Fixture {
            folder: tempfile::tempdir().unwrap(),
            kek: SealingKey::generate(),
        };
        let (outbox, found, tasks) = fixture.open();
        assert!(found.is_empty());
        let ((_, kept), (gone, other)) = (outcome(), outcome());
        outbox.add(kept.clone());
        outbox.add(other);
        assert_eq!(fixture.close(outbox, tasks).await, 2);

        let (outbox, found, tasks) = fixture.open();
        assert_eq!(found.len(), 2);
        outbox.begin_session();
        assert_eq!(outbox.leases().len(), 2);
        outbox.acknowledge(&[gone, gone]);
        assert_eq!(fixture.close(outbox, tasks).await, 1);

        let (outbox, found, tasks) = fixture.open();
        assert_eq!(found, [kept]);
        fixture.close(outbox, tasks).await;
    }
}
