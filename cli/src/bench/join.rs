//! Puts together, by delivery, what generator, receiver and store say. Pure.

use std::collections::HashMap;

use countersign_shared::time::Timestamp;

use super::records::{Accepted, DeliveryNumber, Received};

/// What the store says of a delivery that it has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Time of acceptance.
    pub(crate) created: Timestamp,
    /// Time of the recorded outcome.
    pub(crate) settled: Timestamp,
}

/// What became of the deliveries to live destinations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Joined {
    /// Accepted, to every destination, in the measured time.
    pub(crate) accepted: usize,
    /// Accepted to live destinations in the measured time, and received.
    pub(crate) delivered: usize,
    /// Accepted to live destinations at any time, and never received.
    pub(crate) lost: usize,
    /// Receptions beyond the first.
    pub(crate) duplicates: usize,
    /// Accepted to live destinations at any time, and not delivered by the store's record.
    pub(crate) unsettled: usize,
    /// When the last answer came.
    pub(crate) last_accepted: Option<Timestamp>,
    /// When the last came in for the first time.
    pub(crate) last_received: Option<Timestamp>,
    /// From due to accepted, in microseconds, like those that follow.
    pub(crate) submit_to_accepted: Vec<u64>,
    /// From accepted to received; 0 where it was received before the answer came.
    pub(crate) accept_to_received: Vec<u64>,
    /// From due to received.
    pub(crate) submit_to_received: Vec<u64>,
    /// From the store's time of acceptance to its time of settling.
    pub(crate) accept_to_settled: Vec<u64>,
}

/// Joins them. What was due before `start` is warm-up and counts only as lost, unsettled or
/// duplicate. `live` says whether a destination, by its index, answers.
pub(crate) fn join(
    accepted: &[Accepted],
    received: &[Received],
    settled: &HashMap<DeliveryNumber, Settled>,
    start: Timestamp,
    live: impl Fn(u32) -> bool,
) -> Joined {
    let mut joined = Joined::default();
    let first = first_receptions(received);
    joined.duplicates = received.len() - first.len();
    for delivery in accepted {
        let measured = delivery.due >= start;
        if measured {
            joined.accepted(delivery);
        }
        if live(delivery.destination) {
            let at = first.get(&delivery.id).copied();
            joined.followed(delivery, measured, at, settled.get(&delivery.id));
        }
    }
    joined
}

fn first_receptions(received: &[Received]) -> HashMap<DeliveryNumber, Timestamp> {
    let mut first = HashMap::with_capacity(received.len());
    for reception in received {
        first
            .entry(reception.id)
            .and_modify(|at: &mut Timestamp| *at = reception.at.min(*at))
            .or_insert(reception.at);
    }
    first
}

impl Joined {
    fn accepted(&mut self, delivery: &Accepted) {
        self.accepted += 1;
        self.last_accepted = self.last_accepted.max(Some(delivery.accepted));
        self.submit_to_accepted
            .push(micros(delivery.due, delivery.accepted));
    }

    fn followed(
        &mut self,
        delivery: &Accepted,
        measured: bool,
        received: Option<Timestamp>,
        settled: Option<&Settled>,
    ) {
        match received {
            Some(at) if measured => {
                self.delivered += 1;
                self.last_received = self.last_received.max(Some(at));
                self.accept_to_received.push(micros(delivery.accepted, at));
                self.submit_to_received.push(micros(delivery.due, at));
            }
            Some(_) => {}
            None => self.lost += 1,
        }
        match settled {
            Some(times) if measured => self
                .accept_to_settled
                .push(micros(times.created, times.settled)),
            Some(_) => {}
            None => self.unsettled += 1,
        }
    }
}

fn micros(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_micros(millis * 1000)
    }

    fn accepted(id: DeliveryNumber, destination: u32, due: i64) -> Accepted {
        Accepted {
            id,
            destination,
            due: at(due),
            accepted: at(due + 2),
        }
    }

    fn received(id: DeliveryNumber, millis: i64) -> Received {
        Received { id, at: at(millis) }
    }

    #[test]
    fn latencies_are_joined_by_delivery() {
        let accepted = [accepted(1, 0, 100), accepted(2, 0, 110), accepted(3, 0, 90)];
        let received = [received(2, 111), received(1, 107), received(3, 95)];
        let times = Settled {
            created: at(101),
            settled: at(110),
        };
        let settled = [1, 2, 3].map(|id| (id, times)).into();
        let joined = join(&accepted, &received, &settled, at(100), |_| true);
        assert_eq!((joined.accepted, joined.delivered), (2, 2));
        assert_eq!(
            (joined.lost, joined.duplicates, joined.unsettled),
            (0, 0, 0)
        );
        assert_eq!(joined.submit_to_accepted, [2000, 2000]);
        // The second came in before the generator had its answer.
        assert_eq!(joined.accept_to_received, [5000, 0]);
        assert_eq!(joined.submit_to_received, [7000, 1000]);
        assert_eq!(joined.accept_to_settled, [9000, 9000]);
        assert_eq!(joined.last_accepted, Some(at(112)));
        assert_eq!(joined.last_received, Some(at(111)));
    }

    #[test]
    fn what_is_missing_or_double_is_counted_warm_up_included() {
        let accepted = [accepted(1, 0, 10), accepted(2, 0, 200), accepted(3, 0, 201)];
        let received = [received(2, 300), received(2, 290)];
        let joined = join(&accepted, &received, &HashMap::new(), at(100), |_| true);
        assert_eq!((joined.accepted, joined.delivered), (2, 1));
        assert_eq!(
            (joined.lost, joined.duplicates, joined.unsettled),
            (2, 1, 3)
        );
        assert_eq!(joined.last_received, Some(at(290)));
    }

    #[test]
    fn destinations_that_do_not_answer_lose_nothing() {
        let accepted = [accepted(1, 0, 100), accepted(2, 1, 100)];
        let received = [received(1, 101)];
        let joined = join(&accepted, &received, &HashMap::new(), at(0), |n| n == 0);
        assert_eq!((joined.accepted, joined.delivered), (2, 1));
        assert_eq!((joined.lost, joined.unsettled), (0, 1));
    }
}
