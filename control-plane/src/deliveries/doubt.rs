//! Outcomes that no honest agent reports. Most of those that change nothing are merely late: a lease ran out, or
//! an answer was lost and is given again. These are not.

use countersign_shared::{job::LeaseId, name::AgentName};

use crate::model::LeaseFacts;

/// Why an outcome is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It is about a lease that another agent holds: only that one was told its epoch.
    LeaseOfAnother,
    /// It is about a lease that was never given.
    NeverLeased,
}

impl Doubt {
    /// The reason as the audit log has it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::LeaseOfAnother => "LEASE_OF_ANOTHER_AGENT",
            Self::NeverLeased => "LEASE_NEVER_GIVEN",
        }
    }
}

/// What to think of an outcome that changed nothing.
pub(super) fn doubt(agent: &AgentName, lease: LeaseId, facts: &LeaseFacts) -> Option<Doubt> {
    if lease.epoch > facts.epoch {
        return Some(Doubt::NeverLeased);
    }
    let others = facts.holder.as_ref().is_some_and(|holder| holder != agent);
    (others && lease.epoch == facts.epoch).then_some(Doubt::LeaseOfAnother)
}

#[cfg(test)]
mod tests {
    use countersign_shared::{name::Id, random, time::Timestamp};

    use super::*;

    #[test]
    fn late_is_not_forged() {
        let name = |id| AgentName::from(Id::chosen(id).unwrap());
        let (mine, other) = (name("mine"), name("other"));
        let delivery = random::uuid_v7(Timestamp::default()).into();
        let of = |holder: Option<&AgentName>, given, told| {
            let facts = LeaseFacts {
                holder: holder.cloned(),
                epoch: given,
            };
            let lease = LeaseId {
                delivery,
                epoch: told,
            };
            doubt(&mine, lease, &facts)
        };
        // It ran out and another agent has it, it was settled by another, or it is told twice.
        assert_eq!(of(Some(&other), 3, 2), None);
        assert_eq!(of(None, 3, 2), None);
        assert_eq!(of(None, 3, 3), None);
        assert_eq!(of(Some(&mine), 3, 3), None);
        assert_eq!(of(Some(&other), 3, 3), Some(Doubt::LeaseOfAnother));
        assert_eq!(of(Some(&other), 3, 4), Some(Doubt::NeverLeased));
        assert_eq!(of(Some(&mine), 3, 4), Some(Doubt::NeverLeased));
        assert_eq!(of(None, 0, 1), Some(Doubt::NeverLeased));
    }
}
