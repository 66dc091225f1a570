//! What is an alert and what is none: pure decisions.

use std::time::Duration;

use countersign_shared::{class::FailureClass, time::Timestamp};

use crate::model::{AlertCause, AlertSeverity, Evidence, Expiring, Finding};

/// A certificate that ends within this is worth a warning.
pub const WARN_WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// A certificate that ends within this is critical.
pub const CRITICAL_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// So many 403 in a row are no accident.
const FORBIDDEN_IN_A_ROW: u8 = Evidence::COUNTED;

/// What follows for one cause and resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is wrong now.
    Raise(Finding),
    /// It is not, or no longer.
    Clear(AlertCause, String),
}

/// What follows from when a certificate ends.
pub fn of_expiring(expiring: &Expiring, now: Timestamp) -> Verdict {
    let left = expiring.not_after.since(now);
    let begun = expiring.not_before;
    let life = begun.map_or(Duration::MAX, |begun| expiring.not_after.since(begun));
    // Of short-lived certificates the same shares of their life as with 90 days.
    let (warn, critical) = (
        WARN_WITHIN.min(life / 3),
        CRITICAL_WITHIN.min(life / 90 * 7),
    );
    if left > warn {
        return Verdict::Clear(expiring.cause, expiring.resource.clone());
    }
    let severity = match left > critical {
        true => AlertSeverity::Warning,
        false => AlertSeverity::Critical,
    };
    let what = match expiring.cause {
        AlertCause::CertificateAuthorityExpires => {
            "This certificate authority ends: no certificate outlives it."
        }
        AlertCause::ServerCertificateExpires => {
            "The receiver's server certificate ends: ask its operator to renew it. From then on \
             nothing is delivered there."
        }
        _ => {
            "The client certificate of this destination ends, and renewal should have replaced it \
             before: receivers will refuse it from then on."
        }
    };
    // The time, not the days left: the message must not change every day.
    let message = format!("{what} It ends at {}.", expiring.not_after);
    Verdict::Raise(Finding {
        cause: expiring.cause,
        resource: expiring.resource.clone(),
        severity,
        message,
    })
}

/// What follows from a dead letter of `destination` that holds its ordering key.
pub(super) fn of_blocked_keys(destination: &str) -> Verdict {
    let message = "A delivery of this destination was given up and holds its ordering key: what was \
                   submitted after it with that key waits. Find it with ListDeliveries (state \
                   DEAD_LETTER), then RetryDelivery or CancelDelivery; or set ordering_failure to SKIP.";
    Verdict::Raise(Finding {
        cause: AlertCause::OrderingKeysBlocked,
        resource: destination.to_owned(),
        severity: AlertSeverity::Critical,
        message: message.to_owned(),
    })
}

/// What follows for destinations of `open` alerts of which none is among those `raised` now.
pub(super) fn of_keys_not_blocked(
    raised: &[Verdict],
    open: impl Iterator<Item = String>,
) -> Vec<Verdict> {
    let still = |resource: &String| {
        let of =
            |verdict: &Verdict| matches!(verdict, Verdict::Raise(it) if it.resource == *resource);
        raised.iter().any(of)
    };
    open.filter(|resource| !still(resource))
        .map(|resource| Verdict::Clear(AlertCause::OrderingKeysBlocked, resource))
        .collect()
}

/// What follows from what an attempt showed of the receiver of `destination`.
pub fn from_evidence(destination: &str, evidence: &Evidence, now: Timestamp) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut decide = |cause, severity, wrong: bool, message: &str| {
        let resource = destination.to_owned();
        verdicts.push(match wrong {
            false => Verdict::Clear(cause, resource),
            true => Verdict::Raise(Finding {
                cause,
                resource,
                severity,
                message: message.to_owned(),
            }),
        });
    };
    let shown = evidence.shown;
    let class = shown.class;
    let advice = class.resolution();
    if let Some(requested) = shown.certificate_requested {
        let cause = AlertCause::MtlsNotEnforced;
        let advice = FailureClass::MtlsNotEnforced.resolution();
        decide(cause, AlertSeverity::Warning, !requested, advice);
    }
    if class.refuses_client_certificate() && !shown.kept_back {
        decide(
            AlertCause::ClientCertificateRefused,
            AlertSeverity::Critical,
            true,
            advice,
        );
    } else if class.accepts_client_certificate() {
        decide(
            AlertCause::ClientCertificateRefused,
            AlertSeverity::Critical,
            false,
            "",
        );
    }
    if class == FailureClass::ClientIdentityForbidden {
        if evidence.in_a_row >= FORBIDDEN_IN_A_ROW {
            decide(
                AlertCause::ClientIdentityForbidden,
                AlertSeverity::Critical,
                true,
                advice,
            );
        }
    } else if class.accepts_client_certificate() {
        decide(
            AlertCause::ClientIdentityForbidden,
            AlertSeverity::Critical,
            false,
            "",
        );
    }
    if class.refuses_server_certificate() {
        decide(
            AlertCause::ServerCertificateRefused,
            AlertSeverity::Critical,
            true,
            advice,
        );
    } else if shown.certificate_requested.is_some() {
        decide(
            AlertCause::ServerCertificateRefused,
            AlertSeverity::Critical,
            false,
            "",
        );
    }
    let gone = class == FailureClass::HttpGone;
    if gone || class.accepts_client_certificate() {
        let advice = "The receiver answered 410: it no longer wants these deliveries. The destination \
                      was disabled and its deliveries wait: ask the receiver's operator, then \
                      change the URL and call EnableDestination, or delete the destination.";
        decide(
            AlertCause::DestinationDisabled,
            AlertSeverity::Critical,
            gone,
            advice,
        );
    }
    if let Some(not_after) = shown.server_not_after {
        let expiring = Expiring {
            cause: AlertCause::ServerCertificateExpires,
            resource: destination.to_owned(),
            not_before: None,
            not_after,
        };
        verdicts.push(of_expiring(&expiring, now));
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DestinationKey, Shown};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn expiring(now: Timestamp, left: Duration) -> Expiring {
        Expiring {
            cause: AlertCause::ClientCertificateExpires,
            resource: "r".to_owned(),
            not_before: None,
            not_after: now.plus(left),
        }
    }

    fn severity(verdict: &Verdict) -> Option<AlertSeverity> {
        match verdict {
            Verdict::Raise(finding) => Some(finding.severity),
            Verdict::Clear(..) => None,
        }
    }

    #[test]
    fn thirty_days_warn_and_seven_are_critical() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let second = Duration::from_secs(1);
        let cases = [
            (31 * DAY, None),
            (WARN_WITHIN + second, None),
            (WARN_WITHIN, Some(AlertSeverity::Warning)),
            (CRITICAL_WITHIN + second, Some(AlertSeverity::Warning)),
            (CRITICAL_WITHIN, Some(AlertSeverity::Critical)),
            (Duration::ZERO, Some(AlertSeverity::Critical)),
        ];
        for (left, expected) in cases {
            assert_eq!(
                severity(&of_expiring(&expiring(now, left), now)),
                expected,
                "{left:?}"
            );
        }
        let short = |left| Expiring {
            not_before: Some(now.minus(9 * DAY - left)),
            ..expiring(now, left)
        };
        let shares = [
            (4 * DAY, None),
            (2 * DAY, Some(AlertSeverity::Warning)),
            (DAY / 2, Some(AlertSeverity::Critical)),
        ];
        for (left, expected) in shares {
            assert_eq!(
                severity(&of_expiring(&short(left), now)),
                expected,
                "{left:?}"
            );
        }
        let ended = now.plus(DAY);
        let verdict = of_expiring(&expiring(now, second), ended);
        assert_eq!(
            severity(&verdict),
            Some(AlertSeverity::Critical),
            "ended already"
        );
    }

    fn evidence(class: FailureClass, requested: Option<bool>, in_a_row: u8) -> Evidence {
        Evidence {
            destination: DestinationKey(1),
            shown: Shown {
                class,
                certificate_requested: requested,
                server_not_after: None,
                kept_back: false,
                presented: None,
                refused: None,
            },
            in_a_row,
        }
    }

    fn raised(evidence: &Evidence) -> Vec<AlertCause> {
        let verdicts = from_evidence("d", evidence, Timestamp::default());
        let raised = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Raise(finding) => Some(finding.cause),
            Verdict::Clear(..) => None,
        });
        raised.collect()
    }

    fn cleared(evidence: &Evidence) -> Vec<AlertCause> {
        let verdicts = from_evidence("d", evidence, Timestamp::default());
        let cleared = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Clear(cause, _) => Some(*cause),
            Verdict::Raise(_) => None,
        });
        cleared.collect()
    }

    #[test]
    fn each_class_raises_what_it_shows_and_clears_only_what_it_disproves() {
        use AlertCause as Cause;
        use FailureClass as Class;
        let cases = [
            (evidence(Class::Delivered, Some(true), 1), vec![]),
            (
                evidence(Class::Delivered, Some(false), 1),
                vec![Cause::MtlsNotEnforced],
            ),
            (
                evidence(Class::ClientCaNotTrusted, Some(true), 1),
                vec![Cause::ClientCertificateRefused],
            ),
            (
                evidence(Class::ClientIdentityForbidden, Some(true), 2),
                vec![],
            ),
            (
                evidence(Class::ClientIdentityForbidden, Some(true), 3),
                vec![Cause::ClientIdentityForbidden],
            ),
            (
                evidence(Class::ServerNameMismatch, None, 1),
                vec![Cause::ServerCertificateRefused],
            ),
            (evidence(Class::ConnectionRefused, None, 1), vec![]),
            (
                evidence(Class::HttpGone, Some(true), 1),
                vec![Cause::DestinationDisabled],
            ),
        ];
        for (evidence, expected) in cases {
            assert_eq!(raised(&evidence), expected, "{evidence:?}");
        }
        let mut covered = evidence(Class::Delivered, Some(true), 1);
        covered.shown.refused = Some((2, Class::ClientCaNotTrusted));
        assert_eq!(raised(&covered), [], "the certificate before was taken");
        let mut kept_back = evidence(Class::ClientCertificateRevoked, None, 1);
        kept_back.shown.kept_back = true;
        assert_eq!(raised(&kept_back), [], "the receiver was not asked");
        let silent = evidence(Class::ConnectionRefused, None, 1);
        assert_eq!(cleared(&silent), [], "no answer disproves nothing");
        let fine = evidence(Class::Delivered, Some(true), 1);
        assert_eq!(cleared(&fine).len(), 5);
        let forbidden = evidence(Class::ClientIdentityForbidden, Some(true), 1);
        assert!(!cleared(&forbidden).contains(&Cause::ClientIdentityForbidden));
        assert!(cleared(&forbidden).contains(&Cause::ClientCertificateRefused));
        let bad_request = evidence(Class::HttpClientError, Some(true), 1);
        assert!(
            !cleared(&bad_request).contains(&Cause::ClientCertificateRefused),
            "a 400 can be a server's page about the certificate"
        );
    }
}
