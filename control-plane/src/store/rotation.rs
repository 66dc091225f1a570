//! How client certificates and authorities are being replaced.

use async_trait::async_trait;
use countersign_shared::{
    class::FailureClass,
    name::{AgentName, DestinationName},
    time::Timestamp,
};

use super::Result;
use crate::model::{
    Authority, AuthorityOwner, AuthorityState, ClientCertificate, Destination, DestinationKey,
    DestinationTrust, GenerationUse, Page, RevocationReason, RotationChange, RotationView, Stop,
    TrustState,
};

/// How client certificates and authorities are being replaced.
#[async_trait]
pub trait RotationStore: Send + Sync {
    /// All that a destination's next step is decided from, as one snapshot.
    async fn rotation(&self, destination: &DestinationName) -> Result<RotationView>;
    /// Destinations that are to be looked at by `now`, the longest overdue first.
    async fn rotations_due(&self, now: Timestamp, size: usize) -> Result<Vec<DestinationName>>;
    /// When the next destination is to be looked at; `None` when there is none.
    async fn next_rotation(&self) -> Result<Option<Timestamp>>;
    /// Takes one step. `Changed` when another was taken since the view. A step that changes what
    /// agents must know grows the bundle's generation.
    async fn change_rotation(&self, change: RotationChange) -> Result<Destination>;
    /// Somebody asks for a new certificate: the destination is looked at by `now`.
    async fn ask_rotation(&self, destination: &DestinationName, now: Timestamp) -> Result<()>;
    /// Destinations are to be looked at by `now`: those of `owner`, whose authority changed.
    async fn look_at_all(&self, owner: &AuthorityOwner, now: Timestamp) -> Result<()>;
    /// The receiver was seen to accept this version after it was activated. Answers whether that is
    /// news.
    async fn confirm_certificate(
        &self,
        destination: DestinationKey,
        version: u32,
        now: Timestamp,
    ) -> Result<bool>;
    /// The receiver refused this version where the one before was not refused: noted if it is the
    /// active one. Answers whether that is news.
    async fn note_refusal(
        &self,
        destination: DestinationKey,
        version: u32,
        class: FailureClass,
        now: Timestamp,
    ) -> Result<bool>;
    /// A receiver's CA has signed the open request: the certificate, pending, in its place. The
    /// request must still be open.
    async fn upload_certificate(
        &self,
        destination: &DestinationName,
        certificate: ClientCertificate,
        now: Timestamp,
    ) -> Result<Destination>;
    /// Revokes a certificate. If it was presented, nothing is until the rotation goes on. Revoking
    /// once more changes nothing. Agents that may hold it are to stop using it.
    async fn revoke_certificate(
        &self,
        destination: &DestinationName,
        version: u32,
        reason: RevocationReason,
        now: Timestamp,
    ) -> Result<ClientCertificate>;
    /// Agents that were told to stop using a certificate of this destination, and whether they have.
    async fn stops(&self, destination: &DestinationName) -> Result<Vec<Stop>>;
    /// What an agent still has to stop using.
    async fn open_stops(&self, agent: &AgentName) -> Result<Vec<Stop>>;
    /// An agent has stopped using certificates.
    async fn acknowledge_stop(
        &self,
        agent: &AgentName,
        destination: &DestinationName,
        serials: Vec<String>,
        now: Timestamp,
    ) -> Result<()>;
    /// Forgets stops that were acknowledged before `before`.
    async fn forget_stops(&self, before: Timestamp) -> Result<()>;

    /// A new generation of an authority, and new states of the ones before. `Changed` when a
    /// generation is not in the state that the caller saw.
    async fn change_authorities(
        &self,
        owner: &AuthorityOwner,
        new: Option<Authority>,
        changes: Vec<AuthorityChange>,
        now: Timestamp,
    ) -> Result<()>;
    /// Revokes a generation and every certificate that it signed. Answers with the destinations of
    /// those that were in use.
    async fn revoke_authority(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
        now: Timestamp,
    ) -> Result<Vec<DestinationName>>;
    /// How many certificates of a generation are in use.
    async fn generation_use(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
    ) -> Result<GenerationUse>;
    /// How the destinations of an authority stand towards this generation, in order of their names,
    /// after `after`.
    async fn destination_trust(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
        after: Option<&DestinationName>,
        size: usize,
    ) -> Result<Page<DestinationTrust>>;
    /// Says how a destination stands towards a generation.
    async fn set_trust(
        &self,
        destination: &DestinationName,
        generation: u32,
        state: TrustState,
        now: Timestamp,
    ) -> Result<()>;
}

/// A generation's change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityChange {
    /// Which generation.
    pub generation: u32,
    /// The state that the caller saw.
    pub from: AuthorityState,
    /// Its new state.
    pub to: AuthorityState,
}
