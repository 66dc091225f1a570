//! The backlog: what is accepted and not settled, counted in memory, so that a bound on it costs a
//! submission a look-up and no more.
//!
//! The counts are hints. The store is the truth, and [`Recount`](super::Recount) compares: after a
//! start it fills them, and later it corrects what was counted wrongly because somebody went away in
//! between. A wrong count can refuse a submission, or take one too many; it can't lose one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use countersign_shared::name::{AccountName, DestinationName};
use thiserror::Error;

use crate::{
    config::{BacklogBounds, Bound},
    metrics::Metrics,
    model::{DestinationKey, Load},
};

/// Whose backlog is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One destination's.
    Destination,
    /// One account's.
    Account,
    /// Everybody's.
    Installation,
}

impl Scope {
    /// As labels of metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Account => "account",
            Self::Installation => "installation",
        }
    }
}

/// No room for another delivery.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "the backlog of {whose} is full: {} deliveries of {} bytes are not settled, and {} and {} are \
     allowed; submit again when some have been delivered",
    load.deliveries, load.bytes, bound.deliveries, bound.bytes
)]
pub struct Full {
    /// Which bound.
    pub scope: Scope,
    /// Resource name of whom it is for; `the installation`.
    pub whose: String,
    /// What there is.
    pub load: Load,
    /// What is allowed.
    pub bound: Bound,
}

/// Counts what is accepted and not settled: one entry for each destination that has something, or had.
#[derive(Debug)]
pub struct Backlog {
    bounds: BacklogBounds,
    metrics: Metrics,
    counts: Mutex<Counts>,
    /// Outcomes that may be settled in the store and are still counted here.
    settling: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    destinations: HashMap<DestinationName, OfDestination>,
    names: HashMap<DestinationKey, DestinationName>,
    accounts: HashMap<String, Load>,
    all: Load,
}

#[derive(Debug, Default)]
struct OfDestination {
    key: Option<DestinationKey>,
    load: Load,
    /// Submissions that are counted and perhaps not yet stored.
    in_flight: u64,
    /// Grows with every change.
    changes: u64,
}

impl OfDestination {
    fn is_empty(&self) -> bool {
        self.load == Load::default() && self.in_flight == 0
    }
}

impl Counts {
    /// Adds to a destination and to all that it is part of.
    fn add(&mut self, name: &DestinationName, load: Load) {
        if let Some(of) = self.destinations.get_mut(name) {
            of.load += load;
            of.changes += 1;
        }
        match self.accounts.get_mut(name.account()) {
            Some(of) => *of += load,
            None => {
                self.accounts.insert(name.account().to_owned(), load);
            }
        }
        self.all += load;
    }

    fn remove(&mut self, name: &DestinationName) {
        let Some(of) = self.destinations.get(name) else {
            return;
        };
        let (key, load) = (of.key, of.load);
        self.add(name, -load);
        self.destinations.remove(name);
        if let Some(key) = key {
            self.names.remove(&key);
        }
        if self.accounts.get(name.account()) == Some(&Load::default()) {
            self.accounts.remove(name.account());
        }
    }

    /// The entry of a destination whose handle is known: a name can be given anew to another.
    fn known(&mut self, name: &DestinationName, key: DestinationKey) -> &mut OfDestination {
        let before = self.destinations.get(name).and_then(|of| of.key);
        if before.is_some_and(|before| before != key) {
            self.remove(name);
        }
        if before != Some(key) {
            self.names.insert(key, name.clone());
        }
        let of = self.destinations.entry(name.clone()).or_default();
        of.key = Some(key);
        of
    }
}

impl Backlog {
    /// Nothing is counted yet.
    pub fn new(bounds: BacklogBounds, metrics: Metrics) -> Self {
        Self {
            bounds,
            metrics,
            counts: Mutex::default(),
            settling: AtomicU64::new(0),
        }
    }

    /// Finds room for a delivery of so many bytes.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(self: &Arc<Self>, name: &DestinationName, bytes: u32) -> Result<Place, Full> {
        let mut counts = self.lock();
        if let Some(full) = self.full(&counts, name, bytes) {
            drop(counts);
            self.metrics.backlog_full(full.scope.as_str());
            return Err(full);
        }
        match counts.destinations.get_mut(name) {
            Some(of) => of.in_flight += 1,
            None => {
                let first = OfDestination {
                    in_flight: 1,
                    ..OfDestination::default()
                };
                counts.destinations.insert(name.clone(), first);
            }
        }
        counts.add(name, Load::one(bytes));
        self.show(&counts);
        Ok(Place {
            backlog: Arc::clone(self),
            name: name.clone(),
            bytes,
            on_its_way: false,
            ended: false,
        })
    }

    fn full(&self, counts: &Counts, name: &DestinationName, bytes: u32) -> Option<Full> {
        let destination = counts.destinations.get(name).map(|of| of.load);
        let account = counts.accounts.get(name.account()).copied();
        let looked_at = [
            (Scope::Destination, destination, self.bounds.destination),
            (Scope::Account, account, self.bounds.account),
            (
                Scope::Installation,
                Some(counts.all),
                self.bounds.installation,
            ),
        ];
        let found = looked_at
            .into_iter()
            .find(|(_, load, bound)| load.is_some_and(|load| !has_room(load, *bound, bytes)));
        let (scope, load, bound) = found?;
        let whose = match scope {
            Scope::Destination => name.to_string(),
            Scope::Account => name.account_text().to_owned(),
            Scope::Installation => "the installation".to_owned(),
        };
        let load = load.unwrap_or_default();
        Some(Full {
            scope,
            whose,
            load,
            bound,
        })
    }

    /// Deliveries were settled or given up: the destination and the bytes of each.
    pub fn left(&self, gone: impl IntoIterator<Item = (DestinationKey, u32)>) {
        let mut counts = self.lock();
        for (key, bytes) in gone {
            // What is not known was not counted either: the recount after the start has yet to come.
            if let Some(name) = counts.names.get(&key).cloned() {
                counts.add(&name, -Load::one(bytes));
            }
        }
        self.show(&counts);
    }

    /// A dead letter is to be delivered again. No bound stops that.
    pub fn returned(&self, name: &DestinationName, key: DestinationKey, bytes: u32) {
        let mut counts = self.lock();
        counts.known(name, key);
        counts.add(name, Load::one(bytes));
        self.show(&counts);
    }

    /// The name of a destination that is counted.
    pub fn name(&self, key: DestinationKey) -> Option<DestinationName> {
        self.lock().names.get(&key).cloned()
    }

    /// What a destination has.
    pub fn of(&self, name: &DestinationName) -> Load {
        let counts = self.lock();
        let of = counts.destinations.get(name);
        of.map(|of| of.load).unwrap_or_default()
    }

    /// The destination is gone, and what it had with it.
    pub fn forget(&self, name: &DestinationName) {
        let mut counts = self.lock();
        counts.remove(name);
        self.show(&counts);
    }

    /// The account is gone with all of its destinations.
    pub fn forget_account(&self, account: &AccountName) {
        let mut counts = self.lock();
        let of_account = |name: &&DestinationName| name.account() == account.id().as_str();
        let names: Vec<_> = counts
            .destinations
            .keys()
            .filter(of_account)
            .cloned()
            .collect();
        names.iter().for_each(|name| counts.remove(name));
        self.show(&counts);
    }

    /// Outcomes go to the store; they are counted as settling until the answer is dropped.
    pub(super) fn settling(&self, outcomes: usize) -> Settling<'_> {
        let outcomes = outcomes as u64;
        self.settling.fetch_add(outcomes, Ordering::Relaxed);
        Settling(self, outcomes)
    }

    /// Destinations that are counted.
    pub(super) fn counted(&self) -> Vec<(DestinationKey, DestinationName)> {
        let counts = self.lock();
        let names = counts.names.iter();
        names.map(|(key, name)| (*key, name.clone())).collect()
    }

    /// A destination is about to be counted in the store.
    pub(super) fn begin(&self, key: DestinationKey, name: &DestinationName) -> Began {
        let mut counts = self.lock();
        let of = counts.known(name, key);
        Began {
            changes: of.changes,
            in_flight: of.in_flight + self.settling.load(Ordering::Relaxed),
        }
    }

    /// The store counted `load` since `began`. It is taken over when nothing moved meanwhile, and also
    /// when the difference is more than all that moved can explain.
    pub(super) fn end(&self, key: DestinationKey, began: Began, load: Load) {
        let mut counts = self.lock();
        let Some(name) = counts.names.get(&key).cloned() else {
            return;
        };
        let Some(of) = counts.destinations.get(&name) else {
            return;
        };
        let settling = self.settling.load(Ordering::Relaxed);
        let moved = (of.changes - began.changes) + began.in_flight + of.in_flight + settling;
        let difference = load - of.load;
        if moved == 0 || difference.deliveries.unsigned_abs() > moved {
            counts.add(&name, difference);
        }
        if counts
            .destinations
            .get(&name)
            .is_some_and(OfDestination::is_empty)
        {
            counts.remove(&name);
        }
        self.show(&counts);
    }

    /// Everything that the store knows has been counted: what it does not know was never stored.
    pub(super) fn forget_unknown(&self) {
        let mut counts = self.lock();
        let all = counts.destinations.iter();
        let unknown = all.filter(|(_, of)| of.key.is_none() && of.in_flight == 0);
        let names: Vec<_> = unknown.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| counts.remove(name));
        self.show(&counts);
    }

    fn show(&self, counts: &Counts) {
        self.metrics.backlog_deliveries.set(counts.all.deliveries);
        self.metrics.backlog_bytes.set(counts.all.bytes);
    }

    /// Counts are hints; a half-made change does no harm that a recount does not repair.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_room(load: Load, bound: Bound, bytes: u32) -> bool {
    let with = |count: i64, more: u64| u64::try_from(count).unwrap_or_default() + more;
    // An empty backlog takes any payload, however small its bound.
    load.deliveries <= 0
        || with(load.deliveries, 1) <= bound.deliveries
            && with(load.bytes, u64::from(bytes)) <= bound.bytes
}

/// How a destination stood when it was about to be counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    changes: u64,
    in_flight: u64,
}

/// Outcomes that are on their way to the store and back.
pub(super) struct Settling<'a>(&'a Backlog, u64);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.settling.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Room for one delivery, which is counted already. Dropped, it is given back, unless the delivery is
/// on its way to the store by then and nobody has waited for the answer: it is stored all the same.
#[derive(Debug)]
pub struct Place {
    backlog: Arc<Backlog>,
    name: DestinationName,
    bytes: u32,
    on_its_way: bool,
    ended: bool,
}

impl Place {
    /// The delivery goes to the store now.
    pub(super) fn on_its_way(&mut self) {
        self.on_its_way = true;
    }

    /// The store has taken the delivery for this destination.
    pub(super) fn taken(mut self, key: DestinationKey) {
        self.ended = true;
        let mut counts = self.backlog.lock();
        let of = counts.known(&self.name, key);
        of.in_flight = of.in_flight.saturating_sub(1);
        of.changes += 1;
    }

    /// The store has not taken it.
    pub(super) fn refused(mut self) {
        self.on_its_way = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut counts = self.backlog.lock();
        let Some(of) = counts.destinations.get_mut(&self.name) else {
            return;
        };
        of.in_flight = of.in_flight.saturating_sub(1);
        of.changes += 1;
        if !self.on_its_way {
            counts.add(&self.name, -Load::one(self.bytes));
            let meaningless = |of: &OfDestination| of.key.is_none() && of.is_empty();
            // Names that mean nothing leave nothing behind.
            if counts.destinations.get(&self.name).is_some_and(meaningless) {
                counts.remove(&self.name);
            }
            self.backlog.show(&counts);
        }
    }
}

#[cfg(test)]
mod tests;
