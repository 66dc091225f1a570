//! Which destinations were found by name: a name and two indexes for each delivery cost the server more than its row.

use std::{cell::RefCell, collections::HashMap};

use countersign_shared::name::DestinationName;

/// A destination's handle, and its account's. Handles are never given again by a server that lives, but a destination
/// may be gone meanwhile.
pub(super) type Keys = (i64, i64);

/// How many are remembered, at some 100 bytes each, before all are forgotten.
const MOST: usize = 100_000;

/// What was found on one connection.
#[derive(Default)]
pub(super) struct Known(RefCell<HashMap<DestinationName, Keys>>);

impl Known {
    pub(super) fn get(&self, name: &DestinationName) -> Option<Keys> {
        self.0.borrow().get(name).copied()
    }

    /// Remembers what a name was found to be, or that it is nothing.
    pub(super) fn note(&self, name: &DestinationName, keys: Option<Keys>) {
        let mut known = self.0.borrow_mut();
        known.remove(name);
        if let Some(keys) = keys {
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(name.clone(), keys);
        }
    }

    /// Forgets all: another server may have taken over, which never heard of the newest and gives their handles to
    /// others.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}
