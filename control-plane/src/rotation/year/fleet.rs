//! The agents of the world as rotation sees them.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use countersign_shared::{
    class::FailureClass,
    name::{AgentName, DestinationName, Id},
    outcome::AttemptTimings,
    probe::{ProbeId, ProbePresentation, ProbeReport},
    time::Clock,
};

use super::world::{Held, World};
use crate::{
    bundles::BundleError,
    model::{Destination, Evidence, Shown},
    rotation::{Agents, Holding, ProbeError, Probed},
    store::{Store, StoreError},
};

/// The agents, connected to one run of the control plane.
#[derive(Clone)]
pub(super) struct Fleet {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
}

/// How a delivery went, and what was presented.
pub(super) struct Delivered {
    pub(super) shown: Shown,
    /// The agent had the newest bundle.
    pub(super) fresh: bool,
}

impl Fleet {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Gives an agent the newest bundle, if there is one and it takes it. Whether it has it.
    async fn refresh(&self, agent: usize, name: &DestinationName) -> Result<bool, BundleError> {
        let source = match self.store.bundle_source(name).await {
            // Nothing is active: the agent keeps what it has.
            Err(StoreError::NotFound(_)) => return Ok(false),
            source => source?,
        };
        let now = self.clock.now();
        let mut world = self.world();
        let seen = |it| world.seen(name, it);
        let held = Held {
            generation: source.destination.generation,
            active: seen(&source.active),
            fallback: source.fallback.as_ref().map(seen),
            candidate: source.candidate.as_ref().map(seen),
        };
        for standby in [Some(&held.active), held.fallback.as_ref()]
            .into_iter()
            .flatten()
        {
            let (version, serial) = (standby.version, &standby.serial);
            assert!(
                standby.not_after > now,
                "{name} {version} is over and in the bundle"
            );
            assert!(
                !world.stopped.contains(serial),
                "{name} {version} is revoked and in the bundle"
            );
        }
        let agent = &mut world.agents[agent];
        let known = agent.bundles.get(name).map(|it| it.generation);
        if known != Some(held.generation) && agent.is_well(now) {
            agent.bundles.insert(name.clone(), held.clone());
            return Ok(true);
        }
        Ok(known == Some(held.generation))
    }

    /// A delivery at random; `None` when nobody can deliver.
    pub(super) async fn deliver(&self, name: &DestinationName) -> Option<Delivered> {
        let now = self.clock.now();
        let agent = {
            let mut world = self.world();
            let online = world.online(world.receiver(name).region, now);
            let chosen = world.dice.below(online.len());
            *online.get(chosen)?
        };
        let fresh = self.refresh(agent, name).await.unwrap();
        let world = self.world();
        let held = world.agents[agent].bundles.get(name)?;
        let receiver = world.receiver(name);
        // As the agent's `deliver::choice` has it.
        let usable = |it: &&_| {
            let it: &super::world::Seen = it;
            it.not_after > now && !world.stopped.contains(&it.serial)
        };
        let judge = |it: &super::world::Seen| world.judge(receiver, it, false, false, now);
        let active = Some(&held.active).filter(usable);
        let of_active = active.map_or(FailureClass::ClientCertificateExpired, judge);
        let mut shown = Shown {
            class: of_active,
            certificate_requested: None,
            server_not_after: None,
            presented: active.map(|it| it.version),
            kept_back: active.is_none(),
            refused: None,
        };
        let goes_on = of_active.refuses_client_certificate()
            || of_active == FailureClass::ClientIdentityForbidden;
        if goes_on && let Some(fallback) = held.fallback.as_ref().filter(usable) {
            let class = judge(fallback);
            if class.accepts_client_certificate() && class != FailureClass::ClientIdentityForbidden
            {
                shown.class = class;
                shown.kept_back = false;
                shown.presented = Some(fallback.version);
                shown.refused = Some((held.active.version, of_active));
            }
        }
        shown.presented = shown
            .presented
            .filter(|_| shown.class.accepts_client_certificate());
        Some(Delivered { shown, fresh })
    }
}

/// What one attempt shows.
pub(super) fn evidence(destination: &Destination, shown: Shown) -> Evidence {
    Evidence::after(destination.key, shown, None)
}

#[async_trait]
impl Agents for Fleet {
    async fn holding(&self, destination: &Destination) -> Result<Holding, BundleError> {
        let now = self.clock.now();
        let online = {
            let world = self.world();
            world.online(world.receiver(&destination.name).region, now)
        };
        if online.is_empty() {
            return Ok(Holding::NoAgent);
        }
        let mut all = true;
        for agent in online {
            // Now and then it takes a moment.
            let late = self.world().dice.percent(20);
            all &= !late && self.refresh(agent, &destination.name).await?;
        }
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
        let (now, name) = (self.clock.now(), &destination.name);
        let agent = {
            let mut world = self.world();
            world.probes += 1;
            let online = world.online(world.receiver(name).region, now);
            let chosen = world.dice.below(online.len());
            let agent = online.get(chosen).copied();
            agent.ok_or_else(|| ProbeError::NoAgent(name.clone()))?
        };
        self.refresh(agent, name).await?;
        let world = self.world();
        let held = world.agents[agent].bundles.get(name);
        let all = held.into_iter().flat_map(|held| {
            let standby = [held.candidate.as_ref(), held.fallback.as_ref()];
            standby.into_iter().flatten().chain([&held.active])
        });
        let mut found = all.filter(|it| it.version == version);
        let alone = presentation == ProbePresentation::LeafOnly;
        let class = found.next().map_or(FailureClass::NotAttempted, |it| {
            world.judge(world.receiver(name), it, true, alone, now)
        });
        Ok(Probed {
            agent: AgentName::from(Id::chosen("agent").unwrap()),
            report: ProbeReport {
                id: ProbeId([0; 16]),
                class,
                accepted: class.accepts_client_certificate(),
                http_status: None,
                handshake: None,
                timings: AttemptTimings::default(),
                started_at: now,
                detail: "".into(),
                server_chain: Vec::new(),
            },
        })
    }

    async fn revoke(&self, _destination: &DestinationName, serials: &[String]) {
        self.world().stopped.extend(serials.iter().cloned());
    }
}
