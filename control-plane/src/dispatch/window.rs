//! How many leases of a destination may be out: bounds what a slow one can take of the agents' credit.
//!
//! It begins small and grows like the congestion window of a TCP connection (RFC 5681 section 3.1): by
//! one for each lease that ends while the window is what limits, up to what the destination's
//! concurrency can use. So a destination that answers soon has what it can use after a few round trips,
//! and one that hangs never gets more than a few; one that begins to hang falls back to the start.
//!
//! A lease that ends without a word (its agent died) drops out when its time is over, so the count
//! heals by itself.

use std::collections::VecDeque;

use countersign_shared::time::Timestamp;

use crate::signals::Ended;

/// How many leases may be out of a destination of which nothing is known.
const START: usize = 8;

/// Leases of one destination that are out, in batches with one end each, and how many may be.
#[derive(Debug)]
pub(super) struct Window {
    batches: VecDeque<(Timestamp, usize)>,
    size: usize,
    /// More would have been leased if it were larger.
    limits: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            batches: VecDeque::new(),
            size: START,
            limits: false,
        }
    }
}

impl Window {
    /// `count` leases were given until `until`.
    pub(super) fn opened(&mut self, until: Timestamp, count: usize) {
        if count > 0 {
            self.batches.push_back((until, count));
        }
    }

    /// Leases have ended; they are taken to be the oldest.
    pub(super) fn ended(&mut self, ended: Ended) {
        if ended.timed_out > 0 {
            (self.size, self.limits) = (START, false);
        } else if self.limits {
            self.size = self.size.saturating_add(ended.count);
        }
        let mut count = ended.count;
        while let Some((_, open)) = self.batches.front_mut() {
            if *open > count {
                *open -= count;
                return;
            }
            count -= *open;
            self.batches.pop_front();
        }
    }

    /// How many more of the `wanted` can be leased at `now`, where no more than `most` can be used.
    pub(super) fn room(&mut self, now: Timestamp, wanted: usize, most: usize) -> usize {
        self.size = self.size.min(most.max(START));
        let room = self.size.min(most).saturating_sub(self.open(now));
        self.limits = room < wanted && self.size < most;
        room.min(wanted)
    }

    /// How many are out at `now`.
    fn open(&mut self, now: Timestamp) -> usize {
        while self.batches.front().is_some_and(|(until, _)| *until <= now) {
            self.batches.pop_front();
        }
        self.batches.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 128;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn ended(count: usize) -> Ended {
        Ended {
            count,
            ..Ended::default()
        }
    }

    #[test]
    fn what_nobody_ends_runs_out() {
        let mut window = Window::default();
        window.opened(at(10), 5);
        window.opened(at(20), 3);
        window.ended(ended(2));
        assert_eq!(window.open(at(0)), 6);
        window.ended(ended(4));
        assert_eq!(window.open(at(0)), 2);
        assert_eq!(window.open(at(20)), 0);
        window.ended(ended(9));
        assert_eq!(window.open(at(0)), 0);
    }

    /// Leases all there is room for, again and again, and ends it at once.
    fn served(window: &mut Window, rounds: usize, wanted: usize) -> usize {
        for _ in 0..rounds {
            let room = window.room(at(0), wanted, MOST);
            window.opened(at(60), room);
            window.ended(ended(room));
        }
        window.room(at(0), usize::MAX, MOST)
    }

    #[test]
    fn one_that_answers_soon_has_all_it_can_use_after_a_few_rounds() {
        let mut window = Window::default();
        assert_eq!(window.room(at(0), 1000, MOST), START);
        assert_eq!(served(&mut window, 4, 1000), MOST);
        assert_eq!(served(&mut window, 9, 1000), MOST, "and no more");
    }

    #[test]
    fn one_that_needs_little_keeps_little() {
        let mut window = Window::default();
        assert_eq!(served(&mut window, 100, START - 1), START);
    }

    #[test]
    fn one_that_hangs_never_gets_more_than_the_start() {
        let mut window = Window::default();
        let mut out = 0;
        for _ in 0..100 {
            let room = window.room(at(0), 1000, MOST);
            window.opened(at(60), room);
            out += room;
        }
        assert_eq!(out, START);
    }

    #[test]
    fn one_that_begins_to_hang_falls_back() {
        let mut window = Window::default();
        served(&mut window, 9, 1000);
        window.opened(at(60), MOST);
        let late = Ended {
            count: MOST,
            timed_out: 1,
            ..Ended::default()
        };
        window.ended(late);
        assert_eq!(window.room(at(0), 1000, MOST), START);
    }

    #[test]
    fn a_limit_below_the_start_is_kept() {
        let mut window = Window::default();
        assert_eq!(window.room(at(0), 1000, 2), 2);
        window.opened(at(60), 2);
        assert_eq!(window.room(at(0), 1000, 2), 0);
    }
}
