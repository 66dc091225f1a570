//! All lanes: jobs come in, attempts run, outcomes go to the outbox.
//!
//! A lane has up to as many workers as its destination's concurrency limit allows. A worker is
//! started by a job, takes one job after the other, and ends when the queue is empty: a busy lane
//! spawns nothing, an idle one costs nothing. How many jobs there can be is bounded by the credit
//! that the agent grants.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use countersign_shared::{
    class::FailureClass,
    job::LeasedJob,
    name::DestinationName,
    outcome::Outcome,
    tasks::{OnFailure, Tasks},
    time::Clock,
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    attempt::{attempt, given_back, not_attempted, proves_bundle},
    in_hand::InHand,
    lane::{Lane, Pushed, Queued},
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
    closed: AtomicBool,
}

impl Lanes {
    /// No lanes yet.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            lanes: RwLock::default(),
            in_hand: InHand::default(),
            closed: AtomicBool::new(false),
        }))
    }

    /// The jobs in hand.
    pub fn in_hand(&self) -> &InHand {
        &self.0.in_hand
    }

    /// Uses `bundle` for its destination from the next attempt on.
    pub fn install(&self, bundle: Arc<Prepared>) {
        let mut lanes = self.0.lanes.write().unwrap_or_else(PoisonError::into_inner);
        match lanes.get(&bundle.destination) {
            Some(lane) => lane.bundle.store(bundle),
            None => {
                lanes.insert(bundle.destination.clone(), Arc::new(Lane::new(bundle)));
            }
        }
    }

    /// Forgets a destination; its jobs that have not begun are given back.
    pub fn remove(&self, destination: &DestinationName) {
        let mut lanes = self.0.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let removed = lanes.remove(destination);
        drop(lanes);
        if let Some(lane) = removed {
            self.0.give_back(lane.close(), given_back::NO_BUNDLE);
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
        if shared.closed.load(Ordering::Acquire) {
            return shared.return_job(&job, given_back::STOPPING);
        }
        let Some(lane) = shared.lane(&job.destination) else {
            return shared.return_job(&job, given_back::NO_BUNDLE);
        };
        match lane.push(job, Instant::now()) {
            Pushed::Queued => {}
            Pushed::StartWorker => {
                let worker = Worker {
                    shared: Arc::clone(shared),
                    lane,
                    counted: true,
                };
                let tasks = &shared.parts.tasks;
                tasks.spawn("delivery worker", OnFailure::Log, worker.run());
            }
            Pushed::Closed(job) => shared.return_job(&job, given_back::STOPPING),
        }
    }

    /// Begins no more attempts and gives back what is queued; attempts in flight go on.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        for lane in self.0.all() {
            self.0.give_back(lane.close(), given_back::STOPPING);
        }
    }

    /// Gives back what is queued; attempts in flight go on, and so do jobs that come later.
    pub fn give_back(&self) {
        for lane in self.0.all() {
            self.0.give_back(lane.empty(), given_back::DRAINED);
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

    fn give_back(&self, queued: VecDeque<Queued>, why: &'static str) {
        for queued in queued {
            self.return_job(&queued.job, why);
        }
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

    async fn run(&self, lane: &Lane, queued: Queued) {
        let Queued { job, since } = queued;
        let bundle = lane.bundle.load_full();
        let now = self.parts.clock.now();
        if !self.in_hand.begin(job.lease, now, bundle.attempt_timeout) {
            return self.return_job(&job, given_back::LEASE_ENDED);
        }
        let metrics = &self.parts.metrics;
        metrics.in_flight.inc();
        let mut outcome = attempt(&job, &bundle, since.elapsed(), &*self.parts.clock).await;
        if let Some(url) = &bundle.receipts_for
            && let Some(receipts) = &self.parts.receipts
            && outcome.class != FailureClass::NotAttempted
        {
            outcome.receipt = receipts.sign(&job, url, &outcome);
        }
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
        self.done(&job, outcome);
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
