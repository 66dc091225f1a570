//! How fast a destination may be given deliveries: its rate limit, a pause that its receiver asked for,
//! and a circuit breaker. Pure state; the time is a parameter.
//!
//! The breaker opens when [`THRESHOLD`] attempts in a row found the receiver unreachable, silent or in
//! trouble. Then one delivery at a time goes out, after waits that grow, and the first that is answered
//! closes it. What waits meanwhile loses no attempt.

use std::time::Duration;

use countersign_shared::time::Timestamp;

use crate::signals::{Ended, Flow, FlowState};

/// So many failures in a row are no accident.
const THRESHOLD: u32 = 10;
/// The first wait and the longest while the breaker is open.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Longest pause of a whole destination that a receiver can ask for.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// A rate limit allows at once what it allows in this share of a second.
const BURST: f64 = 0.1;

/// What may go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// So many.
    Some(usize),
    /// Nothing before then.
    From(Timestamp),
}

/// One destination's pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bucket: Option<Bucket>,
    paused_until: Option<Timestamp>,
    failures: u32,
    open: Option<Open>,
}

/// Tokens of the rate limit.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// The breaker is open.
#[derive(Debug, Clone, Copy)]
struct Open {
    probe_at: Timestamp,
    wait: Duration,
}

impl Pace {
    /// What may go out at `now` under a limit of `rate` a second.
    pub(super) fn allowed(&mut self, now: Timestamp, rate: Option<u32>) -> Allowed {
        let probe_at = self.open.map(|open| open.probe_at);
        let waits = [self.paused_until, probe_at].into_iter().flatten();
        if let Some(until) = waits.max().filter(|until| *until > now) {
            return Allowed::From(until);
        }
        self.paused_until = None;
        let tokens = match rate {
            None => {
                self.bucket = None;
                Allowed::Some(usize::MAX)
            }
            Some(rate) => self.tokens(now, f64::from(rate)),
        };
        match (tokens, self.open) {
            (Allowed::Some(_), Some(_)) => Allowed::Some(1),
            (tokens, _) => tokens,
        }
    }

    fn tokens(&mut self, now: Timestamp, rate: f64) -> Allowed {
        let most = (rate * BURST).max(1.0);
        let tokens = match self.bucket {
            None => most,
            Some(before) => {
                let more = now.since(before.at).as_secs_f64() * rate;
                (before.tokens + more).min(most)
            }
        };
        self.bucket = Some(Bucket { tokens, at: now });
        // Times are in microseconds: what is missing by less than one is there.
        match tokens + 1e-6 * rate >= 1.0 {
            true => Allowed::Some(tokens.max(1.0) as usize),
            false => Allowed::From(now.plus(Duration::from_secs_f64((1.0 - tokens) / rate))),
        }
    }

    /// So many go out now.
    pub(super) fn took(&mut self, now: Timestamp, count: usize) {
        if count == 0 {
            return;
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.tokens = (bucket.tokens - count as f64).max(0.0);
        }
        // The next probe, should nobody tell of this one. Its outcome sets the time anew.
        if let Some(open) = &mut self.open {
            open.probe_at = now.plus(WAIT.1);
        }
    }

    /// Attempts have ended.
    pub(super) fn ended(&mut self, now: Timestamp, ended: Ended) {
        if let Some(pause) = ended.pause {
            let until = now.plus(pause.min(MAX_PAUSE));
            self.paused_until = self.paused_until.max(Some(until));
        }
        if ended.answered > 0 {
            (self.failures, self.open) = (0, None);
            return;
        }
        let failed = u32::try_from(ended.failed).unwrap_or(u32::MAX);
        if failed == 0 {
            // A probe that was given back, or held, says nothing of the receiver.
            if let Some(open) = &mut self.open {
                open.probe_at = now.plus(open.wait);
            }
            return;
        }
        self.failures = self.failures.saturating_add(failed);
        if self.failures >= THRESHOLD {
            let wait = self.open.map_or(WAIT.0, |open| (2 * open.wait).min(WAIT.1));
            let probe_at = now.plus(wait);
            self.open = Some(Open { probe_at, wait });
        }
    }

    /// How deliveries flow at `now`, for people.
    pub(super) fn flow(&self, now: Timestamp) -> Flow {
        let state = match (self.paused_until, self.open) {
            (Some(until), None) if until > now => FlowState::Paused(until),
            (_, Some(open)) => FlowState::Probing(open.probe_at),
            _ => FlowState::Open,
        };
        Flow {
            state,
            failures_in_a_row: self.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_micros(1_000_000_000 + millis * 1000)
    }

    fn failed(failed: usize) -> Ended {
        Ended {
            count: failed,
            failed,
            ..Ended::default()
        }
    }

    fn answered() -> Ended {
        Ended {
            count: 1,
            answered: 1,
            ..Ended::default()
        }
    }

    #[test]
    fn nothing_is_in_the_way_at_first() {
        let mut pace = Pace::default();
        assert_eq!(pace.allowed(at(0), None), Allowed::Some(usize::MAX));
        assert_eq!(pace.flow(at(0)).state, FlowState::Open);
    }

    #[test]
    fn a_slow_limit_gives_one_at_a_time_on_the_dot() {
        let mut pace = Pace::default();
        assert_eq!(pace.allowed(at(0), Some(4)), Allowed::Some(1));
        pace.took(at(0), 1);
        assert_eq!(pace.allowed(at(0), Some(4)), Allowed::From(at(250)));
        assert_eq!(pace.allowed(at(249), Some(4)), Allowed::From(at(250)));
        assert_eq!(pace.allowed(at(250), Some(4)), Allowed::Some(1));
    }

    #[test]
    fn a_breaker_opens_probes_ever_more_rarely_and_closes_at_the_first_answer() {
        let mut pace = Pace::default();
        pace.ended(at(0), failed(9));
        assert_eq!(pace.allowed(at(0), None), Allowed::Some(usize::MAX));
        pace.ended(at(0), failed(1));
        let mut now = at(0);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let next = now.plus(Duration::from_secs(seconds));
            assert_eq!(pace.allowed(now, None), Allowed::From(next));
            assert_eq!(pace.flow(now).state, FlowState::Probing(next));
            now = next;
            assert_eq!(pace.allowed(now, None), Allowed::Some(1));
            pace.took(now, 1);
            assert!(matches!(pace.allowed(now, None), Allowed::From(_)), "one");
            pace.ended(now, failed(1));
        }
        assert_eq!(pace.flow(now).failures_in_a_row, 21);
        pace.ended(now, answered());
        assert_eq!(pace.allowed(now, None), Allowed::Some(usize::MAX));
        assert_eq!(pace.flow(now).failures_in_a_row, 0);
    }

    #[test]
    fn a_probe_that_nobody_tells_of_is_followed_by_another() {
        let mut pace = Pace::default();
        pace.ended(at(0), failed(THRESHOLD as usize));
        pace.took(at(1000), 1);
        let next = at(1000).plus(WAIT.1);
        assert_eq!(pace.allowed(at(2000), None), Allowed::From(next));
        assert_eq!(pace.allowed(next, None), Allowed::Some(1));
    }

    #[test]
    fn a_probe_that_was_given_back_is_followed_by_another_soon() {
        let mut pace = Pace::default();
        pace.ended(at(0), failed(THRESHOLD as usize));
        pace.took(at(1000), 1);
        pace.ended(at(1100), Ended::one());
        assert_eq!(pace.allowed(at(1100), None), Allowed::From(at(2100)));
        assert_eq!(pace.allowed(at(2100), None), Allowed::Some(1));
    }

    #[test]
    fn a_pause_holds_everything_and_is_bounded() {
        let mut pace = Pace::default();
        let asks = |seconds| Ended {
            count: 1,
            answered: 1,
            pause: Some(Duration::from_secs(seconds)),
            ..Ended::default()
        };
        pace.ended(at(0), asks(20));
        pace.ended(at(0), asks(5));
        assert_eq!(pace.allowed(at(0), None), Allowed::From(at(20_000)));
        assert_eq!(pace.flow(at(0)).state, FlowState::Paused(at(20_000)));
        pace.ended(at(1), answered());
        assert_eq!(pace.allowed(at(19_999), None), Allowed::From(at(20_000)));
        assert_eq!(pace.allowed(at(20_000), None), Allowed::Some(usize::MAX));
        pace.ended(at(0), asks(1_000_000));
        assert_eq!(pace.allowed(at(0), None), Allowed::From(at(3_600_000)));
    }

    proptest! {
        #[test]
        fn a_limit_holds_over_every_time_and_is_used_up(
            rate in 1_u32..5000, wants in proptest::collection::vec((0_i64..400, 0_usize..600), 1..60),
        ) {
            let mut pace = Pace::default();
            let (mut now, mut given) = (0, 0);
            for (pause, want) in wants {
                now += pause;
                match pace.allowed(at(now), Some(rate)) {
                    Allowed::Some(most) => {
                        let taken = want.min(most);
                        pace.took(at(now), taken);
                        given += taken;
                    }
                    Allowed::From(next) => prop_assert!(next > at(now)),
                }
                let elapsed = now as f64 / 1000.0;
                let burst = (f64::from(rate) * BURST).max(1.0);
                prop_assert!(given as f64 <= elapsed * f64::from(rate) + burst + 0.01);
            }
        }
    }
}
