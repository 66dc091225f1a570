//! How many leases of a destination may be out: bounds what a slow one can take of the agents' credit.
//!
//! It begins small and grows like the congestion window of a TCP connection (RFC 5681 section 3.1): by
//! one for each lease that ends while the window is what limits, up to what the destination's
//! concurrency can use. So a destination that answers soon has what it can use after a few round trips,
//! and one that hangs never gets more than a few; one that begins to hang falls back to the start.
//!
//! A lease that ends without a word (its agent died) drops out when its time is over, so the count
//! heals by itself. A lease can last for days, so that an agent goes on while it is cut off: those of an
//! agent that is not connected drop out after the usual time, or nobody else would get anything.

use std::{collections::VecDeque, time::Duration};

use countersign_shared::{name::AgentName, time::Timestamp};

use crate::signals::Ended;

/// How many leases may be out of a destination of which nothing is known.
const START: usize = 8;

/// Leases that were given at once, to one agent.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) agent: AgentName,
    pub(super) count: usize,
    pub(super) until: Timestamp,
    /// When they no longer count if the agent is not connected then.
    pub(super) counts_until: Timestamp,
}

impl Batch {
    /// Leases that last for `lasts` from `now`, where they usually do for `usual`.
    pub(super) fn new(
        agent: &AgentName,
        count: usize,
        now: Timestamp,
        lasts: Duration,
        usual: Duration,
    ) -> Self {
        Self {
            agent: agent.clone(),
            count,
            until: now.plus(lasts),
            counts_until: now.plus(usual.min(lasts)),
        }
    }
}

/// Leases of one destination that are out, in batches with one end each, and how many may be.
#[derive(Debug)]
pub(super) struct Window {
    batches: VecDeque<Batch>,
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
    /// Leases were given.
    pub(super) fn opened(&mut self, batch: Batch) {
        if batch.count > 0 {
            self.batches.push_back(batch);
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
        while let Some(batch) = self.batches.front_mut() {
            if batch.count > count {
                batch.count -= count;
                return;
            }
            count -= batch.count;
            self.batches.pop_front();
        }
    }

    /// How many more of the `wanted` can be leased at `now`, where no more than `most` can be used.
    pub(super) fn room(
        &mut self,
        now: Timestamp,
        wanted: usize,
        most: usize,
        is_connected: impl Fn(&AgentName) -> bool,
    ) -> usize {
        self.size = self.size.min(most.max(START));
        let open = self.open(now, is_connected);
        let room = self.size.min(most).saturating_sub(open);
        self.limits = room < wanted && self.size < most;
        room.min(wanted)
    }

    /// How many are out at `now`.
    fn open(&mut self, now: Timestamp, is_connected: impl Fn(&AgentName) -> bool) -> usize {
        while self.batches.front().is_some_and(|it| it.until <= now) {
            self.batches.pop_front();
        }
        let counts = |it: &&Batch| it.counts_until > now || is_connected(&it.agent);
        let open = self.batches.iter().filter(counts);
        open.map(|it| it.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 128;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn agent() -> AgentName {
        countersign_shared::name::Id::chosen("edge").unwrap().into()
    }

    /// Leases until then, of the usual length.
    fn batch(until: i64, count: usize) -> Batch {
        Batch {
            agent: agent(),
            count,
            until: at(until),
            counts_until: at(until),
        }
    }

    fn nobody(_: &AgentName) -> bool {
        false
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
        window.opened(batch(10, 5));
        window.opened(batch(20, 3));
        window.ended(ended(2));
        assert_eq!(window.open(at(0), nobody), 6);
        window.ended(ended(4));
        assert_eq!(window.open(at(0), nobody), 2);
        assert_eq!(window.open(at(20), nobody), 0);
        window.ended(ended(9));
        assert_eq!(window.open(at(0), nobody), 0);
    }

    /// Leases all there is room for, again and again, and ends it at once.
    fn served(window: &mut Window, rounds: usize, wanted: usize) -> usize {
        for _ in 0..rounds {
            let room = window.room(at(0), wanted, MOST, nobody);
            window.opened(batch(60, room));
            window.ended(ended(room));
        }
        window.room(at(0), usize::MAX, MOST, nobody)
    }

    #[test]
    fn one_that_answers_soon_has_all_it_can_use_after_a_few_rounds() {
        let mut window = Window::default();
        assert_eq!(window.room(at(0), 1000, MOST, nobody), START);
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
            let room = window.room(at(0), 1000, MOST, nobody);
            window.opened(batch(60, room));
            out += room;
        }
        assert_eq!(out, START);
    }

    #[test]
    fn one_that_begins_to_hang_falls_back() {
        let mut window = Window::default();
        served(&mut window, 9, 1000);
        window.opened(batch(60, MOST));
        let late = Ended {
            count: MOST,
            timed_out: 1,
            ..Ended::default()
        };
        window.ended(late);
        assert_eq!(window.room(at(0), 1000, MOST, nobody), START);
    }

    #[test]
    fn a_limit_below_the_start_is_kept() {
        let mut window = Window::default();
        assert_eq!(window.room(at(0), 1000, 2, nobody), 2);
        window.opened(batch(60, 2));
        assert_eq!(window.room(at(0), 1000, 2, nobody), 0);
    }

    #[test]
    fn an_agent_that_is_away_holds_nobody_up_for_longer_than_usual() {
        let (day, usual) = (Duration::from_secs(86_400), Duration::from_secs(90));
        let mut window = Window::default();
        window.opened(Batch::new(&agent(), 3, at(0), day, usual));
        assert_eq!(window.open(at(89), nobody), 3);
        assert_eq!(window.open(at(90), nobody), 0, "it has gone");
        assert_eq!(window.open(at(90), |_| true), 3, "it is back");
        assert_eq!(window.open(at(86_400), |_| true), 0);
    }
}
