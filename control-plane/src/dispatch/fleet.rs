//! The connected agents as rotation sees them: what they hold, and what they can find out.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use countersign_shared::{
    name::{AgentName, DestinationName},
    probe::{Probe, ProbeId, ProbePresentation},
    random,
};

use super::{
    attach::Attach,
    fairness::serves,
    probes::Probes,
    send::Sender,
    sessions::{Control, Session, Work},
};
use crate::{
    bundles::BundleError,
    model::{Destination, Stop},
    rotation::{Agents, Holding, ProbeError, Probed},
    signals::News,
    store::StoreError,
};

/// What an agent may need beyond the attempt itself: its way to us, and other probes ahead.
const MARGIN: Duration = Duration::from_secs(15);

/// The connected agents.
#[derive(Clone)]
pub struct Fleet {
    attach: Attach,
    probes: Arc<Probes>,
    sender: Sender,
}

impl Fleet {
    /// Those of `attach`, whose answers come to `probes`.
    pub fn new(attach: Attach, probes: Arc<Probes>) -> Self {
        Self {
            sender: attach.sender(),
            attach,
            probes,
        }
    }

    /// Tells an agent that has just connected what it still has to stop using.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remind(&self, session: &Session) -> Result<(), StoreError> {
        for stop in self.attach.store.open_stops(&session.agent).await? {
            let told = Control::Revoke(stop.destination, vec![stop.serial]);
            session.send_control(told).await;
        }
        Ok(())
    }

    /// Tells the connected agents, but for those that were told, what they still have to stop using of a
    /// destination's. The store knows who has
    /// ever had a bundle of it; that a session has one now says less: without an active certificate, as right
    /// after a revocation, the bundle is taken back, and its connections live on.
    pub async fn remind_all(&self, destination: &DestinationName, told: &HashSet<AgentName>) {
        let stops = match self.attach.store.stops(destination).await {
            Ok(stops) => stops,
            Err(error) => {
                return tracing::error!(%destination, %error, "agents are told only when they reconnect what to stop using");
            }
        };
        let open = |stop: &Stop| stop.acknowledged_at.is_none() && !told.contains(&stop.agent);
        for stop in stops.into_iter().filter(open) {
            if let Some(session) = self.attach.sessions.get(&stop.agent) {
                let told = Control::Revoke(stop.destination, vec![stop.serial]);
                session.send_control(told).await;
            }
        }
    }

    /// The connected agents that may deliver there: those that hold a bundle of it, and the others.
    fn serving(&self, destination: &Destination) -> (Vec<Arc<Session>>, Vec<Arc<Session>>) {
        let region = destination.config.region.as_ref();
        let all = self.attach.sessions.all().into_iter();
        all.filter(|session| serves(session.region.as_ref(), region))
            .partition(|session| session.bundle_generation(&destination.name).is_some())
    }
}

#[async_trait]
impl Agents for Fleet {
    fn are_some_elsewhere(&self) -> bool {
        !self.attach.sessions.elsewhere.is_empty()
    }

    fn are_elsewhere(&self, destination: &Destination) -> bool {
        let (holding, others) = self.serving(destination);
        let region = destination.config.region.as_ref();
        let elsewhere = &self.attach.sessions.elsewhere;
        holding.is_empty() && others.is_empty() && elsewhere.serves(region, self.attach.clock.now())
    }

    async fn holding(&self, destination: &Destination) -> Result<Holding, BundleError> {
        let name = &destination.name;
        let (holding, others) = self.serving(destination);
        if holding.is_empty() {
            let Some(first) = others.first() else {
                return Ok(Holding::NoAgent);
            };
            self.sender.refresh_bundle(first, name).await?;
            return Ok(Holding::Waiting);
        }
        for session in &holding {
            self.sender
                .ensure_bundle(session, name, destination.generation)
                .await?;
        }
        let store = &self.attach.store;
        let durable = store.durable_agents(name, destination.generation).await?;
        let all = holding.iter().all(|it| durable.contains(&it.agent));
        Ok(match all {
            true => Holding::Durable,
            false => Holding::Waiting,
        })
    }

    async fn probe(
        &self,
        destination: &Destination,
        version: u32,
        presentation: ProbePresentation,
    ) -> Result<Probed, ProbeError> {
        let name = &destination.name;
        let (holding, others) = self.serving(destination);
        let session = holding.into_iter().chain(others).next();
        let session = session.ok_or_else(|| ProbeError::NoAgent(name.clone()))?;
        self.sender
            .ensure_bundle(&session, name, destination.generation)
            .await?;
        let id = ProbeId(random::bytes());
        let mut awaited = self.probes.expect(id, &session.agent);
        let probe = Probe {
            id,
            destination: name.clone(),
            version,
            presentation,
        };
        if !session.send_work(Work::Probe(probe)) {
            return Err(ProbeError::Silent);
        }
        let within = destination.config.attempt_timeout + MARGIN;
        let answered = tokio::time::timeout(within, async {
            tokio::select! {
                report = awaited.answer() => report,
                () = session.ended.cancelled() => None,
            }
        });
        match answered.await {
            Ok(Some(report)) => Ok(Probed {
                agent: session.agent.clone(),
                report,
            }),
            _ => Err(ProbeError::Silent),
        }
    }

    async fn revoke(&self, destination: &DestinationName, serials: &[String]) {
        self.attach.wake.tell(News::Revoked(destination.clone()));
        let mut told = HashSet::new();
        for session in self.attach.sessions.all() {
            if session.bundle_generation(destination).is_some() {
                let stop = Control::Revoke(destination.clone(), serials.to_vec());
                session.send_control(stop).await;
                told.insert(session.agent.clone());
            }
        }
        self.remind_all(destination, &told).await;
    }
}
