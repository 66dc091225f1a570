//! What attempts show of receivers, for those who judge it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use countersign_shared::class::FailureClass;
use tokio::sync::Notify;

use super::locked;
use crate::model::{DestinationKey, Evidence, Shown};

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
