//! The loop: waits for a hint, plans, leases, sends. Everything it remembers is a hint; a look at the
//! store at the start and every now and then brings back what was missed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use countersign_shared::{
    class::FailureClass,
    job::OfflineWork,
    name::{AgentName, DestinationName, Id},
    random,
    time::Timestamp,
};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use tokio_util::sync::CancellationToken;

use super::{
    attach::Attach,
    due_queue::DueQueue,
    fairness::{Candidate, Worker, plan},
    pace::{Allowed, Pace},
    send::{Lease, Sender},
    sessions::Session,
    window::{Batch, Window},
};
use crate::{
    deliveries::Backlog,
    metrics::Metrics,
    model::{DestinationKey, Grant, Leased, SealedJob},
    signals::{Changes, DeadLetters, Flow, Flows, Holds},
    store::StoreError,
};

/// Most deliveries that are leased in one transaction.
const BATCH: usize = 512;
/// Most destinations that are looked at for one batch.
const LOOK_AT: usize = 2048;
/// How often the store is looked at whether or not anybody hinted.
const RESCAN: Duration = Duration::from_secs(30);
/// How long to leave the store alone after it failed.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How many leases of a destination may be out, as a multiple of its concurrency limit: enough that
/// its lane never runs dry between two batches.
const WINDOW: usize = 2;
/// How many more may be out where an agent that is cut off goes on with them.
const AHEAD: usize = 256;

/// What is needed of a destination to dispatch to it.
#[derive(Debug, Clone)]
struct Info {
    name: DestinationName,
    region: Option<Id>,
    window: usize,
    rate: Option<u32>,
    deadline: Option<Duration>,
    /// How long a lease lasts.
    lease: Duration,
    /// An agent that is cut off may go on.
    offline: bool,
    generation: u64,
}

/// Decides which delivery goes to which agent.
pub struct Dispatcher {
    attach: Attach,
    sender: Sender,
    metrics: Metrics,
    lease: Duration,
    changes: broadcast::Receiver<DestinationName>,
    holds: Arc<Holds>,
    due: DueQueue,
    info: HashMap<DestinationKey, Info>,
    windows: HashMap<DestinationKey, Window>,
    paces: HashMap<DestinationKey, Pace>,
    flows: Arc<Flows>,
    backlog: Arc<Backlog>,
    dead_letters: Arc<DeadLetters>,
}

impl Dispatcher {
    /// A dispatcher that has not begun.
    pub fn new(
        attach: Attach,
        changes: &Changes,
        holds: Arc<Holds>,
        flows: Arc<Flows>,
        (backlog, dead_letters): (Arc<Backlog>, Arc<DeadLetters>),
        metrics: Metrics,
        lease: Duration,
    ) -> Self {
        Self {
            sender: attach.sender(),
            changes: changes.subscribe(),
            holds,
            attach,
            metrics,
            lease,
            due: DueQueue::default(),
            info: HashMap::new(),
            windows: HashMap::new(),
            paces: HashMap::new(),
            flows,
            backlog,
            dead_letters,
        }
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// None for now: a store that fails is tried again.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut rescan = tokio::time::interval(RESCAN);
        while !shutdown.is_cancelled() {
            let now = self.attach.clock.now();
            if self.take_hints(now) {
                self.info.clear();
                self.rescan().await;
            }
            // Also while there is no pause in the work.
            while let Some(change) = waiting(&mut self.changes) {
                self.changed(change).await;
            }
            let worked = match self.round(now).await {
                Ok(worked) => worked,
                Err(error) => {
                    tracing::warn!(%error, "no deliveries could be leased; trying again");
                    let pause = random::full_jitter(BACK_OFF);
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            if worked {
                continue;
            }
            let next = self.due.next_after(now).map_or(RESCAN, |at| at.since(now));
            let wake = Arc::clone(&self.attach.wake);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = wake.wait() => {}
                () = tokio::time::sleep(next.min(RESCAN)) => {}
                change = self.changes.recv() => self.changed(change).await,
                _ = rescan.tick() => self.rescan().await,
            }
        }
        Ok(())
    }

    /// Answers whether the store is to be looked through.
    fn take_hints(&mut self, now: Timestamp) -> bool {
        let hints = self.attach.wake.take();
        for (destination, at) in hints.due {
            self.due.hint(destination, at);
        }
        for (destination, ended) in hints.ended {
            if let Some(window) = self.windows.get_mut(&destination) {
                window.ended(ended);
            }
            if let Some(pace) = self.paces.get_mut(&destination) {
                let before = pace.flow(now);
                pace.ended(now, ended);
                let flow = pace.flow(now);
                if flow != before {
                    self.flows.say(destination, flow);
                }
            }
        }
        hints.rescan
    }

    async fn rescan(&mut self) {
        match self.attach.store.due().await {
            Ok(all) => {
                for due in all {
                    self.due.hint(due.destination, due.at);
                }
            }
            Err(error) => tracing::warn!(%error, "the store could not be looked through"),
        }
    }

    async fn changed(&mut self, change: Result<DestinationName, RecvError>) {
        match change {
            Ok(name) => {
                let known = self.info.extract_if(|_, info| info.name == name);
                for (destination, _) in known.collect::<Vec<_>>() {
                    self.try_anew(destination);
                }
                for session in self.attach.sessions.all() {
                    if session.bundle_generation(&name).is_some() {
                        self.refresh(&session, &name).await;
                    }
                }
            }
            // Too many to follow: every generation is looked up again when it is next needed.
            Err(_) => self.info.clear(),
        }
    }

    /// What was in the way may be gone: its operator has changed something.
    fn try_anew(&mut self, destination: DestinationKey) {
        if self.paces.remove(&destination).is_some() {
            self.flows.say(destination, Flow::default());
        }
        self.due.hint(destination, self.attach.clock.now());
    }

    async fn refresh(&self, session: &Session, name: &DestinationName) {
        if let Err(error) = self.sender.refresh_bundle(session, name).await {
            tracing::warn!(agent = %session.agent, destination = %name, %error, "bundle not sent");
        }
    }

    /// One batch: whether anything was leased.
    async fn round(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let workers = self.workers();
        // Without data keys nothing can be handed over.
        if workers.is_empty() || self.sender.vault.is_open().is_err() {
            return Ok(false);
        }
        let candidates = self.candidates(now).await?;
        let grants = plan(candidates, workers, BATCH);
        if grants.is_empty() {
            return Ok(false);
        }
        let leased = self.attach.store.lease(grants.clone(), now).await?;
        self.note(&grants, &leased, now);
        self.expired(&leased.expired);
        let worked = !leased.jobs.is_empty() || !leased.expired.is_empty();
        self.send(leased.jobs, now).await;
        Ok(worked)
    }

    fn workers(&self) -> Vec<Worker> {
        let sessions = self.attach.sessions.all().into_iter();
        sessions
            .filter(|session| session.takes_jobs())
            .map(|session| Worker {
                agent: session.agent.clone(),
                region: session.region.clone(),
                credit: session.credit(),
            })
            .filter(|worker| worker.credit > 0)
            .collect()
    }

    async fn candidates(&mut self, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
        let ready: Vec<_> = self.due.ready(now).take(LOOK_AT).collect();
        let mut candidates = Vec::with_capacity(ready.len());
        for (destination, expected) in ready {
            let Some(info) = self.info(destination).await? else {
                self.due.remove(destination);
                self.windows.remove(&destination);
                self.paces.remove(&destination);
                self.flows.say(destination, Flow::default());
                continue;
            };
            let pace = self.paces.entry(destination).or_default();
            let allowed = match pace.allowed(now, info.rate) {
                Allowed::Some(count) => count,
                Allowed::From(at) => {
                    self.due.postpone(destination, at);
                    continue;
                }
            };
            let held = self.holds.held(destination);
            let window = self.windows.entry(destination).or_default();
            let wanted = expected.min(allowed);
            candidates.push(Candidate {
                destination,
                region: info.region,
                room: window.room(now, wanted, most(info.window, held), |agent| {
                    self.attach.sessions.get(agent).is_some()
                }),
                until: now.plus(info.lease),
                accepted_from: info.deadline.map(|deadline| now.minus(deadline)),
                pick: held.map(|_| usize::from(u16::from_be_bytes(random::bytes()))),
            });
        }
        Ok(candidates)
    }

    /// What is known of a destination; `None` when it is gone.
    async fn info(&mut self, destination: DestinationKey) -> Result<Option<Info>, StoreError> {
        if let Some(info) = self.info.get(&destination) {
            return Ok(Some(info.clone()));
        }
        let found = match self.attach.store.destination_by_key(destination).await {
            Err(StoreError::NotFound(_)) => return Ok(None),
            found => found?,
        };
        let limit = usize::try_from(found.config.concurrency_limit).unwrap_or(usize::MAX);
        let ahead = found.config.policy.max_offline.map_or(0, |_| AHEAD);
        let info = Info {
            name: found.name,
            region: found.config.region,
            window: limit.saturating_mul(WINDOW).saturating_add(ahead),
            rate: found.config.policy.rate_limit,
            deadline: found.config.policy.retry.deadline,
            lease: found.config.policy.lease(self.lease),
            offline: found.config.policy.max_offline.is_some(),
            generation: found.generation,
        };
        self.info.insert(destination, info.clone());
        Ok(Some(info))
    }

    fn note(&mut self, grants: &[Grant], given: &Leased, now: Timestamp) {
        let next: HashMap<_, _> = given
            .next
            .iter()
            .map(|due| (due.destination, due.at))
            .collect();
        let mut leased: HashMap<DestinationKey, usize> = HashMap::new();
        let mut batches: HashMap<(DestinationKey, &AgentName), usize> = HashMap::new();
        for job in &given.jobs {
            *leased.entry(job.destination).or_default() += 1;
            *batches.entry((job.destination, &job.agent)).or_default() += 1;
        }
        for ((destination, agent), count) in batches {
            let lasts = self
                .info
                .get(&destination)
                .map_or(self.lease, |it| it.lease);
            let batch = Batch::new(agent, count, now, lasts, self.lease);
            self.windows.entry(destination).or_default().opened(batch);
        }
        let mut granted: HashMap<DestinationKey, usize> = HashMap::new();
        for grant in grants {
            *granted.entry(grant.destination).or_default() += grant.limit;
        }
        for (destination, granted) in granted {
            let leased = leased.get(&destination).copied().unwrap_or_default();
            let next = next.get(&destination).copied();
            self.due.leased(destination, granted, leased, next);
            if let Some(pace) = self.paces.get_mut(&destination) {
                pace.took(now, leased);
            }
        }
        self.metrics.leased.inc_by(given.jobs.len() as u64);
    }

    /// Deliveries were past their deadline.
    fn expired(&self, expired: &[(DestinationKey, u32)]) {
        if expired.is_empty() {
            return;
        }
        self.backlog.left(expired.iter().copied());
        self.metrics.dead_letters.inc_by(expired.len() as u64);
        for (destination, _) in expired {
            self.dead_letters.changed(*destination);
            let name = self.info.get(destination).map(|info| info.name.to_string());
            tracing::warn!(
                destination = name,
                "delivery given up: its deadline is over"
            );
        }
    }

    async fn send(&self, jobs: Vec<SealedJob>, now: Timestamp) {
        for job in jobs {
            let Some(info) = self.info.get(&job.destination) else {
                continue;
            };
            // An agent that has gone meanwhile: the lease runs out, or ends when it is back.
            let Some(session) = self.attach.sessions.get(&job.agent) else {
                continue;
            };
            let delivery = job.lease.delivery;
            let name = &info.name;
            if let Err(error) = self
                .sender
                .ensure_bundle(&session, name, info.generation)
                .await
            {
                tracing::error!(destination = %name, %error, "bundle not sent; its jobs wait");
                continue;
            }
            let lease = Lease {
                until: now.plus(info.lease),
                lasts: info.lease,
                offline: info.offline.then(|| OfflineWork {
                    attempt_deadline: info
                        .deadline
                        .map(|deadline| delivery.accepted_at().plus(deadline)),
                }),
            };
            let sent = self.sender.send_job(&session, name, job, lease);
            if let Err(error) = sent.await {
                tracing::error!(%delivery, destination = %name, %error, "payload does not open");
            }
        }
    }
}

/// How many leases a destination can use. While it is held, one at a time shows whether the cause
/// is gone, and spares a receiver that refuses; where the agent's own policy holds it, there is nobody
/// to spare, and another agent may well connect.
fn most(window: usize, held: Option<FailureClass>) -> usize {
    match held {
        None | Some(FailureClass::EgressDenied) => window,
        Some(_) => 1,
    }
}

/// The next change that is waiting, or that there were more than could be kept; `None` when there is
/// none.
fn waiting(
    changes: &mut broadcast::Receiver<DestinationName>,
) -> Option<Result<DestinationName, RecvError>> {
    match changes.try_recv() {
        Ok(name) => Some(Ok(name)),
        Err(TryRecvError::Lagged(missed)) => Some(Err(RecvError::Lagged(missed))),
        Err(TryRecvError::Empty | TryRecvError::Closed) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_destination_gets_one_lease_at_a_time() {
        assert_eq!(most(8, None), 8);
        assert_eq!(most(8, Some(FailureClass::ClientCaNotTrusted)), 1);
        assert_eq!(most(8, Some(FailureClass::EgressDenied)), 8);
    }

    #[test]
    fn changes_that_were_missed_are_told_as_such() {
        let name = |text: &str| -> DestinationName { text.parse().unwrap() };
        let (old, new) = (
            name("accounts/a/destinations/old"),
            name("accounts/a/destinations/new"),
        );
        let (sender, mut changes) = broadcast::channel(1);
        assert_eq!(waiting(&mut changes), None);
        for changed in [&old, &new] {
            sender.send(changed.clone()).unwrap();
        }
        let missed = waiting(&mut changes);
        assert_eq!(missed, Some(Err(RecvError::Lagged(1))));
        assert_eq!(waiting(&mut changes), Some(Ok(new)));
        assert_eq!(waiting(&mut changes), None);
    }
}
