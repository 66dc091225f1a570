//! Agents, their join tokens, and what they hold.

use countersign_shared::{
    name::{AgentName, DestinationName, Id, JoinTokenName},
    time::Timestamp,
};

/// The one-time secret that enrolls an agent; only its hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Resource name.
    pub name: JoinTokenName,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// The region that the agent will serve.
    pub region: Option<Id>,
    /// The only agent name that may use it.
    pub agent_id: Option<Id>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops being usable.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Who used it.
    pub used: Option<JoinTokenUse>,
}

/// Who used a join token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenUse {
    /// Which agent.
    pub agent: AgentName,
    /// SHA-256 of its public key (SubjectPublicKeyInfo): only this key may repeat the call.
    pub public_key_sha256: [u8; 32],
}

/// An enrollment to be written: binds the token to the key and makes the agent, in one transaction.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// Which token.
    pub token: JoinTokenName,
    /// Who uses it.
    pub used: JoinTokenUse,
    /// The region that the agent will serve.
    pub region: Option<Id>,
    /// End of validity of the identity that it gets.
    pub identity_not_after: Timestamp,
    /// When.
    pub now: Timestamp,
}

/// A delivery process that has enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Resource name.
    pub name: AgentName,
    /// Whose destinations it serves, besides those without a region.
    pub region: Option<Id>,
    /// Version of its software, as it last said.
    pub version: String,
    /// When it enrolled.
    pub created_at: Timestamp,
    /// When it was last heard of.
    pub last_seen_at: Timestamp,
    /// End of validity of its newest identity.
    pub identity_not_after: Timestamp,
    /// An operator drains it: it gets no jobs.
    pub draining: bool,
    /// Since when it is taken out for good.
    pub evicted_at: Option<Timestamp>,
}

/// What became of a bundle at an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BundleStatus {
    /// Received and valid.
    Received,
    /// On its disk.
    Durable,
    /// Used in a real handshake.
    Active,
    /// Not usable.
    Refused,
}

/// An agent's word on one bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleAcknowledgement {
    /// Which agent.
    pub agent: AgentName,
    /// Which destination.
    pub destination: DestinationName,
    /// Which generation.
    pub generation: u64,
    /// What became of it.
    pub status: BundleStatus,
    /// Why it was refused.
    pub reason: String,
    /// When it said so.
    pub at: Timestamp,
}
