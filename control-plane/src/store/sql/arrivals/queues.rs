//! The queues in memory: what waits for its first lease, a queue for each destination, in order. What was done since
//! the last commit can be undone.

use std::collections::{HashMap, VecDeque};

use countersign_shared::{name::DeliveryId, time::Timestamp};

use crate::model::{DestinationKey, Load};

/// A delivery that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::sql) struct Arrived {
    /// Whose it is.
    pub(in crate::store::sql) destination: DestinationKey,
    /// When it was accepted; it is due since then.
    pub(in crate::store::sql) due_at: Timestamp,
    /// Which it is.
    pub(in crate::store::sql) id: DeliveryId,
    /// Of its payload, in bytes.
    pub(in crate::store::sql) payload_size: u32,
}

/// What queues are sorted by.
pub(in crate::store::sql) type Place = (Timestamp, DeliveryId);

#[derive(Debug, Clone, Copy)]
struct Entry {
    arrived: Arrived,
    /// The row that says so.
    batch: i64,
}

impl Entry {
    fn place(&self) -> Place {
        (self.arrived.due_at, self.arrived.id)
    }
}

#[derive(Debug)]
enum Done {
    Added(DestinationKey, Place),
    Removed(Entry),
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queues {
    queues: HashMap<DestinationKey, VecDeque<Entry>>,
    /// How many of each batch wait.
    batches: HashMap<i64, usize>,
    count: usize,
    /// Since the last commit, in order.
    done: Vec<Done>,
}

impl Queues {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many wait at a destination, and the bytes of their payloads.
    pub(super) fn load(&self, destination: DestinationKey) -> Load {
        let all = self.queues.get(&destination).into_iter().flatten();
        let bytes = all.map(|entry| i64::from(entry.arrived.payload_size));
        bytes.fold(Load::default(), |load, bytes| Load {
            deliveries: load.deliveries + 1,
            bytes: load.bytes + bytes,
        })
    }

    /// Whether any waits at a destination.
    pub(super) fn any(&self, destination: DestinationKey) -> bool {
        self.queues.contains_key(&destination)
    }

    /// The first that wait at a destination.
    pub(super) fn first(
        &self,
        destination: DestinationKey,
    ) -> impl Iterator<Item = Place> + use<'_> {
        let queue = self.queues.get(&destination).into_iter().flatten();
        queue.map(Entry::place)
    }

    /// Takes in one that the row `batch` names.
    pub(super) fn add(&mut self, arrived: Arrived, batch: i64) {
        let entry = Entry { arrived, batch };
        self.put(entry);
        self.done
            .push(Done::Added(arrived.destination, entry.place()));
    }

    /// Takes out the first of a destination, up to the one at `last`. Answers with the batches that none is left of.
    pub(super) fn take(
        &mut self,
        destination: DestinationKey,
        last: Place,
    ) -> (Vec<DeliveryId>, Vec<i64>) {
        let Some(queue) = self.queues.get(&destination) else {
            return Default::default();
        };
        let count = queue.partition_point(|entry| entry.place() <= last);
        let (mut ids, mut over) = (Vec::with_capacity(count), Vec::new());
        for _ in 0..count {
            if let Some((entry, is_over)) = self.cut(destination, 0) {
                self.done.push(Done::Removed(entry));
                ids.push(entry.arrived.id);
                over.extend(is_over.then_some(entry.batch));
            }
        }
        (ids, over)
    }

    /// Takes out one, if it waits here. Answers with its batch, if none is left of that.
    pub(super) fn remove(
        &mut self,
        destination: DestinationKey,
        place: Place,
    ) -> Option<Option<i64>> {
        let at = self.find(destination, place)?;
        let (entry, is_over) = self.cut(destination, at)?;
        self.done.push(Done::Removed(entry));
        Some(is_over.then_some(entry.batch))
    }

    /// Takes out all of a destination. Answers as [`Queues::take`].
    pub(super) fn clear(&mut self, destination: DestinationKey) -> Vec<i64> {
        let last = self.queues.get(&destination).and_then(VecDeque::back);
        match last.map(Entry::place) {
            Some(last) => self.take(destination, last).1,
            None => Vec::new(),
        }
    }

    /// What was done up to now, for [`Queues::undo`].
    pub(super) fn mark(&self) -> usize {
        self.done.len()
    }

    /// Undoes what was done since `mark`.
    pub(super) fn undo(&mut self, mark: usize) {
        while self.done.len() > mark {
            match self.done.pop() {
                Some(Done::Added(destination, place)) => {
                    if let Some(at) = self.find(destination, place) {
                        self.cut(destination, at);
                    }
                }
                Some(Done::Removed(entry)) => self.put(entry),
                None => {}
            }
        }
    }

    /// What was done stays so.
    pub(super) fn keep(&mut self) {
        self.done.clear();
    }

    /// Nearly always behind all others.
    fn put(&mut self, entry: Entry) {
        let queue = self.queues.entry(entry.arrived.destination).or_default();
        let is_last = queue.back().is_none_or(|last| last.place() < entry.place());
        match is_last {
            true => queue.push_back(entry),
            false => {
                let at = queue.partition_point(|other| other.place() < entry.place());
                queue.insert(at, entry);
            }
        }
        *self.batches.entry(entry.batch).or_default() += 1;
        self.count += 1;
    }

    fn find(&self, destination: DestinationKey, place: Place) -> Option<usize> {
        let queue = self.queues.get(&destination)?;
        queue.binary_search_by_key(&place, Entry::place).ok()
    }

    /// Cuts one out of its queue; says whether it was the last of its batch.
    fn cut(&mut self, destination: DestinationKey, at: usize) -> Option<(Entry, bool)> {
        let queue = self.queues.get_mut(&destination)?;
        let entry = queue.remove(at)?;
        if queue.is_empty() {
            // Its memory with it.
            self.queues.remove(&destination);
        }
        self.count -= 1;
        let left = self.batches.get_mut(&entry.batch)?;
        *left -= 1;
        let is_over = *left == 0;
        if is_over {
            self.batches.remove(&entry.batch);
        }
        Some((entry, is_over))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrived(destination: i64, at: i64) -> Arrived {
        let due_at = Timestamp::from_unix_seconds(at);
        Arrived {
            destination: DestinationKey(destination),
            due_at,
            id: countersign_shared::random::uuid_v7(due_at).into(),
            payload_size: 10,
        }
    }

    fn place(arrived: &Arrived) -> Place {
        (arrived.due_at, arrived.id)
    }

    /// All that can be seen of it.
    fn seen(queues: &Queues) -> (usize, Vec<Vec<Place>>, Vec<(i64, usize)>) {
        let each = (0..3).map(|key| queues.first(DestinationKey(key)).collect());
        let mut batches: Vec<_> = queues.batches.iter().map(|(k, v)| (*k, *v)).collect();
        batches.sort_unstable();
        (queues.len(), each.collect(), batches)
    }

    #[derive(Debug, Clone)]
    enum Op {
        Add(i64, i64, i64),
        Take(i64, usize),
        Remove(prop::sample::Index),
        Clear(i64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            6 => (0_i64..3, 0_i64..9, 0_i64..4).prop_map(|(d, at, batch)| Op::Add(d, at, batch)),
            3 => (0_i64..3, 0_usize..3).prop_map(|(d, count)| Op::Take(d, count)),
            2 => any::<prop::sample::Index>().prop_map(Op::Remove),
            1 => (0_i64..3).prop_map(Op::Clear),
        ];
        prop::collection::vec(op, 0..40)
    }

    fn run(queues: &mut Queues, all: &mut Vec<(Arrived, i64)>, op: Op) {
        let gone = |all: &mut Vec<(Arrived, i64)>, ids: &[DeliveryId]| {
            let before: Vec<i64> = all.iter().map(|(_, batch)| *batch).collect();
            all.retain(|(it, _)| !ids.contains(&it.id));
            let after: Vec<i64> = all.iter().map(|(_, batch)| *batch).collect();
            let mut over: Vec<i64> = before
                .into_iter()
                .filter(|it| !after.contains(it))
                .collect();
            over.sort_unstable();
            over.dedup();
            over
        };
        match op {
            Op::Add(destination, at, batch) => {
                let new = arrived(destination, at);
                all.push((new, batch));
                queues.add(new, batch);
            }
            Op::Take(destination, count) => {
                let key = DestinationKey(destination);
                let first: Vec<Place> = queues.first(key).take(count).collect();
                let Some(last) = first.last() else { return };
                let (ids, mut over) = queues.take(key, *last);
                over.sort_unstable();
                assert_eq!(ids, first.iter().map(|(_, id)| *id).collect::<Vec<_>>());
                assert_eq!(over, gone(all, &ids));
            }
            Op::Remove(which) if !all.is_empty() => {
                let (it, _) = all[which.index(all.len())];
                let over = queues.remove(it.destination, place(&it)).unwrap();
                assert_eq!(Vec::from_iter(over), gone(all, &[it.id]));
                assert_eq!(queues.remove(it.destination, place(&it)), None);
            }
            Op::Remove(_) => {}
            Op::Clear(destination) => {
                let key = DestinationKey(destination);
                let ids: Vec<_> = queues.first(key).map(|(_, id)| id).collect();
                let mut over = queues.clear(key);
                over.sort_unstable();
                assert_eq!(over, gone(all, &ids));
                assert!(!queues.any(key));
            }
        }
    }

    proptest! {
        /// Queues are in order, batches are counted, and what is undone never was.
        #[test]
        fn queues_hold_what_was_added_and_not_removed(kept in ops(), marked in ops(), undone in ops()) {
            let (mut queues, mut all) = (Queues::default(), Vec::new());
            for op in kept {
                run(&mut queues, &mut all, op);
            }
            queues.keep();
            for op in marked {
                run(&mut queues, &mut all, op);
            }
            let (mark, before, model) = (queues.mark(), seen(&queues), all.clone());
            for op in undone {
                run(&mut queues, &mut all, op);
            }
            queues.undo(mark);
            prop_assert_eq!(seen(&queues), before);
            for key in (0..3).map(DestinationKey) {
                let mut there: Vec<Place> =
                    model.iter().filter(|(it, _)| it.destination == key).map(|(it, _)| place(it)).collect();
                there.sort_unstable();
                let load = queues.load(key);
                prop_assert_eq!((load.deliveries, load.bytes), (there.len() as i64, 10 * there.len() as i64));
                prop_assert_eq!(queues.first(key).collect::<Vec<_>>(), there);
            }
        }
    }
}
