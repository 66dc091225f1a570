//! How many leases of a destination are out: bounds what a slow one can take of the agents' credit.
//!
//! A lease that ends without a word (its agent died) drops out when its time is over, so the count
//! heals by itself.

use std::collections::VecDeque;

use countersign_shared::time::Timestamp;

/// Leases of one destination that are out, in batches with one end each.
#[derive(Debug, Default)]
pub(super) struct Window {
    batches: VecDeque<(Timestamp, usize)>,
}

impl Window {
    /// `count` leases were given until `until`.
    pub(super) fn opened(&mut self, until: Timestamp, count: usize) {
        if count > 0 {
            self.batches.push_back((until, count));
        }
    }

    /// `count` leases have ended; they are taken to be the oldest.
    pub(super) fn ended(&mut self, mut count: usize) {
        while let Some((_, open)) = self.batches.front_mut() {
            if *open > count {
                *open -= count;
                return;
            }
            count -= *open;
            self.batches.pop_front();
        }
    }

    /// How many are out at `now`.
    pub(super) fn open(&mut self, now: Timestamp) -> usize {
        while self.batches.front().is_some_and(|(until, _)| *until <= now) {
            self.batches.pop_front();
        }
        self.batches.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_ends_runs_out() {
        let at = Timestamp::from_unix_seconds;
        let mut window = Window::default();
        window.opened(at(10), 5);
        window.opened(at(20), 3);
        window.ended(2);
        assert_eq!(window.open(at(0)), 6);
        window.ended(4);
        assert_eq!(window.open(at(0)), 2);
        assert_eq!(window.open(at(20)), 0);
        window.ended(9);
        assert_eq!(window.open(at(0)), 0);
    }
}
