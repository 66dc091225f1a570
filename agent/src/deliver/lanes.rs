//! All lanes: jobs come in, attempts run, outcomes go to the outbox.
//!
//! A lane has up to as many workers as its destination's concurrency limit allows. A worker is
//! started by a job, takes one job after the other, and ends when the queue is empty: a busy lane
//! spawns nothing, an idle one costs nothing. How many jobs there can be is bounded by the credit
//! that the agent grants.
//!
//! While the agent is cut off, a job that its destination lets it go on with is attempted again and again,
//! and only the last outcome is told.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use countersign_shared::{
    class::FailureClass,
    job::LeasedJob,
    name::DestinationName,
    outcome::Outcome,
    random,
    tasks::{OnFailure, Tasks},
    time::Clock,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    alone,
    attempt::{attempt, given_back, not_attempted, proves_bundle},
    in_hand::InHand,
    lane::{Lane, PATIENCE, Pushed, Queued, Watch},
    prepared::Prepared,
    receipts::Receipts,
};
use crate::{journal::Outbox, metrics::Metrics};

/// A bundle was used in a real handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Which destination.
    pub destination: DestinationName,
    /// Which generation of its bundle.
    pub generation: u64,
}

/// What the lanes work with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where outcomes go.
    pub outbox: Arc<Outbox>,
    /// Runs the workers.
    pub tasks: Tasks,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Signs receipts where a destination wants them.
    pub receipts: Option<Arc<Receipts>>,
    /// Hears of each bundle that is used for the first time. When it is full the next use says so.
    pub activations: mpsc::Sender<Activation>,
}

/// All lanes. Cheap to clone.
#[derive(Clone)]
pub struct Lanes(Arc<Shared>);

struct Shared {
    parts: Parts,
    lanes: RwLock<HashMap<DestinationName, Arc<Lane>>>,
    in_hand: InHand,
    closed: CancellationToken,
}

impl Lanes {
    /// No lanes yet.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            lanes: RwLock::default(),
            in_hand: InHand::default(),
            closed: CancellationToken::new(),
        }))
    }

    /// The jobs in hand.
    pub fn in_hand(&self) -> &InHand {
        &self.0.in_hand
    }

    /// Uses `bundle` for its destination from the next attempt on.
    pub fn install(&self, bundle: Arc<Prepared>) {
        let mut lanes = self.0.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let before = match lanes.get(&bundle.destination) {
            Some(lane) => Some(lane.bundle.swap(bundle)),
            None => {
                lanes.insert(bundle.destination.clone(), Arc::new(Lane::new(bundle)));
                None
            }
        };
        drop(lanes);
        // Its connections may have leave to take, for which no job should wait.
        drop(before);
    }

    /// Forgets a destination; its jobs that have not begun are given back.
    pub fn remove(&self, destination: &DestinationName) {
        let mut lanes = self.0.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let removed = lanes.remove(destination);
        drop(lanes);
        if let Some(lane) = removed {
            self.0.give_back(&lane, lane.close(), given_back::NO_BUNDLE);
        }
    }

    /// The newest bundle of a destination.
    pub fn bundle(&self, destination: &DestinationName) -> Option<Arc<Prepared>> {
        self.0.lane(destination).map(|lane| lane.bundle.load_full())
    }

    /// The newest bundle of each destination.
    pub fn bundles(&self) -> Vec<Arc<Prepared>> {
        let lanes = self.0.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.values().map(|lane| lane.bundle.load_full()).collect()
    }

    /// Takes a job. Its outcome comes through the outbox, whatever happens.
    pub fn take(&self, job: LeasedJob) {
        let shared = &self.0;
        if !shared.in_hand.take(&job, shared.parts.clock.now()) {
            return;
        }
        if job.offline.is_some() {
            shared.parts.outbox.keep(job.clone());
        }
        if shared.closed.is_cancelled() {
            return shared.return_job(&job, given_back::STOPPING);
        }
        let Some(lane) = shared.lane(&job.destination) else {
            return shared.return_job(&job, given_back::NO_BUNDLE);
        };
        shared.queue(
            lane,
            Queued {
                job,
                since: Instant::now(),
                before: None,
            },
        );
    }

    /// Begins no more attempts and gives back what is queued; attempts in flight go on. While the agent is cut off, what
    /// its journal keeps stays there instead, for when it starts again.
    pub fn close(&self) {
        self.0.closed.cancel();
        for lane in self.0.all() {
            self.0.give_back(&lane, lane.close(), given_back::STOPPING);
        }
    }

    /// Gives back what is queued; attempts in flight go on, and so do jobs that come later.
    pub fn give_back(&self) {
        for lane in self.0.all() {
            self.0.give_back(&lane, lane.empty(), given_back::DRAINED);
        }
    }
}

impl Shared {
    fn lane(&self, destination: &DestinationName) -> Option<Arc<Lane>> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.get(destination).map(Arc::clone)
    }

    fn all(&self) -> Vec<Arc<Lane>> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.values().map(Arc::clone).collect()
    }

    fn queue(self: &Arc<Self>, lane: Arc<Lane>, queued: Queued) {
        match lane.push(queued) {
            Pushed::Queued => {}
            Pushed::StartWorker => self.start_worker(lane),
            Pushed::Watch => {
                let watching = Arc::clone(self).watch(lane);
                let tasks = &self.parts.tasks;
                tasks.spawn("lane watch", OnFailure::Log, watching);
            }
            Pushed::Closed(queued) => self.give_back(&lane, [queued], given_back::STOPPING),
        }
    }

    fn start_worker(self: &Arc<Self>, lane: Arc<Lane>) {
        let worker = Worker {
            shared: Arc::clone(self),
            lane,
            counted: true,
        };
        let tasks = &self.parts.tasks;
        tasks.spawn("delivery worker", OnFailure::Log, worker.run());
    }

    /// Starts workers for jobs that have waited long enough, until none waits.
    async fn watch(self: Arc<Self>, lane: Arc<Lane>) -> Result<(), std::convert::Infallible> {
        loop {
            match lane.watch(Instant::now()) {
                Watch::Until(at) => tokio::time::sleep_until(at).await,
                Watch::StartWorkers(count) => {
                    for _ in 0..count {
                        self.start_worker(Arc::clone(&lane));
                    }
                    tokio::time::sleep(PATIENCE).await;
                }
                Watch::Enough => return Ok(()),
            }
        }
    }

    fn give_back(&self, lane: &Lane, queued: impl IntoIterator<Item = Queued>, why: &'static str) {
        for Queued { job, before, .. } in queued {
            if self.stays(&job) {
                self.in_hand.finish(job.lease);
            } else if let Some(before) = before {
                self.report(lane, &job, *before);
            } else {
                self.return_job(&job, why);
            }
        }
    }

    /// Whether a job stays in the journal, to go on with when the agent starts again.
    fn stays(&self, job: &LeasedJob) -> bool {
        self.closed.is_cancelled() && job.offline.is_some() && !self.parts.outbox.is_connected()
    }

    fn return_job(&self, job: &LeasedJob, why: &'static str) {
        tracing::info!(
            destination = %job.destination, delivery = %job.lease.delivery, why,
            "job given back without an attempt"
        );
        self.parts.metrics.given_back();
        let outcome = not_attempted(job, self.parts.clock.now(), why);
        self.done(job, outcome);
    }

    /// The outcome is in the outbox before the lease leaves the jobs in hand: at every moment one
    /// of the two holds it.
    fn done(&self, job: &LeasedJob, outcome: Outcome) {
        self.parts.outbox.add(outcome);
        self.in_hand.finish(job.lease);
    }

    async fn run(self: &Arc<Self>, lane: &Arc<Lane>, queued: Queued) {
        let Queued { job, since, before } = queued;
        let bundle = lane.bundle.load_full();
        let now = self.parts.clock.now();
        let begins = self.in_hand.begin(job.lease, now, bundle.attempt_timeout);
        // It may have waited for days.
        let in_time = job.offline.is_none() || job.may_begin_alone(now);
        if !(begins && in_time) {
            let why = match begins {
                true => given_back::TOO_LATE,
                false => given_back::LEASE_ENDED,
            };
            return match before {
                Some(before) => self.report(lane, &job, *before),
                None => self.return_job(&job, why),
            };
        }
        let metrics = &self.parts.metrics;
        metrics.in_flight.inc();
        let mut outcome = attempt(&job, &bundle, since.elapsed(), &*self.parts.clock).await;
        outcome.unrecorded_attempts =
            before.map_or(0, |before| before.unrecorded_attempts.saturating_add(1));
        metrics.in_flight.dec();
        metrics.attempt(outcome.class, outcome.timings.total.unwrap_or_default());
        if outcome
            .handshake
            .as_ref()
            .is_some_and(|it| it.connection_reused)
        {
            metrics.connections_reused.inc();
        }
        if outcome.refused.is_some() {
            metrics.fallbacks.inc();
        }
        log(&job, &outcome);
        if !bundle.is_active() && proves_bundle(&outcome) {
            self.tell_active(&bundle);
        }
        match self.again(&job, &outcome) {
            Some(wait) => self.rest(lane, job, outcome, wait),
            None => self.report(lane, &job, outcome),
        }
    }

    /// How long until the job is attempted again without a word to the control plane; `None`: not at all.
    fn again(&self, job: &LeasedJob, outcome: &Outcome) -> Option<Duration> {
        if self.parts.outbox.is_connected() || self.closed.is_cancelled() {
            return None;
        }
        alone::again(job, outcome, self.parts.clock.now(), random::fraction())
    }

    /// Lets a job wait for its next attempt, unless there is a session before that, or the agent stops.
    fn rest(self: &Arc<Self>, lane: &Arc<Lane>, job: LeasedJob, outcome: Outcome, wait: Duration) {
        self.in_hand.rests(job.lease);
        let (shared, lane) = (Arc::clone(self), Arc::clone(lane));
        let resting = async move {
            let outbox = &shared.parts.outbox;
            tokio::select! {
                biased;
                () = outbox.connected() => shared.report(&lane, &job, outcome),
                () = shared.closed.cancelled() => shared.in_hand.finish(job.lease),
                () = tokio::time::sleep(wait) => {
                    let since = Instant::now();
                    let before = Some(Box::new(outcome));
                    shared.queue(lane, Queued { job, since, before });
                }
            }
            Ok::<_, std::convert::Infallible>(())
        };
        let tasks = &self.parts.tasks;
        tasks.spawn("attempt to be made alone", OnFailure::Log, resting);
    }

    /// Tells the control plane how an attempt ended.
    fn report(&self, lane: &Lane, job: &LeasedJob, mut outcome: Outcome) {
        let bundle = lane.bundle.load();
        if let Some(url) = &bundle.receipts_for
            && let Some(receipts) = &self.parts.receipts
            && outcome.class != FailureClass::NotAttempted
        {
            outcome.receipt = receipts.sign(job, url, &outcome);
        }
        self.done(job, outcome);
    }

    fn tell_active(&self, bundle: &Prepared) {
        let activation = Activation {
            destination: bundle.destination.clone(),
            generation: bundle.generation,
        };
        // When there is no room now, the next use says it.
        if self.parts.activations.try_send(activation).is_ok() {
            bundle.activate();
        }
    }
}

fn log(job: &LeasedJob, outcome: &Outcome) {
    if outcome.class == FailureClass::Delivered {
        tracing::debug!(
            destination = %job.destination, delivery = %job.lease.delivery,
            status = outcome.http_status, instead_of = instead_of(outcome), "delivered"
        );
    } else {
        tracing::info!(
            class = %outcome.class, destination = %job.destination,
            delivery = %job.lease.delivery, attempt = job.attempt_number,
            status = outcome.http_status, detail = %outcome.detail,
            resolution = outcome.class.resolution(), instead_of = instead_of(outcome),
            "attempt failed"
        );
    }
}

/// The version of the client certificate that another one was presented for.
fn instead_of(outcome: &Outcome) -> Option<u32> {
    outcome.refused.as_ref().map(|it| it.version)
}

/// Works on one lane until it is empty.
struct Worker {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    /// Still counted among the lane's workers.
    counted: bool,
}

impl Worker {
    async fn run(mut self) -> Result<(), std::convert::Infallible> {
        while let Some(queued) = self.lane.next() {
            self.shared.run(&self.lane, queued).await;
        }
        self.counted = false;
        Ok(())
    }
}

/// A worker that panicked leaves its place to another. Its job's lease ends by itself.
impl Drop for Worker {
    fn drop(&mut self) {
        if self.counted {
            self.lane.worker_lost();
        }
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").finish_non_exhaustive()
    }
}
