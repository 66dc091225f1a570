//! Chance with a seed, so that a year that went wrong can be lived again. (Serial numbers, and with
//! them the moments of renewals, stay random.)

use std::time::Duration;

use countersign_shared::time::Timestamp;

/// Stretches of time, each from its start until before its end.
pub(super) type Spans = Vec<(Timestamp, Timestamp)>;

/// Whether `at` lies within one of them.
pub(super) fn within(spans: &Spans, at: Timestamp) -> bool {
    spans.iter().any(|(from, until)| *from <= at && at < *until)
}

/// SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap();
        usize::try_from(self.roll() % end).unwrap()
    }

    /// True this often in a hundred.
    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// A time between two.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let share = self.below(1 << 20) as f64 / f64::from(1 << 20);
        least + (most.saturating_sub(least)).mul_f64(share)
    }

    /// `count` stretches that begin within `within` after `start`.
    pub(super) fn spans(
        &mut self,
        count: usize,
        start: Timestamp,
        within: Duration,
        (least, most): (Duration, Duration),
    ) -> Spans {
        let mut one = || {
            let from = start.plus(self.between(Duration::ZERO, within));
            (from, from.plus(self.between(least, most)))
        };
        (0..count).map(|_| one()).collect()
    }
}
