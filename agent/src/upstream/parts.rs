//! What the way up works with: handed over once, when the agent is put together.

use std::sync::Arc;

use countersign_shared::{tasks::Tasks, time::Clock};
use tokio_util::sync::CancellationToken;

use super::{bundles::BundleIntake, credit::Limits};
use crate::{
    deliver::{Clients, Lanes, Probes},
    identity::Held,
    journal::Outbox,
    metrics::Metrics,
    transport::Places,
};

/// What the way up works with.
#[derive(Debug)]
pub struct Parts {
    /// Who the agent is.
    pub identity: Held,
    /// Where control planes are.
    pub places: Arc<Places>,
    /// Where jobs go.
    pub lanes: Lanes,
    /// Where bundles go.
    pub bundles: BundleIntake,
    /// Where revoked certificates are stopped.
    pub clients: Arc<Clients>,
    /// What makes probes.
    pub probes: Probes,
    /// Where outcomes come from.
    pub outbox: Arc<Outbox>,
    /// What is taken at most.
    pub limits: Limits,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Runs what takes longer.
    pub tasks: Tasks,
    /// Finish up, then return.
    pub shutdown: CancellationToken,
}
