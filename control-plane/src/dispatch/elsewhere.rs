//! Agents that are connected to other control planes of the same store, as far as these say so now and
//! then: hints, which fade.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use countersign_shared::{
    name::{AgentName, Id},
    time::Timestamp,
};

use super::fairness::serves;

/// How often a control plane says who is connected to it.
pub const SAY_EVERY: Duration = Duration::from_secs(5);
/// How long that counts.
const COUNTS: Duration = Duration::from_secs(20);

/// An agent's region, and when it was last heard of.
type Seen = (Option<Id>, Timestamp);

/// Agents that are connected to other control planes.
#[derive(Debug, Default)]
pub struct Elsewhere(Mutex<HashMap<AgentName, Seen>>);

impl Elsewhere {
    /// Another control plane has this agent.
    pub fn heard(&self, agent: AgentName, region: Option<Id>, now: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, at)| counts(*at, now));
        all.insert(agent, (region, now));
    }

    /// It has come here, or is gone.
    pub fn forget(&self, agent: &AgentName) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(agent);
    }

    /// Whether nobody was ever heard of.
    pub fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Whether another control plane has this agent.
    pub fn has(&self, agent: &AgentName, now: Timestamp) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(agent).is_some_and(|(_, at)| counts(*at, now))
    }

    /// Whether another control plane has an agent that may deliver to destinations of `region`.
    pub fn serves(&self, region: Option<&Id>, now: Timestamp) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values()
            .any(|(theirs, at)| counts(*at, now) && serves(theirs.as_ref(), region))
    }
}

fn counts(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) < COUNTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_fades() {
        let elsewhere = Elsewhere::default();
        let agent: AgentName = Id::chosen("edge").unwrap().into();
        let (eu, us) = (Id::chosen("eu").unwrap(), Id::chosen("us").unwrap());
        let now = Timestamp::from_unix_seconds(1_000);
        elsewhere.heard(agent.clone(), Some(eu.clone()), now);
        let later = now.plus(COUNTS);
        assert!(elsewhere.has(&agent, now) && !elsewhere.has(&agent, later));
        assert!(elsewhere.serves(Some(&eu), now) && elsewhere.serves(None, now));
        assert!(!elsewhere.serves(Some(&us), now) && !elsewhere.serves(Some(&eu), later));
        elsewhere.forget(&agent);
        assert!(!elsewhere.has(&agent, now));
    }
}
