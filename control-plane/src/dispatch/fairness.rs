//! Who gets what: a pure decision. Destinations take turns, a slice at a time, so that one with a
//! million deliveries waiting takes no more of an agent's credit than one with ten.

use std::collections::HashMap;

use countersign_shared::{
    name::{AgentName, Id},
    time::Timestamp,
};

use crate::model::{DestinationKey, Grant};

/// How many deliveries a destination gets before the next one has its turn. Few, so that what goes out is about as it
/// came in: an agent then needs fewer connections to each receiver, and the store reads and writes neighbours.
const SLICE: usize = 4;

/// A destination with deliveries that are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) destination: DestinationKey,
    /// Whose agents may deliver; `None`: any.
    pub(super) region: Option<Id>,
    /// How many can be used: what is thought to be due, within the destination's own limit.
    pub(super) room: usize,
    /// What was accepted before this is past its deadline.
    pub(super) accepted_from: Option<Timestamp>,
    /// Where deliveries are held: which of the agents that may takes a slice, counted around, instead
    /// of the one with most credit. That one has nothing to do and so would get each of them, even if
    /// the trouble is its own (its clock, its egress policy) and another agent's deliveries arrive.
    pub(super) pick: Option<usize>,
    /// When leases of it end that are given now.
    pub(super) until: Timestamp,
}

/// An agent that has credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) agent: AgentName,
    pub(super) region: Option<Id>,
    pub(super) credit: usize,
}

/// Whether an agent of region `agent` may deliver to a destination of region `destination`.
pub(super) fn serves(agent: Option<&Id>, destination: Option<&Id>) -> bool {
    destination.is_none() || destination == agent
}

/// Gives out at most `budget` deliveries. Of the agents that may, the one with most credit left gets a
/// slice, so that load spreads by itself, or the one that the candidate picks.
pub(super) fn plan(
    mut candidates: Vec<Candidate>,
    mut workers: Vec<Worker>,
    mut budget: usize,
) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    // Where in `grants` a destination's grant to a worker is.
    let mut places: HashMap<(DestinationKey, usize), usize> = HashMap::new();
    let mut progress = true;
    while progress && budget > 0 {
        progress = false;
        for candidate in &mut candidates {
            let Some((number, worker)) = choose(&mut workers, candidate) else {
                continue;
            };
            let size = SLICE.min(candidate.room).min(worker.credit).min(budget);
            if size == 0 {
                continue;
            }
            candidate.room -= size;
            worker.credit -= size;
            budget -= size;
            progress = true;
            let destination = candidate.destination;
            let place = *places.entry((destination, number)).or_insert(grants.len());
            match grants.get_mut(place) {
                Some(grant) => grant.limit += size,
                None => grants.push(Grant {
                    destination,
                    agent: worker.agent.clone(),
                    limit: size,
                    accepted_from: candidate.accepted_from,
                    until: candidate.until,
                }),
            }
        }
    }
    grants
}

/// The worker that gets a slice, and its number.
fn choose<'a>(workers: &'a mut [Worker], candidate: &Candidate) -> Option<(usize, &'a mut Worker)> {
    let region = candidate.region.as_ref();
    let may = |worker: &Worker| worker.credit > 0 && serves(worker.region.as_ref(), region);
    let count = workers.iter().filter(|worker| may(worker)).count();
    let mut able = workers
        .iter_mut()
        .enumerate()
        .filter(|(_, worker)| may(worker));
    match candidate.pick {
        Some(pick) => able.nth(pick.checked_rem(count)?),
        None => able.max_by_key(|(_, worker)| worker.credit),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> Id {
        Id::chosen(text).unwrap()
    }

    fn candidate(key: i64, region: Option<&str>, room: usize) -> Candidate {
        Candidate {
            destination: DestinationKey(key),
            region: region.map(id),
            room,
            accepted_from: None,
            pick: None,
            until: Timestamp::from_unix_seconds(90),
        }
    }

    fn worker(name: &str, region: Option<&str>, credit: usize) -> Worker {
        Worker {
            agent: id(name).into(),
            region: region.map(id),
            credit,
        }
    }

    fn given(grants: &[Grant], key: i64) -> usize {
        let of_key = grants.iter().filter(|grant| grant.destination.0 == key);
        of_key.map(|grant| grant.limit).sum()
    }

    #[test]
    fn a_long_backlog_takes_no_more_than_its_turn() {
        let candidates = vec![candidate(1, None, 1_000_000), candidate(2, None, 50)];
        let grants = plan(candidates, vec![worker("a", None, 100)], 1000);
        let shares = (given(&grants, 1), given(&grants, 2));
        assert_eq!(shares.0 + shares.1, 100);
        assert!(shares.0.abs_diff(shares.1) <= SLICE, "{shares:?}");
    }

    #[test]
    fn regions_are_respected_and_agents_share() {
        let candidates = vec![candidate(1, Some("eu"), 100), candidate(2, None, 100)];
        let workers = vec![
            worker("eu-1", Some("eu"), 64),
            worker("us-1", Some("us"), 64),
            worker("any-1", None, 64),
        ];
        let grants = plan(candidates, workers, 1000);
        let of_eu = grants.iter().filter(|grant| grant.destination.0 == 1);
        assert!(
            of_eu
                .clone()
                .all(|grant| grant.agent.id().as_str() == "eu-1")
        );
        assert_eq!(given(&grants, 2), 100, "{grants:?}");
        assert!(
            grants
                .iter()
                .filter(|grant| grant.destination.0 == 2)
                .count()
                > 1
        );
    }

    #[test]
    fn every_agent_that_may_gets_its_try_at_what_is_held() {
        let workers = vec![
            worker("us-1", Some("us"), 1000),
            worker("eu-1", Some("eu"), 1000),
            worker("eu-2", Some("eu"), 0),
            worker("eu-3", Some("eu"), 3),
        ];
        let given_to = |pick| {
            let held = Candidate {
                pick: Some(pick),
                ..candidate(1, Some("eu"), 1)
            };
            let grants = plan(vec![held], workers.clone(), 10);
            assert_eq!(given(&grants, 1), 1);
            grants[0].agent.id().to_string()
        };
        let chosen: Vec<_> = (0..4).map(given_to).collect();
        assert_eq!(chosen, ["eu-1", "eu-3", "eu-1", "eu-3"]);
    }

    #[test]
    fn nothing_is_planned_without_credit_or_agents() {
        assert!(plan(vec![candidate(1, None, 5)], vec![], 10).is_empty());
        assert!(plan(vec![candidate(1, None, 5)], vec![worker("a", None, 0)], 10).is_empty());
        assert!(
            plan(
                vec![candidate(1, Some("eu"), 5)],
                vec![worker("a", None, 9)],
                10
            )
            .is_empty()
        );
    }

    proptest! {
        #[test]
        fn no_bound_is_ever_exceeded_and_equals_get_equal_shares(
            rooms in proptest::collection::vec(0_usize..200, 1..20),
            credits in proptest::collection::vec(0_usize..200, 1..5),
            budget in 0_usize..1000,
            pick in proptest::option::of(0_usize..10),
        ) {
            let of = |(key, room): (i64, &usize)| Candidate { pick, ..candidate(key, None, *room) };
            let candidates: Vec<_> = (0..).zip(&rooms).map(of).collect();
            let workers: Vec<_> = credits
                .iter()
                .enumerate()
                .map(|(at, credit)| worker(&format!("a{at}"), None, *credit))
                .collect();
            let grants = plan(candidates, workers, budget);
            let pairs: HashSet<_> = grants.iter().map(|g| (g.destination, &g.agent)).collect();
            prop_assert_eq!(pairs.len(), grants.len(), "one grant for each pair");
            let total: usize = grants.iter().map(|grant| grant.limit).sum();
            let wanted: usize = rooms.iter().sum();
            let credit: usize = credits.iter().sum();
            prop_assert_eq!(total, budget.min(wanted).min(credit));
            for (key, room) in (0_i64..).zip(&rooms) {
                prop_assert!(given(&grants, key) <= *room);
            }
            for (at, credit) in credits.iter().enumerate() {
                let agent = AgentName::from(id(&format!("a{at}")));
                let used: usize =
                    grants.iter().filter(|g| g.agent == agent).map(|g| g.limit).sum();
                prop_assert!(used <= *credit);
            }
            // Whoever got less than another by more than a slice or two had no more to give. (An agent
            // that is picked may have less than a slice left.)
            let shares: Vec<usize> = (0..rooms.len() as i64).map(|key| given(&grants, key)).collect();
            let most = shares.iter().max().copied().unwrap_or_default();
            for (share, room) in shares.iter().zip(&rooms) {
                let fair = share == room || share + 2 * SLICE >= most;
                prop_assert!(fair || pick.is_some(), "{shares:?} {rooms:?}");
            }
        }
    }
}
