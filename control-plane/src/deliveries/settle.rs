//! Taking in what agents report: recorded, decided and fenced in one transaction of the store.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    class::FailureClass,
    job::LeaseId,
    name::AgentName,
    outcome::Outcome,
    random,
    time::{Clock, Timestamp},
};

use super::{Backlog, doubt::doubt, retry};
use crate::{
    audit::{Refusal, Refusals},
    metrics::Metrics,
    model::{DestinationKey, Followers, Next, Settled, Settlement, Shown},
    signals::{DeadLetters, Ended, Holds, Observations, Wake},
    store::{Store, StoreError},
};

/// Of one report, so many outcomes that changed nothing are looked at.
const LOOKED_AT: usize = 8;
/// What an agent does that reports outcomes.
const OUTCOMES: &str = "AgentSessionService/Connect outcomes";

/// Settles outcomes.
#[derive(Clone)]
pub struct Settle {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Told of retries and of leases that ended.
    pub wake: Arc<Wake>,
    /// Told what attempts show of receivers.
    pub observations: Arc<Observations>,
    /// Told what holds deliveries, and what shows that it is gone.
    pub holds: Arc<Holds>,
    /// Told of deliveries that are given up.
    pub dead_letters: Arc<DeadLetters>,
    /// Told of what is settled.
    pub backlog: Arc<Backlog>,
    /// Told of what is not believed.
    pub refusals: Arc<Refusals>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Metrics,
}

impl Settle {
    /// Settles what an agent reports. When this answers, the agent can forget the outcomes.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was settled then, and the agent keeps them.
    pub async fn settle(
        &self,
        agent: &AgentName,
        outcomes: Arc<[Outcome]>,
    ) -> Result<Vec<LeaseId>, StoreError> {
        let now = self.clock.now();
        let told: Vec<Told> = outcomes.iter().map(Told::by).collect();
        let settlement = Settlement {
            agent: agent.clone(),
            outcomes,
            now,
            decide: Arc::new(move |snapshot, outcome| {
                retry::next(snapshot, outcome, now, random::fraction())
            }),
        };
        let _settling = self.backlog.settling(told.len());
        let settled = self.store.settle(settlement).await?;
        self.backlog.left(settled.iter().filter_map(gone));
        let mut late = Vec::new();
        for (told, settled) in told.iter().zip(settled) {
            if settled == Settled::Stale {
                late.push(told.lease);
            }
            self.account_for(agent, told, settled, now);
        }
        self.look_at(agent, &late, now).await;
        Ok(told.into_iter().map(|told| told.lease).collect())
    }

    /// Puts on record what is not merely late. A look costs a query, so one report gets a few.
    async fn look_at(&self, agent: &AgentName, late: &[LeaseId], now: Timestamp) {
        for lease in late.iter().take(LOOKED_AT) {
            let Ok(Some(facts)) = self.store.lease_facts(lease.delivery).await else {
                continue;
            };
            let Some(doubt) = doubt(agent, *lease, &facts) else {
                continue;
            };
            let (delivery, reason) = (lease.delivery, doubt.as_str());
            tracing::error!(%agent, %delivery, epoch = lease.epoch, reason, "outcome not believed");
            let refusal = Refusal {
                principal: agent.to_string(),
                address: None,
                method: OUTCOMES.to_owned(),
                reason: reason.to_owned(),
            };
            self.refusals.note(refusal, now);
        }
    }

    fn account_for(&self, agent: &AgentName, told: &Told, settled: Settled, now: Timestamp) {
        let Told { lease, shown, .. } = *told;
        let Settled::Applied {
            destination,
            next,
            followers,
            ..
        } = settled
        else {
            self.metrics.stale_outcomes.inc();
            let delivery = lease.delivery;
            tracing::info!(%agent, %delivery, epoch = lease.epoch, "outcome of an old lease ignored");
            return;
        };
        let class = shown.class;
        self.metrics.attempt(class);
        if class != FailureClass::NotAttempted {
            self.observations.note(destination, shown);
            self.holds.note(destination, class);
        }
        self.wake
            .lease_ended(destination, Ended::by(class, told.retry_after));
        if followers == Followers::Due {
            self.wake.due(destination, now);
        }
        match next {
            Next::Retry(at) | Next::Again(at) | Next::Hold(at) => self.wake.due(destination, at),
            Next::Delivered => self.metrics.settled_after(age(lease, now)),
            Next::DeadLetter => {
                self.metrics.dead_letters.inc();
                self.dead_letters.changed(destination);
                let delivery = lease.delivery;
                tracing::warn!(%delivery, %class, "delivery given up: every attempt failed");
            }
        }
    }
}

/// The destination and the bytes of a delivery that is settled now.
fn gone(settled: &Settled) -> Option<(DestinationKey, u32)> {
    match *settled {
        Settled::Applied {
            destination,
            payload_size,
            next: Next::Delivered | Next::DeadLetter,
            ..
        } => Some((destination, payload_size)),
        _ => None,
    }
}

/// What is needed of an outcome when it is settled.
struct Told {
    lease: LeaseId,
    shown: Shown,
    retry_after: Option<Duration>,
}

impl Told {
    fn by(outcome: &Outcome) -> Self {
        Self {
            lease: LeaseId {
                delivery: outcome.delivery,
                epoch: outcome.epoch,
            },
            shown: Shown::by(outcome),
            retry_after: outcome.retry_after,
        }
    }
}

/// Seconds since the delivery was accepted: its id (UUID version 7) begins with that time.
fn age(lease: LeaseId, now: Timestamp) -> f64 {
    let id = lease.delivery.as_bytes();
    let millis = id[..6]
        .iter()
        .fold(0_i64, |millis, byte| millis << 8 | i64::from(*byte));
    now.since(Timestamp::from_unix_micros(millis * 1000))
        .as_secs_f64()
}
