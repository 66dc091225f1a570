//! Failed attempts by where they come from: beyond a limit, keys from there are no longer looked at
//! for a while. What is remembered is bounded.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use countersign_shared::time::Timestamp;

/// Within which time failures add up, and for how long a source is then refused.
const WINDOW: Duration = Duration::from_secs(60);
/// How many sources are remembered at most.
const SOURCES: usize = 16 * 1024;

/// Where a call comes from: an IPv4 address, or the /64 of an IPv6 one, which is what one host or
/// network is given (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(u64);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(u32::from(address))),
            // The upper half. Those that begin with 32 zero bits are not given to hosts.
            IpAddr::V6(address) => Self((u128::from(address) >> 64) as u64),
        }
    }
}

impl Source {
    /// As a number that no other source has.
    pub(super) fn as_number(self) -> u64 {
        self.0
    }
}

/// The failures of one source.
#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Timestamp,
    count: u32,
}

impl Failures {
    /// Also when the clock was set back behind it.
    fn is_over(&self, now: Timestamp) -> bool {
        now < self.since || now.since(self.since) >= WINDOW
    }
}

/// Counts failures by source.
#[derive(Debug)]
pub struct Attempts {
    limit: u32,
    by_source: Mutex<HashMap<Source, Failures>>,
}

impl Attempts {
    /// With so many failures a minute and source.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            by_source: Mutex::default(),
        }
    }

    /// Whether keys from `source` are looked at.
    ///
    /// # Errors
    /// When there were too many failures: for how long still.
    pub fn check(&self, source: Source, now: Timestamp) -> Result<(), Duration> {
        let failures = self.lock().get(&source).copied();
        match failures {
            Some(failures) if failures.count >= self.limit && !failures.is_over(now) => {
                Err(WINDOW.saturating_sub(now.since(failures.since)))
            }
            _ => Ok(()),
        }
    }

    /// A key from `source` was refused. The minute begins anew when the limit is reached.
    pub fn failed(&self, source: Source, now: Timestamp) {
        let mut sources = self.lock();
        if sources.len() >= SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, failures| !failures.is_over(now));
            if sources.len() >= SOURCES {
                // Whoever has so many addresses is not held by any limit on one.
                sources.clear();
            }
        }
        let first = Failures {
            since: now,
            count: 0,
        };
        let failures = sources.entry(source).or_insert(first);
        if failures.is_over(now) {
            *failures = first;
        }
        failures.count = failures.count.saturating_add(1);
        if failures.count == self.limit {
            failures.since = now;
        }
    }

    /// Entries are each complete.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Source, Failures>> {
        self.by_source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_700_000_000 + seconds)
    }

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_source_is_refused_for_a_minute_after_its_last_failure_and_no_other_is() {
        let attempts = Attempts::new(3);
        let (bad, good) = (source("192.0.2.1"), source("192.0.2.2"));
        for second in [0, 10, 20] {
            assert_eq!(attempts.check(bad, at(second)), Ok(()));
            attempts.failed(bad, at(second));
        }
        assert_eq!(attempts.check(bad, at(30)), Err(Duration::from_secs(50)));
        assert_eq!(attempts.check(good, at(30)), Ok(()));
        assert!(attempts.check(bad, at(79)).is_err());
        assert_eq!(attempts.check(bad, at(80)), Ok(()));
        attempts.failed(bad, at(80));
        assert_eq!(attempts.check(bad, at(80)), Ok(()), "counted anew");
    }

    #[test]
    fn slow_failures_do_not_add_up() {
        let attempts = Attempts::new(2);
        let slow = source("192.0.2.1");
        for minute in 0..10 {
            attempts.failed(slow, at(minute * 60));
            assert_eq!(attempts.check(slow, at(minute * 60)), Ok(()));
        }
        attempts.failed(slow, at(541));
        assert!(attempts.check(slow, at(541)).is_err());
        assert_eq!(
            attempts.check(slow, at(0)),
            Ok(()),
            "the clock was set back"
        );
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let attempts = Attempts::new(1);
        attempts.failed(source("2001:db8:1:2::3"), at(0));
        assert!(
            attempts
                .check(source("2001:db8:1:2:ffff::1"), at(0))
                .is_err()
        );
        assert!(attempts.check(source("2001:db8:1:3::3"), at(0)).is_ok());
        attempts.failed(source("::ffff:192.0.2.1"), at(0));
        assert!(attempts.check(source("192.0.2.1"), at(0)).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let attempts = Attempts::new(1);
        for address in 0..u32::try_from(SOURCES).unwrap() * 2 {
            let address = IpAddr::from(std::net::Ipv4Addr::from(address));
            attempts.failed(address.into(), at(0));
            assert!(attempts.check(address.into(), at(0)).is_err());
        }
        assert!(attempts.lock().len() <= SOURCES);
    }
}
