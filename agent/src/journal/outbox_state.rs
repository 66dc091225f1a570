//! The outbox's state, without locks, disk or waiting: which outcomes there are, which this session
//! has not been told, which are due to be written, and which are on disk for nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use countersign_shared::{
    job::{LeaseId, LeasedJob},
    outcome::Outcome,
};
use tokio::time::Instant;

use super::kept::Kept;

/// How long an acknowledgement may take before the outcome is journaled: longer than it does at full
/// speed, when the control plane's commits are large. Should the agent be killed before, those
/// deliveries are attempted again.
const GRACE: Duration = Duration::from_millis(250);
/// Most outcomes in one write.
const BATCH: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct State {
    connected: bool,
    finishing: bool,
    added: u64,
    entries: HashMap<LeaseId, Entry>,
    unsent: VecDeque<LeaseId>,
    unwritten: VecDeque<(LeaseId, Instant)>,
    /// On disk, or on the way there, and acknowledged.
    forgotten: Vec<LeaseId>,
    kept: Kept,
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
#[derive(Debug)]
pub(super) enum Step {
    /// Change what is on disk.
    Write(Batch),
    /// Wait for news, or until then.
    Wait(Option<Instant>),
    /// Everything is on disk and nothing more comes.
    End,
}

/// What is put on disk and removed from there, in one step.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Outcomes to put there.
    pub(super) outcomes: Vec<Arc<Outcome>>,
    /// Outcomes to remove.
    pub(super) acknowledged: Vec<LeaseId>,
    /// Jobs to put there.
    pub(super) jobs: Vec<Arc<LeasedJob>>,
    /// Jobs to remove.
    pub(super) done: Vec<LeaseId>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
            && self.acknowledged.is_empty()
            && self.jobs.is_empty()
            && self.done.is_empty()
    }
}

impl State {
    /// Takes in a job that was found on disk, if it can still be worked on at all.
    pub(super) fn restore_job(&mut self, job: LeasedJob, is_over: bool) {
        match is_over || self.entries.contains_key(&job.lease) {
            true => self.kept.discard(job.lease),
            false => self.kept.restore(job),
        }
    }

    /// Keeps a job until there is an outcome; true when the writer must look again.
    pub(super) fn keep(&mut self, job: LeasedJob, now: Instant) -> bool {
        self.kept.keep(job, now + GRACE)
    }

    pub(super) fn kept(&self) -> Vec<Arc<LeasedJob>> {
        self.kept.all()
    }

    /// Takes in what was found on disk.
    pub(super) fn restore(&mut self, outcome: Outcome) {
        self.insert(outcome, true);
    }

    /// Takes an outcome in; true when the writer must look again.
    pub(super) fn add(&mut self, outcome: Outcome, now: Instant) -> bool {
        let wake = self.unwritten.is_empty() || !self.connected;
        let lease = self.insert(outcome, false);
        self.unwritten.push_back((lease, now + GRACE));
        self.kept.done(lease) || wake
    }

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

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Up to `most` outcomes that this session has not been told, oldest first.
    pub(super) fn take_unsent(&mut self, most: usize) -> Vec<Arc<Outcome>> {
        let mut batch = Vec::new();
        while batch.len() < most {
            let Some(lease) = self.unsent.pop_front() else {
                break;
            };
            if let Some(entry) = self.entries.get(&lease) {
                batch.push(Arc::clone(&entry.outcome));
            }
        }
        batch
    }

    /// Forgets what is acknowledged; true when something must be removed from disk.
    pub(super) fn acknowledge(&mut self, leases: &[LeaseId]) -> bool {
        for lease in leases {
            if self.entries.remove(lease).is_some_and(|it| it.written) {
                self.forgotten.push(*lease);
            }
        }
        !self.forgotten.is_empty()
    }

    pub(super) fn leases(&self) -> Vec<LeaseId> {
        self.entries.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A session begins: everything is to be told again, oldest first.
    pub(super) fn begin_session(&mut self) {
        self.connected = true;
        let mut leases: Vec<(u64, LeaseId)> = self
            .entries
            .iter()
            .map(|(lease, entry)| (entry.number, *lease))
            .collect();
        leases.sort_unstable();
        self.unsent = leases.into_iter().map(|(_, lease)| lease).collect();
    }

    /// What is not acknowledged is due to be written now.
    pub(super) fn end_session(&mut self) {
        self.connected = false;
    }

    /// No outcome is added any more.
    pub(super) fn finish(&mut self) {
        self.connected = false;
        self.finishing = true;
    }

    /// What the writer does at `now`. What it is told to write counts as written.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let mut puts = Vec::new();
        let mut next = None;
        while puts.len() < BATCH {
            let Some(&(lease, due)) = self.unwritten.front() else {
                break;
            };
            if self.connected && due > now && self.entries.contains_key(&lease) {
                next = Some(due);
                break;
            }
            self.unwritten.pop_front();
            if let Some(entry) = self.entries.get_mut(&lease).filter(|it| !it.written) {
                entry.written = true;
                puts.push(Arc::clone(&entry.outcome));
            }
        }
        let (jobs, next_job) = self.kept.due(now, !self.connected, BATCH);
        let batch = Batch {
            outcomes: puts,
            acknowledged: std::mem::take(&mut self.forgotten),
            jobs,
            done: self.kept.take_done(),
        };
        match (batch.is_empty(), self.finishing) {
            (false, _) => Step::Write(batch),
            (true, true) => Step::End,
            (true, false) => Step::Wait([next, next_job].into_iter().flatten().min()),
        }
    }

    /// A write failed: it is due again, unless there is no other chance; true when there is.
    pub(super) fn not_written(&mut self, batch: Batch, now: Instant) -> bool {
        if self.finishing {
            self.unwritten.clear();
            self.forgotten.clear();
            self.kept.give_up();
            return false;
        }
        for outcome in &batch.outcomes {
            let lease = lease(outcome);
            if let Some(entry) = self.entries.get_mut(&lease) {
                entry.written = false;
                self.unwritten.push_back((lease, now));
            }
        }
        self.forgotten.extend(batch.acknowledged);
        self.kept.not_written(&batch.jobs, batch.done, now);
        true
    }
}

fn lease(outcome: &Outcome) -> LeaseId {
    LeaseId {
        delivery: outcome.delivery,
        epoch: outcome.epoch,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use countersign_shared::{
        class::FailureClass, headers::Headers, job::OfflineWork, outcome::AttemptTimings, random,
        time::Timestamp,
    };

    use super::*;

    pub(crate) const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    pub(crate) fn job(expires_at: Timestamp) -> LeasedJob {
        let headers = [("x-tenant".to_owned(), "7".to_owned())];
        LeasedJob {
            lease: LeaseId {
                delivery: random::uuid_v7(NOW).into(),
                epoch: 1,
            },
            destination: "accounts/a/destinations/d".parse().unwrap(),
            expires_at,
            payload: bytes::Bytes::from_static(b"12345"),
            headers: Headers::new(headers).unwrap(),
            content_type: "text/plain".into(),
            attempt_number: 2,
            offline: Some(OfflineWork {
                attempt_deadline: Some(expires_at),
            }),
        }
    }

    pub(crate) fn outcome() -> (LeaseId, Outcome) {
        let outcome = Outcome {
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
            refused: None,
            receipt: None,
            unrecorded_attempts: 0,
        };
        (lease(&outcome), outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::outcome, *};

    fn connected() -> State {
        let mut state = State::default();
        state.begin_session();
        state
    }

    #[test]
    fn a_session_hears_each_once_and_the_next_one_all_again_in_order() {
        let mut state = connected();
        let (leases, outcomes): (Vec<_>, Vec<_>) = (0..5).map(|_| outcome()).unzip();
        for outcome in &outcomes {
            state.add(outcome.clone(), Instant::now());
        }
        assert_eq!(state.take_unsent(3).len(), 3);
        assert_eq!(state.take_unsent(3).len(), 2);
        assert!(state.take_unsent(3).is_empty() && !state.has_unsent());
        state.acknowledge(&[leases[1], leases[1]]);
        state.end_session();
        state.begin_session();
        let again = state.take_unsent(9);
        let expected = [0, 2, 3, 4].map(|at| outcomes[at].clone());
        assert!(again.iter().map(|it| &**it).eq(&expected));
        assert_eq!(state.len(), 4);
    }

    #[test]
    fn what_is_acknowledged_in_time_is_never_written() {
        let mut state = connected();
        let (lease, outcome) = outcome();
        let now = Instant::now();
        assert!(state.add(outcome, now));
        assert!(matches!(state.step(now), Step::Wait(Some(at)) if at == now + GRACE));
        assert!(!state.acknowledge(&[lease]));
        assert!(matches!(state.step(now + GRACE), Step::Wait(None)));
    }

    #[test]
    fn what_is_late_or_without_a_session_is_written_once_and_removed_once() {
        let mut state = connected();
        let (lease, late) = outcome();
        let now = Instant::now();
        state.add(late, now);
        assert!(matches!(state.step(now + GRACE), Step::Write(batch) if batch.outcomes.len() == 1));
        assert!(matches!(state.step(now + GRACE), Step::Wait(None)));
        assert!(state.acknowledge(&[lease]));
        assert!(matches!(state.step(now), Step::Write(batch) if batch.acknowledged == [lease]));
        assert!(matches!(state.step(now), Step::Wait(None)));

        state.end_session();
        assert!(state.add(outcome().1, now));
        assert!(matches!(state.step(now), Step::Write(batch) if batch.outcomes.len() == 1));
        state.finish();
        assert!(matches!(state.step(now), Step::End));
    }

    #[test]
    fn a_failed_write_is_due_again_until_there_is_no_other_chance() {
        let mut state = connected();
        let now = Instant::now();
        state.end_session();
        state.add(outcome().1, now);
        for chance in [true, false] {
            let Step::Write(batch) = state.step(now) else {
                panic!("nothing to write");
            };
            if !chance {
                state.finish();
            }
            assert_eq!(state.not_written(batch, now), chance);
        }
        assert!(matches!(state.step(now), Step::End));
    }
}
