//! Jobs that are kept on disk, so that an agent that is cut off and starts anew goes on with them. Plain state; nothing
//! here waits.
//!
//! A job goes to disk only if it is not done within a grace period, and at once while there is no session: what is
//! delivered promptly is never written.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use countersign_shared::job::{LeaseId, LeasedJob};
use tokio::time::Instant;

/// The jobs that are kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    jobs: HashMap<LeaseId, Entry>,
    unwritten: VecDeque<(LeaseId, Instant)>,
    /// On disk, or on the way there, and done.
    done: Vec<LeaseId>,
}

#[derive(Debug)]
struct Entry {
    job: Arc<LeasedJob>,
    /// On disk or on the way there.
    written: bool,
}

impl Kept {
    /// Takes in what was found on disk.
    pub(super) fn restore(&mut self, job: LeasedJob) {
        self.insert(job, true);
    }

    /// What was found on disk is of no use.
    pub(super) fn discard(&mut self, lease: LeaseId) {
        self.done.push(lease);
    }

    /// Keeps a job, on disk when it is not done by then. False when it is kept already.
    pub(super) fn keep(&mut self, job: LeasedJob, by: Instant) -> bool {
        let lease = job.lease;
        if self.jobs.contains_key(&lease) {
            return false;
        }
        self.insert(job, false);
        self.unwritten.push_back((lease, by));
        true
    }

    fn insert(&mut self, job: LeasedJob, written: bool) {
        let job = Arc::new(job);
        self.jobs.insert(job.lease, Entry { job, written });
    }

    /// There is an outcome: nobody needs the job any more. True when it must be removed from disk.
    pub(super) fn done(&mut self, lease: LeaseId) -> bool {
        let written = self.jobs.remove(&lease).is_some_and(|it| it.written);
        if written {
            self.done.push(lease);
        }
        written
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<LeasedJob>> {
        self.jobs.values().map(|it| Arc::clone(&it.job)).collect()
    }

    /// Up to `most` jobs that are to be written at `now`, or all that are not, when `at_once`; and when the next one is.
    pub(super) fn due(
        &mut self,
        now: Instant,
        at_once: bool,
        most: usize,
    ) -> (Vec<Arc<LeasedJob>>, Option<Instant>) {
        let mut jobs = Vec::new();
        while jobs.len() < most {
            let Some(&(lease, by)) = self.unwritten.front() else {
                break;
            };
            let entry = self.jobs.get_mut(&lease).filter(|it| !it.written);
            if entry.is_some() && by > now && !at_once {
                return (jobs, Some(by));
            }
            self.unwritten.pop_front();
            if let Some(entry) = entry {
                entry.written = true;
                jobs.push(Arc::clone(&entry.job));
            }
        }
        (jobs, None)
    }

    /// What is to be removed from disk.
    pub(super) fn take_done(&mut self) -> Vec<LeaseId> {
        std::mem::take(&mut self.done)
    }

    /// A write failed: it is due again.
    pub(super) fn not_written(
        &mut self,
        jobs: &[Arc<LeasedJob>],
        done: Vec<LeaseId>,
        now: Instant,
    ) {
        for job in jobs {
            if let Some(entry) = self.jobs.get_mut(&job.lease) {
                entry.written = false;
                self.unwritten.push_back((job.lease, now));
            }
        }
        self.done.extend(done);
    }

    /// Nothing is written any more.
    pub(super) fn give_up(&mut self) {
        self.unwritten.clear();
        self.done.clear();
    }
}
