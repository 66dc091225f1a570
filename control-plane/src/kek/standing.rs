//! For how long a process may go on with the data keys that it holds while their KEK's provider is away or
//! says no.

use std::time::Duration;

use countersign_shared::time::Timestamp;

/// How a process stands with its KEK's provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It serves.
    Good,
    /// It does not, and data keys that are held are used until then.
    Away {
        /// Since it last served.
        since: Timestamp,
        /// When they are given up.
        until: Timestamp,
    },
    /// It has not served for so long that no data key may be used.
    Closed {
        /// Since it last served.
        since: Timestamp,
    },
}

/// How a process stands at `now` whose provider last served at `served`, and serves or does not.
pub fn standing(serves: bool, served: Timestamp, now: Timestamp, bound: Duration) -> Standing {
    if serves {
        return Standing::Good;
    }
    let (since, until) = (served, served.plus(bound));
    if now < until {
        Standing::Away { since, until }
    } else {
        Standing::Closed { since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_bounded_and_ends_when_the_provider_serves() {
        let start = Timestamp::from_unix_seconds(1_000);
        let bound = Duration::from_secs(60);
        let at = |seconds| start.plus(Duration::from_secs(seconds));
        assert_eq!(standing(true, start, at(500), bound), Standing::Good);
        let (since, until) = (start, at(60));
        for seconds in [0, 1, 59] {
            let away = standing(false, start, at(seconds), bound);
            assert_eq!(away, Standing::Away { since, until });
        }
        for seconds in [60, 61, 100_000] {
            let closed = standing(false, start, at(seconds), bound);
            assert_eq!(closed, Standing::Closed { since });
        }
        // A clock that is put back does not shorten it.
        let before = Timestamp::from_unix_seconds(1);
        assert_eq!(
            standing(false, start, before, bound),
            Standing::Away { since, until }
        );
    }
}
