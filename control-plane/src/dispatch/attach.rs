//! An agent connects: it says what it holds, gets what differs, and leases that it no longer works
//! under go to whoever is free.

use std::{collections::HashSet, sync::Arc, time::Duration};

use countersign_shared::{
    hpke::PUBLIC_LENGTH,
    job::LeaseId,
    name::{AgentName, DestinationName},
    random,
    time::{Clock, Timestamp},
};
use thiserror::Error;

use super::{
    fairness::serves,
    send::{Sender, is_gone, remove_bundle},
    sessions::{Lanes, Session, Sessions},
};
use crate::{
    bundles::{BundleError, Bundles},
    model::{Agent, DestinationKey},
    signals::{Ended, News, Wake},
    store::{Store, StoreError},
    vault::Vault,
};

/// Why a session can't begin.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The agent was removed since it enrolled.
    #[error("{0} is not enrolled here: enroll it again with a new join token")]
    Unknown(AgentName),
    /// The agent was taken out for good.
    #[error("{0} was evicted: enroll under another name with a new join token")]
    Evicted(AgentName),
    /// It has another identity meanwhile.
    #[error("this identity of {0} was replaced by another: use that one")]
    Replaced(AgentName),
    /// An operator has suspended it, or it was found to be two.
    #[error("{0} is suspended: an operator resumes or evicts it")]
    Suspended(AgentName),
    /// The store does not answer.
    #[error(transparent)]
    Store(StoreError),
}

/// What an agent says first.
#[derive(Debug, Clone, Default)]
pub struct Greeting {
    /// Version of its software.
    pub version: String,
    /// Bundles that it holds.
    pub bundles: Vec<HeldBundle>,
    /// Leases under which it still works.
    pub leases: HashSet<LeaseId>,
    /// Its clock.
    pub time: Option<Timestamp>,
    /// What the secrets of its bundles are sealed to.
    pub sealing_key: [u8; PUBLIC_LENGTH],
}

/// A bundle that an agent holds.
#[derive(Debug, Clone)]
pub struct HeldBundle {
    /// Which destination.
    pub destination: DestinationName,
    /// Its generation.
    pub generation: u64,
    /// SHA-256 of its content.
    pub content_sha256: Vec<u8>,
}

/// Begins sessions.
#[derive(Clone)]
pub struct Attach {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Opens what is sent.
    pub vault: Arc<Vault>,
    /// Puts bundles together.
    pub bundles: Bundles,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    /// Told of leases that were taken back.
    pub wake: Arc<Wake>,
    /// How long a lease lasts.
    pub lease: Duration,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Attach {
    /// Begins a session for `agent`, which has proved its identity with the key `presented` (SHA-256 of the
    /// public key).
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(
        &self,
        agent: &AgentName,
        presented: [u8; 32],
        greeting: Greeting,
    ) -> Result<(Arc<Session>, Lanes), AttachError> {
        let now = self.clock.now();
        let known = match self.store.agent(agent).await {
            Err(StoreError::NotFound(_)) => return Err(AttachError::Unknown(agent.clone())),
            known => known.map_err(AttachError::Store)?,
        };
        let_in(&known)?;
        let keys = [Some(known.public_key_sha256), known.previous_key_sha256];
        if !keys.contains(&Some(presented)) {
            return Err(AttachError::Replaced(agent.clone()));
        }
        let version: String = greeting.version.chars().take(64).collect();
        let seen = self.store.agent_seen(agent, Some(version), None, now).await;
        seen.map_err(AttachError::Store)?;
        let id = random::uuid_v7(now).to_string();
        let (session, lanes) = Session::new(id, agent.clone(), known.region, greeting.sealing_key);
        if let Some(time) = greeting.time {
            session.measured_clock_skew(time.as_unix_micros() - now.as_unix_micros());
        }
        session.set_draining(known.draining);
        self.send_what_differs(&session, greeting.bundles).await;
        let held = greeting.leases;
        if !held.is_empty() {
            // It was away and has outcomes to tell, or tells them soon: a lease that ran out meanwhile
            // and is nobody else's yet must not go to another now.
            let leases = held.iter().copied().collect();
            let extended = self.store.extend(agent, leases, self.lease, now).await;
            session.still_leased(extended.map_err(AttachError::Store)?.len());
        }
        let released = self.store.release_all_but(agent, held, now).await;
        for destination in released.map_err(AttachError::Store)? {
            self.wake.lease_ended(destination, Ended::one());
            self.wake.due_anywhere(destination, now);
        }
        self.sessions.add(Arc::clone(&session));
        self.sessions.elsewhere.forget(agent);
        let region = session.region.clone();
        self.wake.tell(News::Attached(agent.clone()));
        self.wake.tell(News::Here(agent.clone(), region));
        // It may have been drained, resumed or evicted before it was known here.
        let known = self.store.agent(agent).await;
        let known = known.map_err(AttachError::Store)?;
        if let Err(refused) = let_in(&known) {
            self.sessions.remove(&session);
            return Err(refused);
        }
        session.set_draining(known.draining);
        self.wake.poke();
        Ok((session, lanes))
    }

    /// Drains an agent, connected or not, or gives it jobs again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_draining(
        &self,
        agent: &AgentName,
        draining: bool,
    ) -> Result<Agent, StoreError> {
        let changed = self.store.set_agent_draining(agent, draining).await?;
        if let Some(session) = self.sessions.get(agent) {
            session.set_draining(draining);
        }
        self.wake.tell(News::Agent(agent.clone()));
        self.wake.poke();
        tracing::info!(%agent, draining, "an operator drains or resumes an agent");
        Ok(changed)
    }

    /// Takes an agent out for good, connected or not. What it had in hand goes to others.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn evict(&self, agent: &AgentName) -> Result<Agent, StoreError> {
        let now = self.clock.now();
        let (evicted, released) = self.store.evict_agent(agent, now).await?;
        self.is_out(agent, released);
        tracing::warn!(%agent, "an operator evicts an agent");
        Ok(evicted)
    }

    /// Lets an agent in no more until it is resumed. What it had in hand goes to others.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn suspend(&self, agent: &AgentName) -> Result<Agent, StoreError> {
        let (suspended, released) = self.store.suspend_agent(agent, self.clock.now()).await?;
        self.is_out(agent, released);
        tracing::warn!(%agent, "an operator suspends an agent");
        Ok(suspended)
    }

    /// The store lets an agent in no more: its session ends, and its leases, whose destinations these are,
    /// go to others. To be called after it is stored, so that it can't come back in between.
    pub fn is_out(&self, agent: &AgentName, released: Vec<DestinationKey>) {
        self.end_session(agent);
        self.wake.tell(News::Agent(agent.clone()));
        let now = self.clock.now();
        for destination in released {
            self.wake.lease_ended(destination, Ended::one());
            self.wake.due_anywhere(destination, now);
        }
    }

    /// Another control plane says that an agent was drained, taken out or let in again: does here what
    /// the store says.
    pub async fn look_again(&self, agent: &AgentName) {
        let Some(session) = self.sessions.get(agent) else {
            return;
        };
        match self.store.agent(agent).await {
            Ok(known) if let_in(&known).is_err() => self.sessions.remove(&session),
            Ok(known) => session.set_draining(known.draining),
            Err(StoreError::NotFound(_)) => self.sessions.remove(&session),
            Err(error) => tracing::warn!(%agent, %error, "an agent was not looked at again"),
        }
        self.wake.poke();
    }

    /// Ends an agent's session, if it has one.
    pub fn end_session(&self, agent: &AgentName) {
        if let Some(session) = self.sessions.get(agent) {
            self.sessions.remove(&session);
        }
    }

    async fn send_what_differs(&self, session: &Session, held: Vec<HeldBundle>) {
        for bundle in held {
            if let Err(error) = self.compare(session, &bundle).await {
                // The agent keeps what it has; its next job brings the newest along.
                let destination = &bundle.destination;
                tracing::warn!(agent = %session.agent, %destination, %error, "bundle not compared");
            }
        }
    }

    async fn compare(&self, session: &Session, held: &HeldBundle) -> Result<(), BundleError> {
        // Noted as held first: removing is said only of what is.
        session.holds_bundle(held.destination.clone(), held.generation);
        let prepared = match self.bundles.current(&held.destination).await {
            Err(error) if is_gone(&error) => {
                remove_bundle(session, &held.destination);
                return Ok(());
            }
            prepared => prepared?,
        };
        if !serves(session.region.as_ref(), prepared.region.as_ref()) {
            remove_bundle(session, &held.destination);
            return Ok(());
        }
        let newest = prepared.bundle;
        if newest.content_sha256.as_ref() != held.content_sha256 {
            session.send_bundle(&held.destination, newest);
        }
        Ok(())
    }

    /// What the dispatcher sends with.
    pub(super) fn sender(&self) -> Sender {
        Sender {
            store: Arc::clone(&self.store),
            vault: Arc::clone(&self.vault),
            bundles: self.bundles.clone(),
        }
    }
}

/// An agent that was taken out is not let in.
fn let_in(agent: &Agent) -> Result<(), AttachError> {
    let name = || agent.name.clone();
    match (agent.evicted_at, agent.suspended_at) {
        (Some(_), _) => Err(AttachError::Evicted(name())),
        (None, Some(_)) => Err(AttachError::Suspended(name())),
        (None, None) => Ok(()),
    }
}
