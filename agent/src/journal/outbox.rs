//! Outcomes on their way to the control plane: each is kept until it is acknowledged.
//!
//! An outcome is reported at once. To disk it goes only if no acknowledgement has come within 250 ms,
//! and at once while there is no session: with a control plane that answers promptly nothing is
//! written at all. So do jobs that may be worked on while the agent is cut off, until there is an outcome. How many there can be is bounded by the credit that the agent grants.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countersign_shared::{
    job::{LeaseId, LeasedJob},
    outcome::Outcome,
    time::Timestamp,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    handle::Journal,
    outbox_state::{Batch, State, Step},
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
    connected: watch::Sender<bool>,
    journal: Journal,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// With what was found in the journal at `now`.
    pub fn new(
        journal: Journal,
        restored: Vec<Outcome>,
        kept: Vec<LeasedJob>,
        metrics: Arc<Metrics>,
        now: Timestamp,
    ) -> Self {
        let mut state = State::default();
        metrics
            .journal_entries
            .set(i64::try_from(restored.len()).unwrap_or(i64::MAX));
        for outcome in restored {
            state.restore(outcome);
        }
        metrics
            .kept_jobs
            .set(i64::try_from(kept.len()).unwrap_or(i64::MAX));
        for job in kept {
            let is_over = job.expires_at <= now;
            state.restore_job(job, is_over);
        }
        Self {
            state: Mutex::new(state),
            news: Notify::new(),
            to_write: Notify::new(),
            connected: watch::Sender::new(false),
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

    /// Keeps a job on disk until there is an outcome.
    pub fn keep(&self, job: LeasedJob) {
        let wake_writer = self.lock().keep(job, Instant::now());
        if wake_writer {
            self.to_write.notify_one();
        }
    }

    /// The jobs that are kept.
    pub fn kept(&self) -> Vec<Arc<LeasedJob>> {
        self.lock().kept()
    }

    /// Whether there is a session.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Waits until there is a session.
    pub async fn connected(&self) {
        let mut connected = self.connected.subscribe();
        // The sender is here, so it can't go.
        let _ = connected.wait_for(|connected| *connected).await;
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
        self.connected.send_replace(true);
    }

    /// The session ended: what is not acknowledged goes to disk now.
    pub fn end_session(&self) {
        self.connected.send_replace(false);
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
                Step::Write(batch) => self.write(batch).await,
            }
        }
    }

    async fn write(&self, batch: Batch) {
        let result = self.journal.write(&batch).await;
        let Err(error) = result else {
            let change = batch.outcomes.len() as i64 - batch.acknowledged.len() as i64;
            self.metrics.journal_entries.inc_by(change);
            let change = batch.jobs.len() as i64 - batch.done.len() as i64;
            self.metrics.kept_jobs.inc_by(change);
            return;
        };
        tracing::warn!(
            %error, outcomes = batch.outcomes.len(), jobs = batch.jobs.len(),
            "outcomes and jobs are not on disk; they stay in memory"
        );
        let again = self.lock().not_written(batch, Instant::now());
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
        outbox_state::testing::{NOW, job, outcome},
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
            let outbox = Outbox::new(
                journal,
                contents.outcomes,
                contents.jobs,
                Arc::default(),
                NOW,
            );
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

    #[tokio::test]
    async fn jobs_survive_until_there_is_an_outcome_or_their_lease_is_over() {
        let fixture = Fixture {
            folder: tempfile::tempdir().unwrap(),
            kek: SealingKey::generate(),
        };
        let (outbox, _, tasks) = fixture.open();
        let job = |seconds| job(NOW.plus(Duration::from_secs(seconds)));
        let (waiting, over, done) = (job(60), job(0), job(60));
        for job in [&waiting, &over, &done] {
            outbox.keep(job.clone());
            outbox.keep(job.clone());
        }
        fixture.close(outbox, tasks).await;

        let (outbox, _, tasks) = fixture.open();
        let mut found: Vec<_> = outbox.kept().iter().map(|it| it.lease).collect();
        let mut expected = vec![waiting.lease, done.lease];
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        outbox.add(Outcome {
            delivery: done.lease.delivery,
            ..outcome().1
        });
        fixture.close(outbox, tasks).await;

        let (outbox, outcomes, tasks) = fixture.open();
        assert_eq!(outbox.kept(), [Arc::new(waiting)], "with all that it had");
        assert_eq!(outcomes.len(), 1);
        fixture.close(outbox, tasks).await;
    }

    #[tokio::test]
    async fn what_is_done_in_time_is_never_written() {
        let fixture = Fixture {
            folder: tempfile::tempdir().unwrap(),
            kek: SealingKey::generate(),
        };
        let (outbox, _, tasks) = fixture.open();
        outbox.begin_session();
        assert!(outbox.is_connected());
        let job = job(NOW.plus(Duration::from_secs(60)));
        outbox.keep(job.clone());
        outbox.add(Outcome {
            delivery: job.lease.delivery,
            ..outcome().1
        });
        outbox.acknowledge(&[job.lease]);
        let step = outbox.lock().step(Instant::now());
        assert!(matches!(step, Step::Wait(_)), "{step:?}");
        fixture.close(outbox, tasks).await;
    }
}
