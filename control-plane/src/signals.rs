//! Signals between the parts: hints that something may be due or has changed. A hint may be lost or
//! repeated; the store stays the only truth.

use std::{
    collections::{HashMap, HashSet},
    ops::AddAssign,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countersign_shared::{class::FailureClass, name::DestinationName, time::Timestamp};
use tokio::sync::{Notify, broadcast};

use crate::model::{DestinationKey, Evidence, Shown};

/// What the dispatcher should look at.
#[derive(Debug, Default)]
pub struct Hints {
    /// When each destination's next delivery may be due.
    pub due: HashMap<DestinationKey, Timestamp>,
    /// The leases of each destination that have ended.
    pub ended: HashMap<DestinationKey, Ended>,
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

/// How deliveries to a destination flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// What is in the way.
    pub state: FlowState,
    /// How many attempts in a row found the receiver unreachable, silent or in trouble.
    pub failures_in_a_row: u32,
}

/// What is in the way of a destination's deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowState {
    /// Nothing.
    #[default]
    Open,
    /// The receiver asked for a pause until then.
    Paused(Timestamp),
    /// Most attempts fail: one goes out then.
    Probing(Timestamp),
}

/// How deliveries flow, as the dispatcher says: one entry for each destination where something is in the
/// way, or was lately.
#[derive(Debug, Default)]
pub struct Flows(Mutex<HashMap<DestinationKey, Flow>>);

impl Flows {
    /// Deliveries to `destination` flow so.
    pub fn say(&self, destination: DestinationKey, flow: Flow) {
        let mut flows = locked(&self.0);
        if flow == Flow::default() {
            flows.remove(&destination);
        } else {
            flows.insert(destination, flow);
        }
    }

    /// How deliveries to `destination` flow.
    pub fn of(&self, destination: DestinationKey) -> Flow {
        let flows = locked(&self.0);
        flows.get(&destination).copied().unwrap_or_default()
    }
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

    /// Leases of `destination` have ended.
    pub fn lease_ended(&self, destination: DestinationKey, ended: Ended) {
        *self.lock().ended.entry(destination).or_default() += ended;
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

/// Wakes somebody who looks at everything now and then, so that it is now.
#[derive(Debug, Default)]
pub struct Poke(Notify);

impl Poke {
    /// There is something to do.
    pub fn poke(&self) {
        self.0.notify_one();
    }

    /// Waits for the next poke; one that came since the last call counts.
    pub async fn wait(&self) {
        self.0.notified().await;
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

/// What attempts showed of receivers, for those who judge it. Only changes are passed on, and of each
/// destination only the newest, so that a busy one costs a look-up and no more.
#[derive(Debug, Default)]
pub struct Observations {
    last: Mutex<HashMap<DestinationKey, Evidence>>,
    observers: Mutex<Vec<Arc<Changed>>>,
}

/// One who judges: gets every change since it began to observe.
#[derive(Debug)]
pub struct Observer(Arc<Changed>);

#[derive(Debug, Default)]
struct Changed {
    evidence: Mutex<HashMap<DestinationKey, Evidence>>,
    notify: Notify,
}

impl Observations {
    /// Observes from now on.
    pub fn observe(&self) -> Observer {
        let changed = Arc::<Changed>::default();
        locked(&self.observers).push(Arc::clone(&changed));
        Observer(changed)
    }

    /// An attempt at `destination` has ended.
    pub fn note(&self, destination: DestinationKey, shown: Shown) {
        let evidence = {
            let mut last = locked(&self.last);
            let before = last.get(&destination);
            let evidence = Evidence::after(destination, shown, before);
            // A success counts once; in a row matters for failures alone.
            let gone = shown.class == FailureClass::HttpGone;
            let same =
                |before: &Evidence| before.shown == shown && before.in_a_row == evidence.in_a_row;
            // Every 410 counts: the destination may have been enabled again in between. So does every
            // refusal of a certificate: it may have been put back, and presented again, in between.
            if !gone && shown.refused.is_none() && before.is_some_and(same) {
                return;
            }
            last.insert(destination, evidence);
            evidence
        };
        for observer in locked(&self.observers).iter() {
            locked(&observer.evidence).insert(destination, evidence);
            observer.notify.notify_one();
        }
    }
}

impl Observer {
    /// Waits for changes and takes them.
    pub async fn next(&mut self) -> Vec<Evidence> {
        loop {
            let changed = std::mem::take(&mut *locked(&self.0.evidence));
            if !changed.is_empty() {
                return changed.into_values().collect();
            }
            self.0.notify.notified().await;
        }
    }
}

/// Entries are whole or not there; a panic elsewhere leaves none half made.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which destinations may have got dead letters, or have none any more.
#[derive(Debug, Default)]
pub struct DeadLetters {
    changed: Mutex<HashSet<DestinationKey>>,
    notify: Notify,
}

impl DeadLetters {
    /// Those of `destination` have changed.
    pub fn changed(&self, destination: DestinationKey) {
        locked(&self.changed).insert(destination);
        self.notify.notify_one();
    }

    /// Waits for destinations whose dead letters have changed, and takes them.
    pub async fn next(&self) -> HashSet<DestinationKey> {
        loop {
            let taken = std::mem::take(&mut *locked(&self.changed));
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }
}

/// Which destinations hold deliveries, as far as attempts since the start have shown, and which of them
/// are to release theirs. At most one entry for each destination.
#[derive(Debug, Default)]
pub struct Holds {
    known: Mutex<Known>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// The class that holds, or `None` after an answer.
    held: HashMap<DestinationKey, Option<FailureClass>>,
    to_release: HashSet<DestinationKey>,
}

impl Holds {
    /// An attempt at `destination` has ended. The first answer after a refusal releases what is held,
    /// and so does the first since the start, when nothing is known of what came before it.
    pub fn note(&self, destination: DestinationKey, class: FailureClass) {
        if class.holds() {
            self.lock().held.insert(destination, Some(class));
        } else if class.is_answer() {
            let before = self.lock().held.insert(destination, None);
            if before != Some(None) {
                self.release(destination);
            }
        }
    }

    /// The class of the newest attempt at `destination` that tells anything, if it is one that holds.
    pub fn held(&self, destination: DestinationKey) -> Option<FailureClass> {
        self.lock().held.get(&destination).copied().flatten()
    }

    /// The cause may be gone: the deliveries of `destination` that are held are released at once. To be
    /// called whenever its configuration or its certificates change, or a probe has succeeded; when
    /// nothing is held it does nothing. Until an attempt shows that the cause is gone, they still go
    /// one at a time.
    pub fn release(&self, destination: DestinationKey) {
        self.lock().to_release.insert(destination);
        self.notify.notify_one();
    }

    /// Waits for destinations that are to release what they hold, and takes them.
    pub async fn to_release(&self) -> HashSet<DestinationKey> {
        loop {
            let taken = std::mem::take(&mut self.lock().to_release);
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }

    /// Entries are whole or not there; a panic elsewhere leaves none half made.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(class: FailureClass) -> Shown {
        Shown {
            class,
            certificate_requested: Some(true),
            server_not_after: None,
            presented: Some(1),
            kept_back: false,
            refused: None,
        }
    }

    fn asked(holds: &Holds) -> Vec<DestinationKey> {
        std::mem::take(&mut holds.lock().to_release)
            .into_iter()
            .collect()
    }

    #[tokio::test]
    async fn an_answer_after_a_refusal_releases_once() {
        use FailureClass as Class;
        let (holds, key) = (Holds::default(), DestinationKey(1));
        holds.note(key, Class::Delivered);
        assert_eq!(asked(&holds), [key], "who knows what was before the start");
        holds.note(key, Class::HttpServerError);
        assert_eq!(asked(&holds), []);
        holds.note(key, Class::ClientCaNotTrusted);
        holds.note(key, Class::ConnectionRefused);
        let held = holds.held(key);
        assert_eq!(
            held,
            Some(Class::ClientCaNotTrusted),
            "a receiver that is down proves nothing"
        );
        assert_eq!(asked(&holds), []);
        holds.note(key, Class::HttpServerError);
        assert_eq!(holds.held(key), None);
        assert_eq!(holds.to_release().await, HashSet::from([key]));
    }

    #[tokio::test]
    async fn asking_for_a_release_does_not_say_that_the_cause_is_gone() {
        let (holds, key) = (Holds::default(), DestinationKey(1));
        holds.note(key, FailureClass::EgressDenied);
        holds.release(key);
        assert_eq!(holds.to_release().await, HashSet::from([key]));
        assert_eq!(holds.held(key), Some(FailureClass::EgressDenied));
    }

    #[tokio::test]
    async fn only_changes_are_passed_on_and_repeats_are_counted() {
        let observations = Observations::default();
        let mut observer = observations.observe();
        let key = DestinationKey(1);
        for _ in 0..5 {
            observations.note(key, shown(FailureClass::Delivered));
        }
        assert_eq!(observer.next().await[0].in_a_row, Evidence::COUNTED);
        observations.note(key, shown(FailureClass::Delivered));
        observations.note(DestinationKey(2), shown(FailureClass::HttpGone));
        let changed = observer.next().await;
        assert_eq!(changed.len(), 1, "the first is as it was: {changed:?}");

        let refused = Some((2, FailureClass::ClientCaNotTrusted));
        let covered = Shown {
            refused,
            ..shown(FailureClass::Delivered)
        };
        observations.note(key, covered);
        for _ in 0..5 {
            assert_eq!(observer.next().await[0].shown.refused, refused);
            observations.note(key, covered);
        }
        let with_the_new_one = Shown {
            presented: Some(2),
            ..shown(FailureClass::Delivered)
        };
        observations.note(key, with_the_new_one);
        assert_eq!(observer.next().await[0].shown.presented, Some(2));
    }
}
