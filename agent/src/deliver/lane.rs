//! A destination's lane: its newest bundle, its queue, and how many workers are on it. One slow
//! destination fills its own lane and no other.
//!
//! The first job that finds nobody at work starts a worker. Those behind it wait for it a little: most receivers answer
//! within milliseconds, and a connection that is in use costs far less than another one. While jobs have waited
//! [`PATIENCE`], workers become as many again each time it passes, up to the limit.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use countersign_shared::{job::LeasedJob, outcome::Outcome};
use tokio::time::Instant;

use super::prepared::Prepared;

/// How long a job waits for a worker that is there already.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

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
    /// Somebody looks again when the first of the queue has waited long enough.
    watched: bool,
    closed: bool,
}

/// What became of a job that was put in.
#[derive(Debug)]
pub(super) enum Pushed {
    /// A worker will come to it, or whoever watches the lane starts one.
    Queued,
    /// It is queued, and the caller must watch the lane.
    Watch,
    /// It is queued, and the caller must start a worker, which is counted already.
    StartWorker,
    /// The lane is closed.
    Closed(Queued),
}

/// What whoever watches a lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Looks again then.
    Until(Instant),
    /// Starts so many workers, which are counted already, and looks again.
    StartWorkers(u32),
    /// Nothing more.
    Enough,
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
        self.lock().push(queued, limit)
    }

    /// What whoever watches the lane does at `now`.
    pub(super) fn watch(&self, now: Instant) -> Watch {
        let limit = self.bundle.load().concurrency_limit;
        self.lock().watch(now, limit)
    }

    /// The next job for a worker; `None` ends the worker, which is then not counted any more.
    pub(super) fn next(&self) -> Option<Queued> {
        let limit = self.bundle.load().concurrency_limit;
        self.lock().next(limit)
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

impl State {
    fn push(&mut self, queued: Queued, limit: u32) -> Pushed {
        if self.closed {
            return Pushed::Closed(queued);
        }
        self.queue.push_back(queued);
        if self.workers == 0 {
            self.workers = 1;
            Pushed::StartWorker
        } else if self.workers < limit && !self.watched {
            self.watched = true;
            Pushed::Watch
        } else {
            Pushed::Queued
        }
    }

    fn watch(&mut self, now: Instant, limit: u32) -> Watch {
        let free = limit.saturating_sub(self.workers);
        let Some(first) = self.queue.front().filter(|_| free > 0) else {
            // Those at work come to what there is.
            self.watched = false;
            return Watch::Enough;
        };
        let at = first.since + PATIENCE;
        if at > now {
            return Watch::Until(at);
        }
        // As many again, so that a burst makes no more connections than it has use for.
        let more = free.min(self.workers.max(1));
        let late = self
            .queue
            .iter()
            .zip(0..more)
            .take_while(|(job, _)| job.since + PATIENCE <= now);
        let more = late.map(|(_, number)| number + 1).last();
        let more = more.unwrap_or_default();
        self.workers += more;
        Watch::StartWorkers(more)
    }

    fn next(&mut self, limit: u32) -> Option<Queued> {
        let next = if self.workers <= limit {
            self.queue.pop_front()
        } else {
            None
        };
        if next.is_none() {
            self.workers -= 1;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::in_hand::tests::job, *};

    fn queued(since: Instant) -> Queued {
        Queued {
            job: job(),
            since,
            before: None,
        }
    }

    /// Queues so many at `now`; answers with what became of each.
    fn push(state: &mut State, count: usize, now: Instant, limit: u32) -> Vec<Pushed> {
        let pushed = (0..count).map(|_| state.push(queued(now), limit));
        pushed.collect()
    }

    #[test]
    fn the_first_starts_a_worker_and_those_behind_it_wait_a_little() {
        let (mut state, start) = (State::default(), Instant::now());
        let pushed = push(&mut state, 3, start, 64);
        use Pushed::{Queued, StartWorker, Watch as Watched};
        assert!(matches!(pushed[..], [StartWorker, Watched, Queued]));
        assert!(state.next(64).is_some(), "the worker has begun");
        assert_eq!(state.watch(start, 64), Watch::Until(start + PATIENCE));
        // It answered soon: nobody else was needed.
        assert!(state.next(64).is_some() && state.next(64).is_some());
        assert_eq!(state.watch(start + PATIENCE, 64), Watch::Enough);
        assert!(state.next(64).is_none());
        assert!(matches!(push(&mut state, 1, start, 64)[..], [StartWorker]));
    }

    #[test]
    fn who_waits_too_long_gets_workers_as_many_again_each_time() {
        let (mut state, start) = (State::default(), Instant::now());
        push(&mut state, 12, start, 10);
        assert!(state.next(10).is_some(), "and hangs");
        let mut started = Vec::new();
        for round in 1..=5 {
            let now = start + round * PATIENCE;
            match state.watch(now, 10) {
                Watch::StartWorkers(count) => started.push(count),
                Watch::Until(_) => panic!("all have waited"),
                Watch::Enough => break,
            }
            for _ in 0..started[started.len() - 1] {
                assert!(state.next(10).is_some());
            }
        }
        assert_eq!(started, [1, 2, 4, 2], "up to the limit");
    }

    #[test]
    fn only_those_that_have_waited_count() {
        let (mut state, start) = (State::default(), Instant::now());
        push(&mut state, 2, start, 64);
        push(&mut state, 5, start + PATIENCE / 2, 64);
        state.workers = 4;
        assert_eq!(state.watch(start + PATIENCE, 64), Watch::StartWorkers(2));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Push,
        Next,
        Watch,
        Limit(u32),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            3 => Just(Step::Next),
            2 => Just(Step::Watch),
            1 => (1_u32..6).prop_map(Step::Limit),
            2 => (0_u64..20).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens: never more at work than may be, and what waits is waited for.
        #[test]
        fn a_limit_holds_and_nothing_is_left_behind(steps in prop::collection::vec(step(), 0..200)) {
            let (mut state, mut now) = (State::default(), Instant::now());
            let (mut limit, mut running) = (3_u32, 0_u32);
            let (mut pushed, mut taken) = (0, 0);
            for step in steps {
                let before = running;
                match step {
                    Step::Push => {
                        pushed += 1;
                        match state.push(queued(now), limit) {
                            Pushed::StartWorker => running += 1,
                            Pushed::Closed(_) => prop_assert!(false, "it is open"),
                            Pushed::Queued | Pushed::Watch => {}
                        }
                    }
                    Step::Next if running > 0 => match state.next(limit) {
                        Some(_) => taken += 1,
                        None => running -= 1,
                    },
                    Step::Watch if state.watched => {
                        if let Watch::StartWorkers(count) = state.watch(now, limit) {
                            prop_assert!(count > 0);
                            running += count;
                        }
                    }
                    Step::Next | Step::Watch => {}
                    Step::Limit(new) => limit = new,
                    Step::Pass(millis) => now += Duration::from_millis(millis),
                }
                prop_assert_eq!(state.workers, running);
                prop_assert!(running <= limit.max(before));
                prop_assert!(state.queue.is_empty() || running > 0);
            }
            // Those that are at work come to the rest.
            while state.workers > 0 {
                taken += usize::from(state.next(limit.max(running)).is_some());
            }
            prop_assert_eq!(taken, pushed);
        }
    }
}
