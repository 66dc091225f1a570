//! Signals between the parts: hints that something may be due or has changed. A hint may be lost or
//! repeated; the store stays the only truth.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use countersign_shared::{name::DestinationName, time::Timestamp};
use tokio::sync::{Notify, broadcast};

use crate::model::DestinationKey;

/// What the dispatcher should look at.
#[derive(Debug, Default)]
pub struct Hints {
    /// When each destination's next delivery may be due.
    pub due: HashMap<DestinationKey, Timestamp>,
    /// How many leases of each destination have ended.
    pub ended: HashMap<DestinationKey, usize>,
}

/// Collects hints for the dispatcher and wakes it. At most one entry for each destination.
#[derive(Debug, Default)]
pub struct Wake {
    hints: Mutex<Hints>,
    notify: Notify,
}

impl Wake {
    /// A delivery of `destination` may be due at `at`.
    pub fn due(&self, destination: DestinationKey, at: Timestamp) {
        {
            let mut hints = self.lock();
            let earliest = hints.due.entry(destination).or_insert(at);
            *earliest = at.min(*earliest);
        }
        self.notify.notify_one();
    }

    /// A lease of `destination` has ended.
    pub fn lease_ended(&self, destination: DestinationKey) {
        *self.lock().ended.entry(destination).or_default() += 1;
        self.notify.notify_one();
    }

    /// Something else has changed: credit, a session.
    pub fn poke(&self) {
        self.notify.notify_one();
    }

    /// Takes what has been collected.
    pub fn take(&self) -> Hints {
        std::mem::take(&mut self.lock())
    }

    /// Waits for the next hint; one that came since the last call counts.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }

    /// Hints are worth nothing by themselves, so a half-made one does no harm.
    fn lock(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells sessions that a destination changed or is gone.
#[derive(Debug)]
pub struct Changes(broadcast::Sender<DestinationName>);

/// A listener that falls behind by more than this looks at everything again.
const BACKLOG: usize = 1024;

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Changes {
    /// `destination` changed or is gone.
    pub fn changed(&self, destination: DestinationName) {
        // Nobody listening is fine.
        let _ = self.0.send(destination);
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<DestinationName> {
        self.0.subscribe()
    }
}
