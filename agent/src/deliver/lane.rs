//! A destination's lane: its newest bundle, its queue, and how many workers are on it. One slow
//! destination fills its own lane and no other.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use countersign_shared::{job::LeasedJob, outcome::Outcome};
use tokio::time::Instant;

use super::prepared::Prepared;

/// A job that waits for a worker.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) job: LeasedJob,
    /// When it came.
    pub(super) since: Instant,
    /// How the attempt before ended, under the same lease, while the agent was cut off.
    pub(super) before: Option<Box<Outcome>>,
}

/// One destination's lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) bundle: ArcSwap<Prepared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Queued>,
    workers: u32,
    closed: bool,
}

/// What became of a job that was put in.
#[derive(Debug)]
pub(super) enum Pushed {
    /// A worker will come to it.
    Queued,
    /// It is queued, and the caller must start a worker, which is counted already.
    StartWorker,
    /// The lane is closed.
    Closed(Queued),
}

impl Lane {
    pub(super) fn new(bundle: Arc<Prepared>) -> Self {
        Self {
            bundle: ArcSwap::new(bundle),
            state: Mutex::default(),
        }
    }

    /// Queues a job.
    pub(super) fn push(&self, queued: Queued) -> Pushed {
        let limit = self.bundle.load().concurrency_limit;
        let mut state = self.lock();
        if state.closed {
            return Pushed::Closed(queued);
        }
        state.queue.push_back(queued);
        if state.workers < limit {
            state.workers += 1;
            Pushed::StartWorker
        } else {
            Pushed::Queued
        }
    }

    /// The next job for a worker; `None` ends the worker, which is then not counted any more.
    pub(super) fn next(&self) -> Option<Queued> {
        let limit = self.bundle.load().concurrency_limit;
        let mut state = self.lock();
        let next = if state.workers <= limit {
            state.queue.pop_front()
        } else {
            None
        };
        if next.is_none() {
            state.workers -= 1;
        }
        next
    }

    /// A worker ended without having been told to.
    pub(super) fn worker_lost(&self) {
        self.lock().workers -= 1;
    }

    /// Takes no more jobs and gives back those that have not begun.
    pub(super) fn close(&self) -> VecDeque<Queued> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.queue)
    }

    /// Gives back the jobs that have not begun.
    pub(super) fn empty(&self) -> VecDeque<Queued> {
        std::mem::take(&mut self.lock().queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Queue and count change by single steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
