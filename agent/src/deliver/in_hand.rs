//! The jobs in hand, by lease: what the agent tells the control plane that it still holds, whose
//! leases it extends, and how much of its credit they use. Plain state; nothing here waits.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countersign_shared::{
    job::{LeaseId, LeasedJob},
    time::Timestamp,
};

/// The jobs in hand.
#[derive(Debug, Default)]
pub struct InHand(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    jobs: HashMap<LeaseId, Held>,
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    bytes: u64,
    expires_at: Timestamp,
    /// How long the lease lasted when it was given or last extended.
    lasts: Duration,
    /// When the attempt ends at the latest, once it has begun.
    busy_until: Option<Timestamp>,
    asked_at: Option<Timestamp>,
    lost: bool,
}

impl InHand {
    /// Takes a job in; false when this very lease is in hand already.
    pub(super) fn take(&self, job: &LeasedJob, now: Timestamp) -> bool {
        let mut state = self.lock();
        if state.jobs.contains_key(&job.lease) {
            return false;
        }
        let held = Held {
            bytes: job.payload.len() as u64,
            expires_at: job.expires_at,
            lasts: job.expires_at.since(now),
            busy_until: None,
            asked_at: None,
            lost: false,
        };
        state.bytes += held.bytes;
        state.jobs.insert(job.lease, held);
        true
    }

    /// Whether an attempt that may take `timeout` may begin: the lease must still be held.
    pub(super) fn begin(&self, lease: LeaseId, now: Timestamp, timeout: Duration) -> bool {
        match self.lock().jobs.get_mut(&lease) {
            Some(held) if !held.lost && now < held.expires_at => {
                held.busy_until = Some(now.plus(timeout));
                true
            }
            _ => false,
        }
    }

    /// The attempt has ended, and the job waits for another.
    pub(super) fn rests(&self, lease: LeaseId) {
        if let Some(held) = self.lock().jobs.get_mut(&lease) {
            held.busy_until = None;
        }
    }

    /// The job is done with.
    pub(super) fn finish(&self, lease: LeaseId) {
        let mut state = self.lock();
        if let Some(held) = state.jobs.remove(&lease) {
            state.bytes -= held.bytes;
        }
    }

    /// The leases that must be extended now: half of their time is over and the job needs more.
    pub fn to_extend(&self, now: Timestamp) -> Vec<LeaseId> {
        let mut state = self.lock();
        let mut due = Vec::new();
        for (lease, held) in &mut state.jobs {
            if held.needs_extension(now) {
                held.asked_at = Some(now);
                due.push(*lease);
            }
        }
        due
    }

    /// The control plane has extended `leases` by `lasts` from `now`.
    pub fn extended(&self, leases: &[LeaseId], now: Timestamp, lasts: Duration) {
        let mut state = self.lock();
        for lease in leases {
            if let Some(held) = state.jobs.get_mut(lease) {
                held.expires_at = now.plus(lasts);
                held.lasts = lasts;
            }
        }
    }

    /// The control plane has given `leases` to others: what has not begun does not begin.
    pub fn lost(&self, leases: &[LeaseId]) {
        let mut state = self.lock();
        for lease in leases {
            if let Some(held) = state.jobs.get_mut(lease) {
                held.lost = true;
            }
        }
    }

    /// The leases under which work goes on.
    pub fn leases(&self) -> Vec<LeaseId> {
        let state = self.lock();
        let held = state.jobs.iter().filter(|(_, held)| !held.lost);
        held.map(|(lease, _)| *lease).collect()
    }

    /// How many jobs and payload bytes are in hand.
    pub fn size(&self) -> (usize, u64) {
        let state = self.lock();
        (state.jobs.len(), state.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Count and map change together; neither can panic between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn needs_extension(&self, now: Timestamp) -> bool {
        let left = self.expires_at.since(now);
        let done_in_time = self.busy_until.is_some_and(|until| until < self.expires_at);
        let asked = self
            .asked_at
            .is_some_and(|at| now.since(at) < self.lasts / 8);
        !self.lost && !left.is_zero() && left < self.lasts / 2 && !done_in_time && !asked
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use countersign_shared::{headers::Headers, random};

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);
    const LEASE: Duration = Duration::from_secs(90);

    pub(in super::super) fn job() -> LeasedJob {
        LeasedJob {
            lease: LeaseId {
                delivery: random::uuid_v7(NOW).into(),
                epoch: 1,
            },
            destination: "accounts/a/destinations/d".parse().unwrap(),
            expires_at: NOW.plus(LEASE),
            payload: Bytes::from_static(b"12345"),
            headers: Headers::default(),
            content_type: "text/plain".into(),
            attempt_number: 1,
            offline: None,
        }
    }

    fn after(seconds: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn size_follows_the_jobs_and_a_lease_is_taken_once() {
        let (in_hand, job) = (InHand::default(), job());
        assert!(in_hand.take(&job, NOW));
        assert!(!in_hand.take(&job, NOW));
        assert_eq!(in_hand.size(), (1, 5));
        in_hand.finish(job.lease);
        in_hand.finish(job.lease);
        assert_eq!(in_hand.size(), (0, 0));
    }

    #[test]
    fn nothing_begins_under_a_lease_that_ended_or_was_lost() {
        let (in_hand, job) = (InHand::default(), job());
        assert!(!in_hand.begin(job.lease, NOW, LEASE));
        in_hand.take(&job, NOW);
        assert!(in_hand.begin(job.lease, after(89), LEASE));
        assert!(!in_hand.begin(job.lease, after(90), LEASE));
        in_hand.lost(&[job.lease]);
        assert!(!in_hand.begin(job.lease, NOW, LEASE));
        assert!(in_hand.leases().is_empty());
    }

    #[test]
    fn leases_are_extended_when_half_is_over_and_only_if_needed() {
        let in_hand = InHand::default();
        let (queued, short, long) = (job(), job(), job());
        for job in [&queued, &short, &long] {
            in_hand.take(job, NOW);
        }
        in_hand.begin(short.lease, NOW, Duration::from_secs(30));
        in_hand.begin(long.lease, NOW, Duration::from_secs(120));
        assert!(in_hand.to_extend(after(44)).is_empty());
        let mut due = in_hand.to_extend(after(46));
        let mut expected = vec![queued.lease, long.lease];
        due.sort();
        expected.sort();
        assert_eq!(due, expected);
        // Not asked again at once, but before the lease ends; not any more when it has ended.
        assert!(in_hand.to_extend(after(47)).is_empty());
        assert_eq!(in_hand.to_extend(after(60)).len(), 2);
        assert!(in_hand.to_extend(after(90)).is_empty());
        in_hand.extended(&[long.lease], after(60), LEASE);
        assert_eq!(in_hand.to_extend(after(80)), [queued.lease]);
    }
}
