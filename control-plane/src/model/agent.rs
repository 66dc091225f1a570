//! Agents, their join tokens, and what they hold.

use countersign_shared::{
    address_range::AddressRange,
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
    /// The only addresses that it may be used from; none: all.
    pub source_ranges: Vec<AddressRange>,
    /// It gives an agent that is enrolled already a new identity, instead of enrolling one.
    pub recovers: bool,
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
    /// Since when it is not let in, until an operator resumes it.
    pub suspended_at: Option<Timestamp>,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) of its newest identity.
    pub public_key_sha256: [u8; 32],
    /// Of the one before: it stays in use until the agent has the newest on its disk.
    pub previous_key_sha256: Option<[u8; 32]>,
    /// When it was given the identity that its newest was renewed from: when it enrolled, or was recovered.
    pub identity_since: Timestamp,
}

/// The identity with which an agent asks for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedIdentity {
    /// SHA-256 of its public key (SubjectPublicKeyInfo).
    pub public_key_sha256: [u8; 32],
    /// When its certificate was made, to the second.
    pub issued_at: Timestamp,
}

/// What a request for a renewed identity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The next one.
    Next,
    /// The last one again: its answer was lost.
    Repeated,
    /// One from an identity that a recovery has replaced. Whoever has it can do nothing with it.
    Replaced,
    /// One more from an identity that was renewed already, with another key: there are two agents with
    /// one identity.
    Cloned,
}

impl Agent {
    /// What it means that the holder of `presented` asks for an identity with the key `requested`. An agent has
    /// its next key on disk before it asks, and asks with the same until it has an answer; so two keys that
    /// follow the same one are the keys of two agents.
    pub fn renewal(&self, presented: &PresentedIdentity, requested: &[u8; 32]) -> Renewal {
        if presented.issued_at.as_unix_seconds() < self.identity_since.as_unix_seconds() {
            return Renewal::Replaced;
        }
        let presented = &presented.public_key_sha256;
        let newest = presented == &self.public_key_sha256;
        let again = requested == &self.public_key_sha256;
        let before = Some(presented) == self.previous_key_sha256.as_ref();
        match (newest, again) {
            (true, true) => Renewal::Repeated,
            (true, false) => Renewal::Next,
            (false, true) if before => Renewal::Repeated,
            (false, _) => Renewal::Cloned,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_that_follow_one_are_the_keys_of_two_agents() {
        let at = Timestamp::from_unix_seconds(1);
        let agent = Agent {
            name: "agents/edge-1".parse().unwrap(),
            region: None,
            version: String::new(),
            created_at: at,
            last_seen_at: at,
            identity_not_after: at,
            draining: false,
            evicted_at: None,
            suspended_at: None,
            public_key_sha256: [2; 32],
            previous_key_sha256: Some([1; 32]),
            identity_since: at,
        };
        let presented = |key: u8, second| PresentedIdentity {
            public_key_sha256: [key; 32],
            issued_at: Timestamp::from_unix_seconds(second),
        };
        for (key, requested, expected) in [
            (2, 3, Renewal::Next),
            (2, 2, Renewal::Repeated),
            // The answer was lost, or the agent ended before it was on its disk.
            (1, 2, Renewal::Repeated),
            (1, 3, Renewal::Cloned),
            (1, 1, Renewal::Cloned),
            (0, 3, Renewal::Cloned),
            (0, 2, Renewal::Cloned),
        ] {
            let judged = agent.renewal(&presented(key, 1), &[requested; 32]);
            assert_eq!(judged, expected, "{key} asks for {requested}");
            // What was made before a recovery has no part in this.
            let before = agent.renewal(&presented(key, 0), &[requested; 32]);
            assert_eq!(before, Renewal::Replaced);
        }
        let fresh = Agent {
            previous_key_sha256: None,
            ..agent
        };
        assert_eq!(fresh.renewal(&presented(1, 1), &[2; 32]), Renewal::Cloned);
    }
}
