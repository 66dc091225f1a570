//! What the generator wants back with an answer, in the one number that the API gives back: when the
//! delivery was due, and where it goes.

use std::time::Duration;

/// Bits of the destination's index.
const DESTINATION_BITS: u32 = 20;
/// How many destinations there can be.
pub(crate) const MAX_DESTINATIONS: u32 = 1 << DESTINATION_BITS;

/// A submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// When it was due after the start, in whole microseconds; at most a few weeks.
    pub(crate) due: Duration,
    /// Index of its destination.
    pub(crate) destination: u32,
}

impl Sequence {
    /// As the API takes it.
    pub(crate) fn to_number(self) -> i64 {
        let micros = i64::try_from(self.due.as_micros()).unwrap_or(i64::MAX >> DESTINATION_BITS);
        micros << DESTINATION_BITS | i64::from(self.destination % MAX_DESTINATIONS)
    }

    /// As the API gave it back; `None` for a number that was never sent.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        let number = u64::try_from(number).ok()?;
        let mask = u64::from(MAX_DESTINATIONS - 1);
        Some(Self {
            due: Duration::from_micros(number >> DESTINATION_BITS),
            destination: u32::try_from(number & mask).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_went() {
        for (micros, destination) in [(0, 0), (1, MAX_DESTINATIONS - 1), (3_600_000_000, 99)] {
            let sequence = Sequence {
                due: Duration::from_micros(micros),
                destination,
            };
            assert_eq!(Sequence::from_number(sequence.to_number()), Some(sequence));
        }
        assert_eq!(Sequence::from_number(-1), None);
    }
}
