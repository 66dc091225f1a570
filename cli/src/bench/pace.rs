//! When which delivery is due, and to which destination it goes. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Deliveries go to the destinations in turn; each stream takes every `streams`-th.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Deliveries per second, of all streams together; 0 when nothing is waited for.
    pub(crate) rate: u32,
    /// How long to submit.
    pub(crate) duration: Duration,
}

impl Pace {
    /// When delivery `index` is due, after the start; `None` when it is after the end. `elapsed` is
    /// the time since the start.
    pub(crate) fn due(&self, index: u64, elapsed: Duration) -> Option<Duration> {
        let due = match self.rate {
            0 => elapsed,
            rate => Duration::from_nanos(
                u64::try_from(u128::from(index) * 1_000_000_000 / u128::from(rate))
                    .unwrap_or(u64::MAX),
            ),
        };
        (due < self.duration).then_some(due)
    }
}

/// What a destination does with deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Answers at once.
    Live,
    /// Takes the request and never answers.
    Slow,
    /// Refuses the connection.
    Dead,
}

/// The kinds of `count` destinations, of which these shares, rounded, are slow and dead; together
/// they are `count` at most.
pub(crate) fn kinds(count: u32, slow_share: f64, dead_share: f64) -> Vec<Kind> {
    let count = count as usize;
    let slow = number(count, slow_share);
    let not_live = (slow + number(count, dead_share)).min(count);
    let kind = |index| match index {
        index if index < slow => Kind::Slow,
        index if index < not_live => Kind::Dead,
        _ => Kind::Live,
    };
    (0..count).map(kind).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // of 0 to `count`
fn number(count: usize, share: f64) -> usize {
    (count as f64 * share.clamp(0.0, 1.0)).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spreads_deliveries_evenly_up_to_the_end() {
        let pace = Pace {
            rate: 1000,
            duration: Duration::from_secs(2),
        };
        let late = Duration::from_secs(60);
        assert_eq!(pace.due(0, late), Some(Duration::ZERO));
        assert_eq!(pace.due(1500, late), Some(Duration::from_millis(1500)));
        assert!(pace.due(1999, late).is_some());
        assert_eq!(pace.due(2000, late), None);
        assert_eq!(pace.due(u64::MAX, late), None);
    }

    #[test]
    fn full_speed_goes_by_the_clock_alone() {
        let pace = Pace {
            rate: 0,
            duration: Duration::from_secs(2),
        };
        let now = Duration::from_millis(1999);
        assert_eq!(pace.due(1 << 40, now), Some(now));
        assert_eq!(pace.due(0, Duration::from_secs(2)), None);
    }

    #[test]
    fn shares_are_of_the_destinations() {
        let count = |kinds: &[Kind], kind| kinds.iter().filter(|found| **found == kind).count();
        let mixed = kinds(100, 0.1, 0.05);
        assert_eq!(count(&mixed, Kind::Slow), 10);
        assert_eq!(count(&mixed, Kind::Dead), 5);
        assert_eq!(count(&mixed, Kind::Live), 85);
        assert_eq!(count(&kinds(3, 0.0, 0.0), Kind::Live), 3);
        // Both rounded up.
        let halves = kinds(3, 0.5, 0.5);
        assert_eq!((halves.len(), count(&halves, Kind::Live)), (3, 0));
    }
}
