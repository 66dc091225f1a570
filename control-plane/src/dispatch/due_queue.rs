//! What is known of when destinations have deliveries due: one entry for each, from hints and from
//! what leasing found.

use std::collections::{BTreeSet, HashMap};

use countersign_shared::time::Timestamp;

use crate::model::DestinationKey;

/// What is assumed to be due of a destination about which nothing else is known.
const UNKNOWN: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Timestamp,
    /// How many deliveries are thought to be due.
    expected: usize,
}

/// Destinations by when they have something due. Bounded by the number of destinations.
#[derive(Debug, Default)]
pub(super) struct DueQueue {
    entries: HashMap<DestinationKey, Entry>,
    order: BTreeSet<(Timestamp, DestinationKey)>,
}

impl DueQueue {
    /// Something of `destination` may be due at `at`, if not sooner.
    pub(super) fn hint(&mut self, destination: DestinationKey, at: Timestamp) {
        let known = self.entries.get(&destination).copied();
        let at = known.map_or(at, |entry| entry.at.min(at));
        self.set(
            destination,
            at,
            UNKNOWN.max(known.map_or(0, |entry| entry.expected)),
        );
    }

    /// Leasing `granted` gave `leased`; the next is due at `next`.
    pub(super) fn leased(
        &mut self,
        destination: DestinationKey,
        granted: usize,
        leased: usize,
        next: Option<Timestamp>,
    ) {
        match next {
            // It used all it was given, so there may be more than twice as many.
            Some(at) if leased == granted => self.set(destination, at, 2 * granted.max(UNKNOWN)),
            Some(at) => self.set(destination, at, UNKNOWN),
            None => self.remove(destination),
        }
    }

    /// Nothing of `destination` may go out before `at`, whatever is due.
    pub(super) fn postpone(&mut self, destination: DestinationKey, at: Timestamp) {
        if let Some(entry) = self.entries.get(&destination).copied() {
            self.set(destination, at, entry.expected);
        }
    }

    /// Nothing is due of `destination`, or it is gone.
    pub(super) fn remove(&mut self, destination: DestinationKey) {
        if let Some(old) = self.entries.remove(&destination) {
            self.order.remove(&(old.at, destination));
        }
    }

    fn set(&mut self, destination: DestinationKey, at: Timestamp, expected: usize) {
        self.remove(destination);
        self.entries.insert(destination, Entry { at, expected });
        self.order.insert((at, destination));
    }

    /// Destinations with something due by `now`, longest waiting first, and how many deliveries each
    /// is thought to have.
    pub(super) fn ready(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (DestinationKey, usize)> + '_ {
        let due = self.order.iter().take_while(move |(at, _)| *at <= now);
        due.filter_map(|(_, destination)| {
            let entry = self.entries.get(destination)?;
            Some((*destination, entry.expected))
        })
    }

    /// When the next destination after `now` has something due.
    pub(super) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let after = (
            Timestamp::from_unix_micros(now.as_unix_micros() + 1),
            DestinationKey(i64::MIN),
        );
        self.order.range(after..).next().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DestinationKey = DestinationKey(1);
    const B: DestinationKey = DestinationKey(2);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn the_earliest_hint_wins_and_leasing_replaces_it() {
        let mut queue = DueQueue::default();
        queue.hint(A, at(10));
        queue.hint(A, at(5));
        queue.hint(A, at(20));
        queue.hint(B, at(7));
        let ready: Vec<_> = queue.ready(at(7)).map(|(key, _)| key).collect();
        assert_eq!(ready, [A, B]);
        assert_eq!(queue.next_after(at(5)), Some(at(7)));
        queue.leased(A, 16, 16, Some(at(6)));
        assert_eq!(queue.ready(at(6)).next(), Some((A, 32)));
        queue.leased(A, 32, 3, Some(at(90)));
        assert_eq!(queue.ready(at(6)).next(), None);
        queue.postpone(A, at(80));
        queue.postpone(DestinationKey(3), at(1));
        queue.leased(B, 16, 1, None);
        assert_eq!(queue.next_after(at(7)), Some(at(80)));
    }
}
