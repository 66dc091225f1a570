//! Signals between the parts: hints that something may be due or has changed. A hint may be lost or
//! repeated; the store stays the only truth.

mod dead_letters;
mod flows;
mod holds;
mod observations;
mod relay;

use std::{
    collections::HashMap,
    ops::AddAssign,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countersign_shared::{class::FailureClass, name::DestinationName, time::Timestamp};
use tokio::sync::{Notify, broadcast};

pub use self::{
    dead_letters::DeadLetters,
    flows::{Flow, FlowState, Flows},
    holds::Holds,
    observations::{Observations, Observer},
    relay::{News, Relay},
};
use crate::model::DestinationKey;

/// What the dispatcher should look at.
#[derive(Debug, Default)]
pub struct Hints {
    /// When each destination's next delivery may be due.
    pub due: HashMap<DestinationKey, Timestamp>,
    /// The leases of each destination that have ended.
    pub ended: HashMap<DestinationKey, Ended>,
    /// Everything may have changed.
    pub rescan: bool,
}

/// Leases of one destination that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// How many.
    pub count: usize,
    /// Of how many the attempt was answered, and not with a 5xx.
    pub answered: usize,
    /// Of how many it found the receiver unreachable, silent or in trouble.
    pub failed: usize,
    /// Of how many it ran out of time.
    pub timed_out: usize,
    /// The longest pause that the receiver asked for.
    pub pause: Option<Duration>,
}

impl Ended {
    /// One lease of which nothing is known but that it has ended.
    pub fn one() -> Self {
        Self {
            count: 1,
            ..Self::default()
        }
    }

    /// The lease of an attempt that ended as `class`, with `Retry-After`.
    pub fn by(class: FailureClass, retry_after: Option<Duration>) -> Self {
        use FailureClass as Class;
        let silent = matches!(class, Class::RequestTimeout | Class::ConnectionTimeout);
        let failed = silent
            || matches!(
                class,
                Class::HttpServerError
                    | Class::ConnectionRefused
                    | Class::ConnectionLost
                    | Class::DnsFailure
                    | Class::TlsHandshakeFailed
            );
        let asks = matches!(class, Class::HttpRateLimited | Class::HttpServerError);
        Self {
            answered: usize::from(class.is_answer() && !failed),
            failed: usize::from(failed),
            timed_out: usize::from(silent),
            pause: retry_after.filter(|_| asks),
            ..Self::one()
        }
    }
}

impl AddAssign for Ended {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.answered += other.answered;
        self.failed += other.failed;
        self.timed_out += other.timed_out;
        self.pause = self.pause.max(other.pause);
    }
}

/// Collects hints for the dispatcher and wakes it. At most one entry for each destination.
#[derive(Debug, Default)]
pub struct Wake {
    hints: Mutex<Hints>,
    notify: Notify,
    relay: Arc<Relay>,
}

impl Wake {
    /// One that tells other control planes too.
    pub fn relayed(relay: Arc<Relay>) -> Self {
        Self {
            relay,
            ..Self::default()
        }
    }

    /// As [`Wake::due`], where it may be another control plane whose agents deliver it.
    pub fn due_anywhere(&self, destination: DestinationKey, at: Timestamp) {
        self.due(destination, at);
        self.relay.tell(News::Due(destination));
    }

    /// Other control planes should look at this.
    pub fn tell(&self, news: News) {
        self.relay.tell(news);
    }

    /// A delivery of `destination` may be due at `at`.
    pub fn due(&self, destination: DestinationKey, at: Timestamp) {
        {
            let mut hints = self.lock();
            let earliest = hints.due.entry(destination).or_insert(at);
            *earliest = at.min(*earliest);
        }
        self.notify.notify_one();
    }

    /// Leases of `destination` have ended.
    pub fn lease_ended(&self, destination: DestinationKey, ended: Ended) {
        *self.lock().ended.entry(destination).or_default() += ended;
        self.notify.notify_one();
    }

    /// Something else has changed: credit, a session.
    pub fn poke(&self) {
        self.notify.notify_one();
    }

    /// Everything may have changed: the store is to be looked through.
    pub fn rescan(&self) {
        self.lock().rescan = true;
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

/// Wakes somebody who looks at everything now and then, so that it is now.
#[derive(Debug, Default)]
pub struct Poke {
    notify: Notify,
    relay: Option<(Arc<Relay>, News)>,
}

impl Poke {
    /// One that tells other control planes `news` too.
    pub fn relayed(relay: Arc<Relay>, news: News) -> Self {
        Self {
            notify: Notify::new(),
            relay: Some((relay, news)),
        }
    }

    /// There is something to do.
    pub fn poke(&self) {
        if let Some((relay, news)) = &self.relay {
            relay.tell(news.clone());
        }
        self.heard();
    }

    /// Another control plane says that there is something to do.
    pub fn heard(&self) {
        self.notify.notify_one();
    }

    /// Waits for the next poke; one that came since the last call counts.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// Tells sessions that a destination changed or is gone.
#[derive(Debug)]
pub struct Changes {
    sender: broadcast::Sender<DestinationName>,
    relay: Arc<Relay>,
}

/// A listener that falls behind by more than this looks at everything again.
const BACKLOG: usize = 1024;

impl Default for Changes {
    fn default() -> Self {
        Self::relayed(Arc::default())
    }
}

impl Changes {
    /// One that tells other control planes too.
    pub fn relayed(relay: Arc<Relay>) -> Self {
        Self {
            sender: broadcast::Sender::new(BACKLOG),
            relay,
        }
    }

    /// `destination` changed or is gone.
    pub fn changed(&self, destination: DestinationName) {
        self.relay.tell(News::Changed(destination.clone()));
        self.heard(destination);
    }

    /// Another control plane says that `destination` changed or is gone.
    pub fn heard(&self, destination: DestinationName) {
        // Nobody listening is fine.
        let _ = self.sender.send(destination);
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<DestinationName> {
        self.sender.subscribe()
    }
}

/// Entries are whole or not there; a panic elsewhere leaves none half made.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
