//! Calls that were not let in. Those of a moment that are alike are one record with a count, and there
//! is a bound on how many kinds are kept apart, so that a flood of them does not fill the disk.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use countersign_shared::time::Timestamp;
use tokio::sync::Notify;

use super::empty;
use crate::model::{AuditKind, AuditRecord};

/// How many kinds are kept apart between two looks; the rest are one kind.
const KINDS: usize = 100;
/// Most characters of what a caller chose.
const LONGEST: usize = 128;

/// A call that was not let in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Refusal {
    /// Who called; empty when that was not proved.
    pub principal: String,
    /// From where.
    pub address: Option<IpAddr>,
    /// What.
    pub method: String,
    /// Why not: the reason in the answer.
    pub reason: String,
}

/// Refusals that are not on record yet.
#[derive(Debug, Default)]
pub struct Refusals {
    seen: Mutex<HashMap<Refusal, (Timestamp, u64)>>,
    some: Notify,
}

impl Refusals {
    /// A call was not let in.
    pub fn note(&self, mut refusal: Refusal, now: Timestamp) {
        refusal.method = refusal.method.chars().take(LONGEST).collect();
        let mut seen = self.lock();
        if seen.len() >= KINDS && !seen.contains_key(&refusal) {
            // The reason stays: it tells what is going on.
            refusal = Refusal {
                reason: refusal.reason,
                ..Refusal::default()
            };
        }
        seen.entry(refusal).or_insert((now, 0)).1 += 1;
        self.some.notify_one();
    }

    /// Waits until there are some.
    pub async fn wait(&self) {
        self.some.notified().await;
    }

    /// Takes all, in the order of their first.
    pub fn take(&self) -> Vec<AuditRecord> {
        let taken = std::mem::take(&mut *self.lock());
        let mut taken: Vec<_> = taken.into_iter().collect();
        taken.sort_by_key(|(_, (first, _))| *first);
        let records = taken.into_iter().map(|(refusal, (first, count))| {
            let address = refusal.address;
            AuditRecord {
                principal: refusal.principal,
                address: address.map_or_else(String::new, |address| address.to_string()),
                method: refusal.method,
                reason: refusal.reason,
                count,
                ..empty(AuditKind::Refusal, first)
            }
        });
        records.collect()
    }

    /// Entries are whole or not there.
    fn lock(&self) -> MutexGuard<'_, HashMap<Refusal, (Timestamp, u64)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn refusal(method: &str) -> Refusal {
        Refusal {
            address: "192.0.2.7".parse().ok(),
            method: method.to_owned(),
            reason: "UNAUTHENTICATED".to_owned(),
            ..Refusal::default()
        }
    }

    #[test]
    fn alike_ones_are_counted() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            refusals.note(refusal("S/M"), NOW);
        }
        refusals.note(refusal("S/N"), Timestamp::from_unix_seconds(1_700_000_001));
        let taken = refusals.take();
        assert_eq!((taken[0].method.as_str(), taken[0].count), ("S/M", 3));
        assert_eq!((taken[1].method.as_str(), taken[1].count), ("S/N", 1));
        assert_eq!(taken[0].kind, AuditKind::Refusal);
        assert!(refusals.take().is_empty());
    }

    #[test]
    fn a_flood_is_bounded_and_still_counted() {
        let refusals = Refusals::default();
        for number in 0..10_000 {
            refusals.note(refusal(&number.to_string()), NOW);
        }
        let taken = refusals.take();
        assert_eq!(taken.len(), KINDS + 1);
        assert_eq!(taken.iter().map(|record| record.count).sum::<u64>(), 10_000);
    }
}
