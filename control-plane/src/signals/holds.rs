//! What holds deliveries, and when that may be gone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
};

use countersign_shared::class::FailureClass;
use tokio::sync::Notify;

use super::locked;
use crate::model::DestinationKey;

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
        locked(&self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
