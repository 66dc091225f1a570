//! What an agent reports goes to the store from here, apart from the loop that reads its stream: while
//! one commit is on its way to the disk, the next batch gathers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use countersign_shared::{
    job::LeaseId,
    name::{AgentName, DestinationName},
    outcome::Outcome,
    random,
    time::Clock,
};
use tokio::sync::mpsc;

use crate::{
    deliveries::Settle,
    dispatch::{Control, Session},
    model::BundleAcknowledgement,
    signals::Wake,
    store::{Store, StoreError},
};

/// Most outcomes that are settled in one transaction.
const BATCH: usize = 256;
/// How many reports may wait.
pub(super) const QUEUE: usize = 64;
/// How long to leave the store alone after it failed.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Something that an agent reported.
pub(super) enum Report {
    Outcomes(Vec<Outcome>),
    Bundle(BundleAcknowledgement),
    Extend(Vec<LeaseId>),
    Stopped(DestinationName, Vec<String>),
}

/// Records what one session reports, in order.
pub(super) struct Recorder {
    pub(super) store: Arc<dyn Store>,
    pub(super) settle: Settle,
    pub(super) wake: Arc<Wake>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) session: Arc<Session>,
    pub(super) lease: Duration,
}

impl Recorder {
    /// Runs until the session's reading end is gone and everything it read is recorded.
    pub(super) async fn run(self, mut reports: mpsc::Receiver<Report>) -> Result<(), StoreError> {
        let mut put_back = None;
        loop {
            let report = match put_back.take() {
                Some(report) => report,
                None => match reports.recv().await {
                    Some(report) => report,
                    None => return Ok(()),
                },
            };
            match report {
                Report::Outcomes(mut outcomes) => {
                    while outcomes.len() < BATCH {
                        match reports.try_recv() {
                            Ok(Report::Outcomes(more)) => outcomes.extend(more),
                            Ok(other) => {
                                put_back = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.outcomes(outcomes).await;
                }
                Report::Bundle(acknowledgement) => self.bundle(acknowledgement).await,
                Report::Extend(leases) => self.extend(leases).await,
                Report::Stopped(destination, serials) => self.stopped(destination, serials).await,
            }
        }
    }

    async fn outcomes(&self, outcomes: Vec<Outcome>) {
        let agent: &AgentName = &self.session.agent;
        let count = outcomes.len();
        let outcomes: Arc<[Outcome]> = outcomes.into();
        loop {
            match self.settle.settle(agent, Arc::clone(&outcomes)).await {
                Ok(settled) => {
                    self.session.jobs_ended(count);
                    self.session
                        .send_control(Control::OutcomesSettled(settled))
                        .await;
                    return;
                }
                // The agent keeps them and says them again in its next session.
                Err(_) if self.session.ended.is_cancelled() => return,
                Err(error) => {
                    tracing::warn!(%agent, %error, "outcomes not settled; trying again");
                    tokio::time::sleep(random::full_jitter(BACK_OFF)).await;
                }
            }
        }
    }

    async fn bundle(&self, word: BundleAcknowledgement) {
        let destination = word.destination.clone();
        if !self.session.was_sent(&destination, word.generation) {
            let agent = &self.session.agent;
            tracing::debug!(%agent, %destination, "word on a bundle that the agent was not sent");
            return;
        }
        match self.store.acknowledge_bundle(word).await {
            // Deleted meanwhile: nobody needs to know any more.
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            Err(error) => {
                let agent = &self.session.agent;
                tracing::warn!(%agent, %destination, %error, "acknowledgement not recorded");
            }
        }
    }

    async fn stopped(&self, destination: DestinationName, serials: Vec<String>) {
        let (agent, now) = (&self.session.agent, self.clock.now());
        tracing::info!(%agent, %destination, ?serials, "the agent has stopped using client certificates");
        let noted = self
            .store
            .acknowledge_stop(agent, &destination, serials, now);
        match noted.await {
            // Deleted meanwhile: nobody needs to know any more.
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            // The agent is told again when it connects, and says it again.
            Err(error) => {
                tracing::warn!(%agent, %destination, %error, "the stop was not recorded");
            }
        }
    }

    async fn extend(&self, leases: Vec<LeaseId>) {
        let (agent, now) = (&self.session.agent, self.clock.now());
        let extended = self.store.extend(agent, leases.clone(), self.lease, now);
        match extended.await {
            Ok(extended) => {
                let mut by_length: HashMap<Duration, Vec<LeaseId>> = HashMap::new();
                let mut lost: HashSet<LeaseId> = leases.into_iter().collect();
                for (lease, lasts) in extended {
                    lost.remove(&lease);
                    by_length.entry(lasts).or_default().push(lease);
                }
                if !lost.is_empty() {
                    let lost = lost.into_iter().collect();
                    let answer = Control::LeasesExtended(Vec::new(), lost, self.lease);
                    self.session.send_control(answer).await;
                }
                for (lasts, extended) in by_length {
                    let answer = Control::LeasesExtended(extended, Vec::new(), lasts);
                    self.session.send_control(answer).await;
                }
                self.wake.poke();
            }
            Err(error) => {
                let agent = &self.session.agent;
                tracing::warn!(%agent, %error, "leases not extended");
            }
        }
    }
}
