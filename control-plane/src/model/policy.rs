//! How a destination's deliveries are attempted: when again after a failure, until when, how many a
//! second.

use std::time::Duration;

use countersign_shared::time::Timestamp;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// How long after each failed attempt the next one is due, where nothing else is said; after the last
/// there is none. The example schedule of the Standard Webhooks specification, about 27 hours in all.
pub const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    minutes(5),
    minutes(30),
    minutes(2 * 60),
    minutes(5 * 60),
    minutes(10 * 60),
    minutes(10 * 60),
];
/// Most waits of a schedule, and most retries of a backoff.
pub const MAX_RETRIES: usize = 32;
/// The shortest and the longest wait.
pub const WAIT: (Duration, Duration) = (Duration::from_secs(1), minutes(7 * 24 * 60));
/// The shortest and the longest deadline.
pub const DEADLINE: (Duration, Duration) = (Duration::from_secs(1), minutes(30 * 24 * 60));
/// The smallest and the largest factor of a backoff, in thousandths.
pub const FACTOR: (u32, u32) = (1_000, 10_000);
/// The shortest and the longest time for which an agent may go on alone.
pub const MAX_OFFLINE: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(7 * 24 * 3600));
/// Most attempts a second that a limit can allow.
pub const MAX_RATE: u32 = 100_000;

/// When a failed delivery is attempted again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Waits {
    /// After [`SCHEDULE`].
    #[default]
    Standard,
    /// After these, at most [`MAX_RETRIES`]; none: never.
    Schedule(Vec<Duration>),
    /// After waits that grow.
    Backoff(Backoff),
}

/// Waits that grow by a factor up to a longest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first attempt.
    pub first: Duration,
    /// How much longer each is than the one before, in thousandths.
    pub factor: u32,
    /// No wait is longer.
    pub longest: Duration,
    /// How many retries there are; at most [`MAX_RETRIES`].
    pub retries: usize,
}

impl Waits {
    /// The wait after an attempt that failed, when `failed_before` others had; `None`: no more.
    pub fn after(&self, failed_before: usize) -> Option<Duration> {
        match self {
            Self::Standard => SCHEDULE.get(failed_before).copied(),
            Self::Schedule(waits) => waits.get(failed_before).copied(),
            Self::Backoff(backoff) => backoff.after(failed_before),
        }
    }
}

impl Backoff {
    fn after(&self, failed_before: usize) -> Option<Duration> {
        if failed_before >= self.retries {
            return None;
        }
        let grown = |wait: Duration, _| {
            let longer = wait.checked_mul(self.factor).map(|wait| wait / FACTOR.0);
            longer.map_or(self.longest, |wait| wait.min(self.longest))
        };
        Some((0..failed_before).fold(self.first.min(self.longest), grown))
    }
}

/// When a failed delivery is attempted again, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryPolicy {
    /// After which waits.
    pub waits: Waits,
    /// How long after its acceptance an attempt may still begin; `None`: as long as there are waits.
    pub deadline: Option<Duration>,
}

impl RetryPolicy {
    /// Whether an attempt may begin at `at` of what was accepted at `accepted_at`.
    pub fn allows(&self, accepted_at: Timestamp, at: Timestamp) -> bool {
        self.deadline
            .is_none_or(|deadline| at <= accepted_at.plus(deadline))
    }
}

/// How a destination's deliveries are attempted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryPolicy {
    /// After a failure.
    pub retry: RetryPolicy,
    /// How many attempts may begin in a second, at most [`MAX_RATE`]; `None`: as many as there are.
    pub rate_limit: Option<u32>,
    /// How long an agent that is cut off goes on with what it holds, within [`MAX_OFFLINE`]; `None`: within a lease of the
    /// usual length.
    pub max_offline: Option<Duration>,
}

impl DeliveryPolicy {
    /// How long a lease lasts, where it usually lasts for `usual`.
    pub fn lease(&self, usual: Duration) -> Duration {
        self.max_offline.map_or(usual, |offline| offline.max(usual))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backoff_grows_to_its_longest_and_ends() {
        let waits = Waits::Backoff(Backoff {
            first: Duration::from_secs(2),
            factor: 2_500,
            longest: Duration::from_secs(30),
            retries: 5,
        });
        let seconds: Vec<_> = (0..6)
            .map(|failed| waits.after(failed).map(|wait| wait.as_secs_f64()))
            .collect();
        let expected = [
            Some(2.0),
            Some(5.0),
            Some(12.5),
            Some(30.0),
            Some(30.0),
            None,
        ];
        assert_eq!(seconds, expected);
    }

    proptest! {
        #[test]
        fn a_backoff_never_shrinks_or_leaves_its_bounds(
            first in 1_u64..604_800, factor in FACTOR.0..=FACTOR.1, longest in 1_u64..604_800,
            retries in 0..=MAX_RETRIES,
        ) {
            let backoff = Backoff {
                first: Duration::from_secs(first),
                factor,
                longest: Duration::from_secs(longest),
                retries,
            };
            let waits: Vec<_> = (0..).map_while(|failed| backoff.after(failed)).collect();
            prop_assert_eq!(waits.len(), retries);
            prop_assert!(waits.is_sorted());
            prop_assert!(waits.iter().all(|wait| *wait <= backoff.longest && !wait.is_zero()));
        }
    }
}
