//! Destinations whose deliveries fail: a warning, a more urgent one, and in the end they are disabled.
//! Pure decisions.

use std::time::Duration;

use countersign_shared::{class::FailureClass, time::Timestamp};

use super::judge::Verdict;
use crate::model::{AlertCause, AlertSeverity, Finding};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A destination that fails for so long is worth a warning.
pub const WARN_AFTER: Duration = DAY;
/// A destination that fails for so long is critical.
pub const CRITICAL_AFTER: Duration = Duration::from_secs(3 * DAY.as_secs());
/// A destination that fails for so long is disabled.
pub const DISABLE_AFTER: Duration = Duration::from_secs(5 * DAY.as_secs());

/// What an attempt that ended as `class` says of a destination that fails since `since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It begins to fail.
    Fails,
    /// It no longer fails.
    Recovers,
    /// Nothing new.
    None,
}

/// Decides.
pub(super) fn turn(class: FailureClass, since: Option<Timestamp>) -> Turn {
    match since {
        None if class.costs_an_attempt() => Turn::Fails,
        Some(_) if class == FailureClass::Delivered => Turn::Recovers,
        _ => Turn::None,
    }
}

/// What follows for `destination`, which fails since `since`; true when it is to be disabled.
pub(super) fn of_failing(
    destination: &str,
    since: Timestamp,
    now: Timestamp,
) -> (Option<Verdict>, bool) {
    let for_so_long = now.since(since);
    let (severity, what) = if for_so_long >= DISABLE_AFTER {
        let what = "The destination was disabled: no delivery has succeeded in five days. Its \
                    deliveries wait. When the receiver is well, call EnableDestination, and \
                    ReplayDeliveries for those that were given up.";
        (AlertSeverity::Critical, what)
    } else if for_so_long >= CRITICAL_AFTER {
        let what = "No delivery has succeeded in three days; after five the destination is \
                    disabled. ListAttempts of its deliveries tells why they fail.";
        (AlertSeverity::Critical, what)
    } else if for_so_long >= WARN_AFTER {
        let what = "No delivery has succeeded in a day; after five the destination is disabled. \
                    ListAttempts of its deliveries tells why they fail.";
        (AlertSeverity::Warning, what)
    } else {
        return (None, false);
    };
    let finding = Finding {
        cause: AlertCause::DestinationFailing,
        resource: destination.to_owned(),
        severity,
        message: format!("{what} Attempts fail since {since}."),
    };
    let verdict = Verdict::Raise(finding);
    (Some(verdict), for_so_long >= DISABLE_AFTER)
}

/// What follows from whether a destination has dead letters.
pub(super) fn of_dead_letters(destination: &str, any: bool) -> Verdict {
    let (cause, resource) = (AlertCause::DeliveriesDeadLettered, destination.to_owned());
    if !any {
        return Verdict::Clear(cause, resource);
    }
    Verdict::Raise(Finding {
        cause,
        resource,
        severity: AlertSeverity::Warning,
        message: "Deliveries were given up after their last attempt or their deadline: \
                  ListDeliveries with state DEAD_LETTER names them, ReplayDeliveries sends them \
                  again. Otherwise they are erased when their time is over \
                  (retention.payload_days)."
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_failure_that_counts_and_ends_with_a_delivery() {
        let since = Some(Timestamp::default());
        for &class in FailureClass::ALL {
            let fails = turn(class, None) == Turn::Fails;
            assert_eq!(fails, class.costs_an_attempt(), "{class}");
            let recovers = turn(class, since) == Turn::Recovers;
            assert_eq!(recovers, class == FailureClass::Delivered, "{class}");
        }
        assert!(!FailureClass::ClientCaNotTrusted.costs_an_attempt());
        assert!(FailureClass::HttpServerError.costs_an_attempt());
    }

    #[test]
    fn warnings_come_after_one_and_three_days_and_the_end_after_five() {
        let since = Timestamp::from_unix_seconds(1_000_000);
        let after = |hours: u64| {
            let now = since.plus(Duration::from_secs(3600 * hours));
            let (verdict, disable) = of_failing("d", since, now);
            let severity = verdict.map(|verdict| match verdict {
                Verdict::Raise(finding) => finding.severity,
                Verdict::Clear(..) => panic!("cleared"),
            });
            (severity, disable)
        };
        let (warning, critical) = (AlertSeverity::Warning, AlertSeverity::Critical);
        assert_eq!(after(23), (None, false));
        assert_eq!(after(24), (Some(warning), false));
        assert_eq!(after(71), (Some(warning), false));
        assert_eq!(after(72), (Some(critical), false));
        assert_eq!(after(119), (Some(critical), false));
        assert_eq!(after(120), (Some(critical), true));
    }
}
