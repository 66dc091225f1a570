//! Where the queue of each destination begins. What was taken from `due` stays in the server's index until it is
//! vacuumed, and whoever looks for the first that waits walks over all of it: the longer, the more is delivered. So a
//! look begins where the last one ended, a little before, and only now and then at the very beginning: hardly anything
//! becomes due in the past.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use countersign_shared::time::Timestamp;

use crate::model::DestinationKey;

/// How far before what was taken last a look begins: longer than a commit takes that others make meanwhile.
const MARGIN: Duration = Duration::from_secs(1);
/// How often a look begins at the very beginning: so long can what is even older wait.
const WHOLE: Duration = Duration::from_secs(5);
/// How many destinations are remembered, at some 50 bytes each, before all are forgotten.
const MOST: usize = 100_000;

/// What is remembered of a destination.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// When what was taken last was due.
    taken: Timestamp,
    /// The last look from the very beginning.
    whole: Timestamp,
}

/// Where a look begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// What is due from then on.
    pub(super) since: Timestamp,
    /// When to look from the very beginning; `None` when this does.
    pub(super) whole_at: Option<Timestamp>,
}

/// What is remembered.
#[derive(Default)]
pub(super) struct Heads(RefCell<HashMap<DestinationKey, Head>>);

impl Heads {
    /// Where to look for what waits at a destination, at `now`.
    pub(super) fn look(&self, destination: DestinationKey, now: Timestamp) -> Look {
        let mut heads = self.0.borrow_mut();
        let head = heads.get_mut(&destination);
        // A clock that was set back would otherwise put the next look off.
        match head {
            Some(head) if head.whole <= now && now < head.whole.plus(WHOLE) => Look {
                since: head.taken.minus(MARGIN),
                whole_at: Some(head.whole.plus(WHOLE)),
            },
            head => {
                if let Some(head) = head {
                    head.whole = now;
                }
                Look {
                    since: Timestamp::from_unix_micros(i64::MIN),
                    whole_at: None,
                }
            }
        }
    }

    /// All that was due before `taken`, and found by the look, is taken.
    pub(super) fn took(&self, destination: DestinationKey, taken: Timestamp, now: Timestamp) {
        let mut heads = self.0.borrow_mut();
        if let Some(head) = heads.get_mut(&destination) {
            head.taken = taken;
            return;
        }
        if heads.len() >= MOST {
            heads.clear();
        }
        heads.insert(destination, Head { taken, whole: now });
    }

    /// Forgets all: what was taken was put back, or another server has taken over.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    const WHOLE_LOOK: Look = Look {
        since: Timestamp::from_unix_micros(i64::MIN),
        whole_at: None,
    };

    #[test]
    fn a_look_begins_where_the_last_one_ended_and_now_and_then_at_the_beginning() {
        let (heads, here) = (Heads::default(), DestinationKey(1));
        assert_eq!(heads.look(here, at(100)), WHOLE_LOOK, "nothing is known");
        heads.took(here, at(99), at(100));
        let from = |since, whole| Look {
            since: at(since),
            whole_at: Some(at(whole)),
        };
        assert_eq!(heads.look(here, at(101)), from(98, 105));
        heads.took(here, at(101), at(101));
        assert_eq!(heads.look(here, at(104)), from(100, 105));
        assert_eq!(heads.look(here, at(105)), WHOLE_LOOK);
        assert_eq!(heads.look(here, at(106)), from(100, 110));
        assert_eq!(heads.look(DestinationKey(2), at(106)), WHOLE_LOOK);
        assert_eq!(
            heads.look(here, at(50)),
            WHOLE_LOOK,
            "the clock was set back"
        );
        heads.forget();
        assert_eq!(heads.look(here, at(51)), WHOLE_LOOK);
    }
}
