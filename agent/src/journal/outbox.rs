//! Outcomes on their way to the control plane: each is kept until it is acknowledged.
//!
//! An outcome is reported at once. To disk it goes only if no acknowledgement has come within
//! [`GRACE`], and at once while there is no session: with a control plane that answers promptly
//! nothing is written at all. How many there can be is bounded by the credit that the agent grants.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countersign_shared::{job::LeaseId, outcome::Outcome};
use tokio::{sync::Notify, time::Instant};

use super::Journal;
use crate::metrics::Metrics;

/// How long an acknowledgement may take before the outcome is journaled.
const GRACE: Duration = Duration::from_millis(20);
/// Most outcomes in one write.
const BATCH: usize = 1024;
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

#[derive(Debug, Default)]
struct State {
    connected: bool,
    finishing: bool,
    added: u64,
    entries: HashMap<LeaseId, Entry>,
    unsent: VecDeque<LeaseId>,
    unwritten: VecDeque<(LeaseId, Instant)>,
    /// On disk, or on the way there, and acknowledged.
    forgotten: Vec<LeaseId>,
}

#[derive(Debug)]
struct Entry {
    outcome: Arc<Outcome>,
    /// Its place in the order of outcomes.
    number: u64,
    /// On disk or on the way there.
    written: bool,
}

/// What the writer does next.
enum Step {
    Write(Vec<Arc<Outcome>>, Vec<LeaseId>),
    Wait(Option<Instant>),
    End,
}

impl Outbox {
    /// With what was found in the journal.
    pub fn new(journal: Journal, restored: Vec<Outcome>, metrics: Arc<Metrics>) -> Self {
        let mut state = State::default();
        metrics
            .journal_entries
            .set(i64::try_from(restored.len()).unwrap_or(i64::MAX));
        for outcome in restored {
            state.insert(outcome, true);
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
        let mut state = self.lock();
        let lease = state.insert(outcome, false);
        let wake_writer = state.unwritten.is_empty() || !state.connected;
        state.unwritten.push_back((lease, Instant::now() + GRACE));
        drop(state);
        self.news.notify_one();
        if wake_writer {
            self.to_write.notify_one();
        }
    }

    /// Up to `most` outcomes that this session has not been told yet, oldest first.
    pub fn take_unsent(&self, most: usize) -> Vec<Arc<Outcome>> {
        let mut state = self.lock();
        let mut batch = Vec::new();
        while batch.len() < most {
            let Some(lease) = state.unsent.pop_front() else {
                break;
            };
            if let Some(entry) = state.entries.get(&lease) {
                batch.push(Arc::clone(&entry.outcome));
            }
        }
        batch
    }

    /// Whether there are outcomes that this session has not been told.
    pub fn has_unsent(&self) -> bool {
        !self.lock().unsent.is_empty()
    }

    /// Waits for an outcome to be added.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Forgets what the control plane has made durable; returns how many of `leases` were here.
    pub fn acknowledge(&self, leases: &[LeaseId]) -> usize {
        let mut state = self.lock();
        let before = state.entries.len();
        for lease in leases {
            if state.entries.remove(lease).is_some_and(|it| it.written) {
                state.forgotten.push(*lease);
            }
        }
        let count = before - state.entries.len();
        let wake_writer = !state.forgotten.is_empty();
        drop(state);
        if wake_writer {
            self.to_write.notify_one();
        }
        count
    }

    /// The leases of all outcomes.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.lock().entries.keys().copied().collect()
    }

    /// A session begins: everything is to be reported again, oldest first.
    pub fn begin_session(&self) {
        let mut state = self.lock();
        state.connected = true;
        let mut leases: Vec<(u64, LeaseId)> = state
            .entries
            .iter()
            .map(|(lease, entry)| (entry.number, *lease))
            .collect();
        leases.sort_unstable();
        state.unsent = leases.into_iter().map(|(_, lease)| lease).collect();
    }

    /// The session ended: what is not acknowledged goes to disk now.
    pub fn end_session(&self) {
        self.lock().connected = false;
        self.to_write.notify_one();
    }

    /// No outcome is added any more: the writer ends once everything is on disk.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.connected = false;
        state.finishing = true;
        drop(state);
        self.to_write.notify_one();
    }

    /// How many are unacknowledged.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether every outcome is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes outcomes to disk when they are due and removes them when they are acknowledged, until
    /// [`Outbox::finish`].
    pub async fn write_behind(&self) {
        loop {
            match self.step(Instant::now()) {
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

    fn step(&self, now: Instant) -> Step {
        let mut state = self.lock();
        let mut puts = Vec::new();
        let mut next = None;
        while puts.len() < BATCH {
            let Some(&(lease, due)) = state.unwritten.front() else {
                break;
            };
            if state.connected && due > now && state.entries.contains_key(&lease) {
                next = Some(due);
                break;
            }
            state.unwritten.pop_front();
            if let Some(entry) = state.entries.get_mut(&lease).filter(|it| !it.written) {
                entry.written = true;
                puts.push(Arc::clone(&entry.outcome));
            }
        }
        let removes = std::mem::take(&mut state.forgotten);
        match (puts.is_empty() && removes.is_empty(), state.finishing) {
            (false, _) => Step::Write(puts, removes),
            (true, true) => Step::End,
            (true, false) => Step::Wait(next),
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
        let retry = !self.put_back(&puts, removes);
        if retry {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// After a failed write; true when the agent is stopping and there is no other chance.
    fn put_back(&self, puts: &[Arc<Outcome>], removes: Vec<LeaseId>) -> bool {
        let mut state = self.lock();
        if state.finishing {
            state.unwritten.clear();
            state.forgotten.clear();
            return true;
        }
        for outcome in puts {
            let lease = lease(outcome);
            if let Some(entry) = state.entries.get_mut(&lease) {
                entry.written = false;
                state.unwritten.push_back((lease, Instant::now()));
            }
        }
        state.forgotten.extend(removes);
        false
    }

    /// A poisoned lock: every change to the state is whole before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, outcome: Outcome, written: bool) -> LeaseId {
        let lease = lease(&outcome);
        self.added += 1;
        let entry = Entry {
            outcome: Arc::new(outcome),
            number: self.added,
            written,
        };
        self.entries.insert(lease, entry);
        self.unsent.push_back(lease);
        lease
    }
}

fn lease(outcome: &Outcome) -> LeaseId {
    LeaseId {
        delivery: outcome.delivery,
        epoch: outcome.epoch,
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::{
        class::FailureClass, outcome::AttemptTimings, random, seal::SealingKey, tasks::Tasks,
        time::Timestamp,
    };

    use super::*;
    use crate::journal;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn outcome() -> Outcome {
        Outcome {
            delivery: random::uuid_v7(NOW).into(),
            epoch: 1,
            class: FailureClass::Delivered,
            mtls_not_enforced: false,
            http_status: Some(204),
            handshake: None,
            timings: AttemptTimings::default(),
            started_at: NOW,
            retry_after: None,
            detail: "".into(),
        }
    }

    struct Fixture {
        folder: tempfile::TempDir,
        kek: SealingKey,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
                kek: SealingKey::generate(),
            }
        }

        fn open(&self) -> (Arc<Outbox>, Vec<Outcome>, Tasks) {
            let (tasks, _failures) = Tasks::new();
            let (store, contents) = journal::open(self.folder.path(), &self.kek, NOW).unwrap();
            let journal = Journal::start(store, &tasks).unwrap();
            let found = contents.outcomes.clone();
            let outbox = Outbox::new(journal, contents.outcomes, Arc::default());
            (Arc::new(outbox), found, tasks)
        }

        /// Runs the writer until everything is on disk, and gives the journal up.
        async fn close(&self, outbox: Arc<Outbox>, tasks: Tasks) {
            outbox.finish();
            outbox.write_behind().await;
            drop(outbox);
            tasks.stop(Duration::from_secs(10)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn unacknowledged_outcomes_survive_and_acknowledged_ones_do_not() {
        let fixture = Fixture::new();
        let (outbox, found, tasks) = fixture.open();
        assert!(found.is_empty());
        let (kept, gone) = (outcome(), outcome());
        outbox.add(kept.clone());
        outbox.add(gone.clone());
        fixture.close(outbox, tasks).await;

        let (outbox, found, tasks) = fixture.open();
        assert_eq!(found.len(), 2);
        outbox.begin_session();
        assert_eq!(outbox.leases().len(), 2);
        assert_eq!(outbox.acknowledge(&[lease(&gone), lease(&gone)]), 1);
        fixture.close(outbox, tasks).await;

        let (outbox, found, tasks) = fixture.open();
        assert_eq!(found, [kept]);
        fixture.close(outbox, tasks).await;
    }

    #[tokio::test]
    async fn a_session_hears_each_once_and_the_next_one_all_again_in_order() {
        let fixture = Fixture::new();
        let (outbox, _, tasks) = fixture.open();
        let outcomes: Vec<Outcome> = (0..5).map(|_| outcome()).collect();
        outbox.begin_session();
        for outcome in &outcomes {
            outbox.add(outcome.clone());
        }
        assert_eq!(outbox.take_unsent(3).len(), 3);
        assert_eq!(outbox.take_unsent(3).len(), 2);
        assert!(outbox.take_unsent(3).is_empty() && !outbox.has_unsent());
        outbox.acknowledge(&[lease(&outcomes[1])]);
        outbox.end_session();
        outbox.begin_session();
        let again = outbox.take_unsent(9);
        let expected = [0, 2, 3, 4].map(|at| outcomes[at].clone());
        assert!(again.iter().map(|it| &**it).eq(&expected));
        fixture.close(outbox, tasks).await;
    }

    #[tokio::test]
    async fn what_is_acknowledged_in_time_is_never_written() {
        let fixture = Fixture::new();
        let (outbox, _, tasks) = fixture.open();
        outbox.begin_session();
        let outcome = outcome();
        outbox.add(outcome.clone());
        assert!(matches!(outbox.step(Instant::now()), Step::Wait(Some(_))));
        assert_eq!(outbox.acknowledge(&[lease(&outcome)]), 1);
        let late = Instant::now() + 2 * GRACE;
        assert!(matches!(outbox.step(late), Step::Wait(None)));
        fixture.close(outbox, tasks).await;
    }

    #[tokio::test]
    async fn what_is_not_acknowledged_in_time_is_written() {
        let fixture = Fixture::new();
        let (outbox, _, tasks) = fixture.open();
        outbox.begin_session();
        outbox.add(outcome());
        let late = Instant::now() + 2 * GRACE;
        let Step::Write(puts, removes) = outbox.step(late) else {
            panic!("not due");
        };
        assert_eq!((puts.len(), removes.len()), (1, 0));
        outbox.write(puts, removes).await;
        fixture.close(outbox, tasks).await;
    }
}
