//! Sessions: the agents that are connected now, their credit, and the two lanes to each. Control goes
//! ahead of work, so that a burst of jobs delays no acknowledgement.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use countersign_proto::v1;
use countersign_shared::{
    hpke::PUBLIC_LENGTH,
    job::{LeaseId, LeasedJob},
    name::{AgentName, DestinationName, Id},
    probe::Probe,
    wire,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::elsewhere::Elsewhere;
use crate::metrics::Metrics;

/// Most jobs that an agent's credit can come to.
const MAX_CREDIT_JOBS: i64 = 16 * 1024;
/// Most payload bytes that an agent's credit can come to.
const MAX_CREDIT_BYTES: i64 = 1 << 30;
/// Room of the work lane: every job that credit allows, and bundles ahead of them.
const WORK_LANE: usize = 2 * MAX_CREDIT_JOBS as usize;
/// Room of the control lane.
const CONTROL_LANE: usize = 1024;

/// What goes in the work lane: in order, bundles ahead of the jobs that need them.
#[derive(Debug)]
pub enum Work {
    /// A bundle in its wire form.
    Bundle(Box<v1::Bundle>),
    /// A destination that the agent no longer serves.
    RemoveBundle(DestinationName),
    /// A job, and how long its lease lasts.
    Job(LeasedJob, Duration),
    /// A handshake to try; it comes after the bundle that it needs.
    Probe(Probe),
    /// No more jobs come for now.
    NoMoreJobs,
}

/// What goes in the control lane, ahead of all work.
#[derive(Debug)]
pub enum Control {
    /// These outcomes are durable.
    OutcomesSettled(Vec<LeaseId>),
    /// These leases were extended for that long; those were lost.
    LeasesExtended(Vec<LeaseId>, Vec<LeaseId>, Duration),
    /// Certificates of a destination, by serial number, that must not be used any more.
    Revoke(DestinationName, Vec<String>),
    /// A sign of life.
    Heartbeat,
    /// The control plane goes away within that time.
    Drain(Duration),
}

/// The receiving ends of a session's lanes.
#[derive(Debug)]
pub struct Lanes {
    /// Goes first.
    pub control: mpsc::Receiver<Control>,
    /// Goes when there is no control.
    pub work: mpsc::Receiver<Work>,
}

/// One connected agent.
#[derive(Debug)]
pub struct Session {
    /// Identifies the session in logs on both sides.
    pub id: String,
    /// The agent.
    pub agent: AgentName,
    /// Whose destinations it serves, besides those without a region.
    pub region: Option<Id>,
    /// Cancelled when a newer session of the agent took over, or this one broke.
    pub ended: CancellationToken,
    credit_jobs: AtomicI64,
    credit_bytes: AtomicI64,
    leased: AtomicUsize,
    /// An operator drains the agent.
    draining: AtomicBool,
    /// The agent said that it is stopping.
    stopping: AtomicBool,
    /// The agent was told that no more jobs come.
    told: AtomicBool,
    clock_skew_micros: Mutex<Option<i64>>,
    bundles: Mutex<HashMap<DestinationName, u64>>,
    /// What the secrets of bundles are sealed to.
    sealing_key: [u8; PUBLIC_LENGTH],
    control: mpsc::Sender<Control>,
    work: mpsc::Sender<Work>,
}

impl Session {
    /// A session that is not yet known to [`Sessions`].
    pub(super) fn new(
        id: String,
        agent: AgentName,
        region: Option<Id>,
        sealing_key: [u8; PUBLIC_LENGTH],
    ) -> (Arc<Self>, Lanes) {
        let (control, control_lane) = mpsc::channel(CONTROL_LANE);
        let (work, work_lane) = mpsc::channel(WORK_LANE);
        let session = Self {
            id,
            agent,
            region,
            ended: CancellationToken::new(),
            credit_jobs: AtomicI64::new(0),
            credit_bytes: AtomicI64::new(0),
            leased: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            told: AtomicBool::new(false),
            clock_skew_micros: Mutex::default(),
            bundles: Mutex::default(),
            sealing_key,
            control,
            work,
        };
        let lanes = Lanes {
            control: control_lane,
            work: work_lane,
        };
        (Arc::new(session), lanes)
    }

    /// The agent can take more.
    pub fn add_credit(&self, jobs: i64, bytes: i64) {
        let add = |credit: &AtomicI64, more: i64, most: i64| {
            // Never fails: the closure always gives a value.
            let _ = credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| {
                Some(credit.saturating_add(more.max(0)).min(most))
            });
        };
        add(&self.credit_jobs, jobs, MAX_CREDIT_JOBS);
        add(&self.credit_bytes, bytes, MAX_CREDIT_BYTES);
    }

    /// How many jobs it can take now.
    pub(super) fn credit(&self) -> usize {
        if self.credit_bytes.load(Ordering::Relaxed) <= 0 {
            return 0;
        }
        usize::try_from(self.credit_jobs.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Uses credit for one job.
    pub(super) fn use_credit(&self, bytes: usize) {
        self.leased.fetch_add(1, Ordering::Relaxed);
        self.credit_jobs.fetch_sub(1, Ordering::Relaxed);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.credit_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The agent said how `count` jobs ended.
    pub fn jobs_ended(&self, count: usize) {
        let _ = self
            .leased
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |leased| {
                Some(leased.saturating_sub(count))
            });
    }

    /// Jobs that were sent and have not ended.
    pub fn leased(&self) -> usize {
        self.leased.load(Ordering::Relaxed)
    }

    /// The agent connected with `count` jobs of an earlier session.
    pub(super) fn still_leased(&self, count: usize) {
        self.leased.fetch_add(count, Ordering::Relaxed);
    }

    /// An operator drains the agent, or does so no longer.
    pub(super) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// The agent is stopping and wants no more jobs.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
    }

    /// The agent is to get no jobs: it is stopping, or an operator drains it.
    pub fn is_leaving(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.stopping.load(Ordering::Relaxed)
    }

    /// Whether the agent can be given jobs. If it can't, it is told once that none come any more: only
    /// whoever gives the jobs can say that, between two batches.
    pub(super) fn takes_jobs(&self) -> bool {
        let takes = !self.is_leaving();
        if takes {
            self.told.store(false, Ordering::Relaxed);
        } else if !self.told.swap(true, Ordering::Relaxed) && !self.send_work(Work::NoMoreJobs) {
            // No room: again with the next batch.
            self.told.store(false, Ordering::Relaxed);
        }
        takes
    }

    /// The agent's clock minus ours, in microseconds, as last measured.
    pub fn clock_skew_micros(&self) -> Option<i64> {
        *lock(&self.clock_skew_micros)
    }

    /// The agent's clock was measured.
    pub fn measured_clock_skew(&self, micros: i64) {
        *lock(&self.clock_skew_micros) = Some(micros);
    }

    /// The generation of a destination's bundle that was sent, or that the agent said it holds.
    pub fn bundle_generation(&self, destination: &DestinationName) -> Option<u64> {
        lock(&self.bundles).get(destination).copied()
    }

    /// The agent holds this generation, or will when it has read what was sent.
    pub(super) fn holds_bundle(&self, destination: DestinationName, generation: u64) {
        lock(&self.bundles).insert(destination, generation);
    }

    /// Seals a bundle to the agent and puts it into its lane, as [`Session::send_work`] does. It is noted before, so that the
    /// agent's word on it never comes too early.
    pub(super) fn send_bundle(&self, destination: &DestinationName, bundle: v1::Bundle) -> bool {
        let generation = bundle.generation.unsigned_abs();
        let Ok(bundle) = wire::seal_bundle(bundle, &self.sealing_key) else {
            // The agent vouched for what is no key: it gets nothing, and only it is the worse for it.
            tracing::warn!(agent = %self.agent, %destination, "the agent's sealing key is of no use");
            return false;
        };
        let before = lock(&self.bundles).insert(destination.clone(), generation);
        let sent = self.send_work(Work::Bundle(Box::new(bundle)));
        if !sent {
            let mut bundles = lock(&self.bundles);
            match before {
                Some(before) => bundles.insert(destination.clone(), before),
                None => bundles.remove(destination),
            };
        }
        sent
    }

    /// Whether the agent's word on a bundle counts: it was sent this generation, or a later one, and
    /// was not told to forget it since.
    pub fn was_sent(&self, destination: &DestinationName, generation: u64) -> bool {
        self.bundle_generation(destination)
            .is_some_and(|sent| generation <= sent)
    }

    /// The agent will forget the bundle. Whether it held one.
    pub(super) fn forgets_bundle(&self, destination: &DestinationName) -> bool {
        lock(&self.bundles).remove(destination).is_some()
    }

    /// Puts work into its lane. False when the session has ended or the lane is full, which credit
    /// does not allow: the leases then run out by themselves.
    pub(super) fn send_work(&self, work: Work) -> bool {
        self.work.try_send(work).is_ok()
    }

    /// Puts control into its lane; waits while that is full.
    pub async fn send_control(&self, control: Control) {
        // A session that has ended needs no control.
        let _ = self.control.send(control).await;
    }
}

/// The agents that are connected now: one session each, the newest.
#[derive(Debug, Default)]
pub struct Sessions {
    by_agent: Mutex<HashMap<AgentName, Arc<Session>>>,
    /// Those of other control planes.
    pub elsewhere: Elsewhere,
    metrics: Metrics,
}

impl Sessions {
    /// None yet.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            by_agent: Mutex::default(),
            elsewhere: Elsewhere::default(),
            metrics,
        }
    }

    /// Adds a session; an older one of the same agent ends.
    pub(super) fn add(&self, session: Arc<Session>) {
        let mut sessions = lock(&self.by_agent);
        if let Some(older) = sessions.insert(session.agent.clone(), session) {
            older.ended.cancel();
        }
        self.count(&sessions);
    }

    /// Removes a session that has ended, unless a newer one took its place.
    pub fn remove(&self, session: &Session) {
        session.ended.cancel();
        let mut sessions = lock(&self.by_agent);
        if sessions
            .get(&session.agent)
            .is_some_and(|current| current.id == session.id)
        {
            sessions.remove(&session.agent);
        }
        self.count(&sessions);
    }

    fn count(&self, sessions: &HashMap<AgentName, Arc<Session>>) {
        let connected = i64::try_from(sessions.len()).unwrap_or(i64::MAX);
        self.metrics.connected_agents.set(connected);
    }

    /// An agent's session.
    pub fn get(&self, agent: &AgentName) -> Option<Arc<Session>> {
        lock(&self.by_agent).get(agent).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.by_agent).values().cloned().collect()
    }
}

/// Maps whose entries are each complete; a panic elsewhere leaves nothing half done in them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> [u8; PUBLIC_LENGTH] {
        *countersign_shared::hpke::RecipientKey::generate()
            .unwrap()
            .public()
    }

    fn session(id: &str) -> Arc<Session> {
        Session::new(
            id.to_owned(),
            Id::chosen("edge").unwrap().into(),
            None,
            key(),
        )
        .0
    }

    #[test]
    fn a_newer_session_ends_the_older_and_outlives_its_removal() {
        let sessions = Sessions::default();
        let (old, new) = (session("1"), session("2"));
        sessions.add(Arc::clone(&old));
        sessions.add(Arc::clone(&new));
        assert!(old.ended.is_cancelled());
        sessions.remove(&old);
        assert_eq!(
            sessions.get(&new.agent).map(|found| found.id.clone()),
            Some("2".to_owned())
        );
        sessions.remove(&new);
        assert!(sessions.get(&new.agent).is_none());
    }

    #[test]
    fn an_agents_word_counts_for_what_it_was_sent_only() {
        let (session, lanes) =
            Session::new("1".into(), Id::chosen("edge").unwrap().into(), None, key());
        let name: DestinationName = "accounts/acme/destinations/orders".parse().unwrap();
        let bundle = |generation| v1::Bundle {
            generation,
            ..Default::default()
        };
        assert!(!session.was_sent(&name, 1), "nothing yet");
        assert!(session.send_bundle(&name, bundle(2)));
        assert!(session.was_sent(&name, 1) && session.was_sent(&name, 2));
        assert!(!session.was_sent(&name, 3), "ahead of what there is");
        session.forgets_bundle(&name);
        assert!(!session.was_sent(&name, 2), "it no longer serves it");
        assert!(session.send_bundle(&name, bundle(4)));
        drop(lanes);
        assert!(!session.send_bundle(&name, bundle(5)));
        assert!(session.was_sent(&name, 4) && !session.was_sent(&name, 5));
    }

    #[test]
    fn an_agent_that_leaves_is_told_once_behind_its_last_job() {
        let (session, mut lanes) =
            Session::new("1".into(), Id::chosen("edge").unwrap().into(), None, key());
        assert!(session.takes_jobs());
        session.set_draining(true);
        assert!(
            lanes.work.try_recv().is_err(),
            "only who gives jobs says it"
        );
        assert!(!session.takes_jobs() && !session.takes_jobs());
        assert!(matches!(lanes.work.try_recv(), Ok(Work::NoMoreJobs)));
        assert!(lanes.work.try_recv().is_err());
        session.set_draining(false);
        assert!(session.takes_jobs());
        // What it says itself is answered, drained or not.
        session.set_draining(true);
        assert!(!session.takes_jobs());
        session.set_stopping();
        assert!(!session.takes_jobs());
        assert!(matches!(lanes.work.try_recv(), Ok(Work::NoMoreJobs)));
        assert!(matches!(lanes.work.try_recv(), Ok(Work::NoMoreJobs)));
    }

    #[test]
    fn credit_is_bounded_and_bytes_count() {
        let session = session("1");
        assert_eq!(session.credit(), 0);
        session.add_credit(2, 10);
        session.use_credit(100);
        assert_eq!(session.credit(), 0, "no bytes left");
        session.add_credit(i64::MAX, i64::MAX);
        assert_eq!(session.credit() as i64, MAX_CREDIT_JOBS);
        session.add_credit(-5, -5);
        assert_eq!(session.credit() as i64, MAX_CREDIT_JOBS);
    }
}
