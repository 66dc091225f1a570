//! The connected agents as rotation sees them: what they hold, and what they can find out.

use async_trait::async_trait;
use countersign_shared::{
    name::{AgentName, DestinationName},
    probe::{ProbePresentation, ProbeReport},
};
use thiserror::Error;

use super::leaf::Holding;
use crate::{bundles::BundleError, model::Destination};

/// Why a probe was not answered.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// No agent that serves the destination is connected.
    #[error("no agent that serves {0} is connected: start one, or look at ListAgents")]
    NoAgent(DestinationName),
    /// The agent did not answer in time.
    #[error("the agent did not answer the probe in time: look at its log, then try again")]
    Silent,
    /// The bundle can't be put together.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// A probe's answer, and whose it is.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Which agent made it.
    pub agent: AgentName,
    /// What it found.
    pub report: ProbeReport,
}

/// The connected agents.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Whether other control planes have agents at all.
    fn are_some_elsewhere(&self) -> bool {
        false
    }

    /// Whether those that may deliver to the destination are connected to other control planes only.
    fn are_elsewhere(&self, _destination: &Destination) -> bool {
        false
    }

    /// Whether the connected agents that deliver to the destination have its newest bundle on disk.
    /// While none has had one, one that may deliver is given it.
    ///
    /// # Errors
    /// [`BundleError`].
    async fn holding(&self, destination: &Destination) -> Result<Holding, BundleError>;

    /// Has one agent that would deliver try a handshake.
    ///
    /// # Errors
    /// [`ProbeError`].
    async fn probe(
        &self,
        destination: &Destination,
        version: u32,
        presentation: ProbePresentation,
    ) -> Result<Probed, ProbeError>;

    /// Tells connected agents to stop using certificates, by serial number. The others are told when
    /// they connect.
    async fn revoke(&self, destination: &DestinationName, serials: &[String]);
}
