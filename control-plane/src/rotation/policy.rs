//! When certificates are replaced, and how long each step may wait.

use std::time::Duration;

use countersign_shared::time::Timestamp;

use crate::model::ClientCertificate;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// When certificates are replaced, and how long each step may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Life of a client certificate that we issue.
    pub life: Duration,
    /// How long the one before is kept after it was replaced.
    pub grace: Duration,
    /// First and longest wait before a receiver is asked again.
    pub retry: (Duration, Duration),
    /// How soon after a certificate was activated another is issued because the receiver holds it to
    /// be expired or revoked.
    pub renewal_pause: Duration,
    /// How soon to look again for agents.
    pub look: Duration,
    /// How soon to look again for an upload.
    pub remind: Duration,
    /// How long something that may pass by itself holds a rotation up before somebody must hear of it.
    pub patience: Duration,
    /// Longest time without a look.
    pub longest: Duration,
}

/// Share of its life after which a certificate is replaced: day 54 of 90.
const RENEW_AT: f64 = 0.6;
/// Share of its life over which renewals spread, so that what was made together is not replaced
/// together.
const SPREAD: f64 = 0.05;

impl Policy {
    /// For certificates of this life, which are kept for `grace` after they were replaced. With short
    /// lives, as in a demonstration, the waits are short too.
    pub fn new(life: Duration, grace: Duration) -> Self {
        let at_most = |share: u32, most: Duration| (life / share).min(most);
        Self {
            life,
            grace,
            retry: (at_most(200, MINUTE), at_most(20, HOUR)),
            renewal_pause: at_most(20, 24 * HOUR),
            look: at_most(100, MINUTE),
            remind: at_most(20, HOUR),
            patience: at_most(50, HOUR),
            longest: at_most(4, 24 * HOUR),
        }
    }

    /// When a certificate is due to be replaced: at 60 % of its life and up to 5 % later, the same at
    /// every look.
    pub fn renew_at(&self, certificate: &ClientCertificate) -> Timestamp {
        let life = certificate.not_after.since(certificate.not_before);
        let share = RENEW_AT + SPREAD * fraction(&certificate.serial);
        certificate.not_before.plus(life.mul_f64(share))
    }
}

/// A number from 0 to 1 that belongs to this serial number. Serial numbers are random.
fn fraction(serial: &str) -> f64 {
    let end = serial.len().saturating_sub(4);
    let last = serial.get(end..).unwrap_or_default();
    f64::from(u16::from_str_radix(last, 16).unwrap_or_default()) / 65536.0
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{DAY, LIFE, START, certificate},
        *,
    };
    use crate::{alerts::WARN_WITHIN, model::ClientCertificateState};

    #[test]
    fn renewals_spread_over_a_twentieth_of_the_life() {
        assert!(fraction("00000000").abs() < f64::EPSILON);
        assert!(fraction("0000ffff") > 0.99 && fraction("0000ffff") < 1.0);
        assert!((fraction("12348000") - 0.5).abs() < f64::EPSILON);
        assert!(fraction("").abs() < f64::EPSILON);
    }

    #[test]
    fn a_renewal_that_goes_well_is_over_before_anybody_is_warned() {
        let policy = Policy::new(LIFE, DAY);
        for serial in ["00000000", "0000ffff"] {
            let mut one = certificate(1, ClientCertificateState::Active);
            one.serial = serial.to_owned();
            let due = policy.renew_at(&one);
            assert!(due >= START.plus(54 * DAY), "{due}");
            let warned = one.not_after.minus(WARN_WITHIN);
            assert!(warned.since(due) > DAY, "time for what passes by itself");
        }
    }

    #[test]
    fn short_lives_wait_shortly() {
        let minute = Duration::from_secs(60);
        let short = Policy::new(10 * minute, minute);
        let long = Policy::new(LIFE, DAY);
        assert_eq!(long.retry, (MINUTE, HOUR));
        assert_eq!(
            (long.look, long.remind, long.patience),
            (MINUTE, HOUR, HOUR)
        );
        assert_eq!(long.longest, DAY);
        let waits = [short.retry.1, short.look, short.remind, short.patience];
        assert!(
            waits.iter().all(|wait| *wait <= short.life / 20),
            "{waits:?}"
        );
        assert!(short.longest <= short.life / 4);
    }
}
