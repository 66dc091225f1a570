//! What becomes of a delivery after an attempt: a pure decision.

use std::time::Duration;

use countersign_shared::{class::FailureClass, outcome::Outcome, time::Timestamp};

use crate::model::{Next, Snapshot};

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// How long after each failed attempt the next one is due; after the last there is none. The example
/// schedule of the Standard Webhooks specification, about 27 hours in all.
pub const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    minutes(5),
    minutes(30),
    minutes(2 * 60),
    minutes(5 * 60),
    minutes(10 * 60),
    minutes(10 * 60),
];

/// Each wait is spread by this share to both sides, so that what failed together does not come back
/// together.
const JITTER: f64 = 0.2;
/// Longest wait that a receiver can ask for with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Least wait after an attempt that no address was allowed for: somebody has to change the agent's
/// configuration or the destination before another can end otherwise.
const EGRESS_DENIED: Duration = minutes(60);
/// How soon a delivery that an agent gave back goes to another.
const GIVEN_BACK: Duration = Duration::from_secs(1);

/// Decides. `fraction`, in `0.0..1.0`, spreads the waits.
pub fn next(snapshot: &Snapshot, outcome: &Outcome, now: Timestamp, fraction: f64) -> Next {
    match outcome.class {
        FailureClass::Delivered => return Next::Delivered,
        FailureClass::NotAttempted => return Next::Again(now.plus(GIVEN_BACK.mul_f64(fraction))),
        _ => {}
    }
    let failed_before = usize::try_from(snapshot.attempt_count).unwrap_or(usize::MAX);
    let Some(wait) = SCHEDULE.get(failed_before) else {
        return Next::DeadLetter;
    };
    let wait = match outcome.class {
        FailureClass::EgressDenied => (*wait).max(EGRESS_DENIED),
        _ => *wait,
    };
    let spread = wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * fraction);
    let asked = outcome.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    Next::Retry(now.plus(spread.max(asked)))
}

#[cfg(test)]
mod tests {
    use countersign_shared::{outcome::AttemptTimings, random};
    use proptest::prelude::*;

    use super::*;

    fn outcome(class: FailureClass, retry_after: Option<Duration>) -> Outcome {
        Outcome {
            delivery: random::uuid_v7(Timestamp::default()).into(),
            epoch: 1,
            class,
            mtls_not_enforced: false,
            http_status: None,
            handshake: None,
            timings: AttemptTimings::default(),
            started_at: Timestamp::default(),
            retry_after,
            detail: "".into(),
            refused: None,
        }
    }

    fn snapshot(attempt_count: u32) -> Snapshot {
        Snapshot {
            attempt_count,
            accepted_at: Timestamp::default(),
        }
    }

    #[test]
    fn eight_attempts_and_then_a_dead_letter() {
        let failed = outcome(FailureClass::HttpServerError, None);
        let now = Timestamp::from_unix_seconds(1000);
        for (count, wait) in (0_u32..).zip(SCHEDULE) {
            let next = next(&snapshot(count), &failed, now, 0.5);
            assert_eq!(next, Next::Retry(now.plus(wait)));
        }
        assert_eq!(next(&snapshot(7), &failed, now, 0.5), Next::DeadLetter);
        assert_eq!(
            next(&snapshot(u32::MAX), &failed, now, 0.5),
            Next::DeadLetter
        );
    }

    #[test]
    fn success_ends_it_and_a_job_given_back_costs_no_attempt() {
        let now = Timestamp::from_unix_seconds(1000);
        let delivered = outcome(FailureClass::Delivered, None);
        assert_eq!(next(&snapshot(7), &delivered, now, 0.0), Next::Delivered);
        let back = outcome(FailureClass::NotAttempted, None);
        assert_eq!(next(&snapshot(7), &back, now, 0.0), Next::Again(now));
    }

    #[test]
    fn what_needs_a_change_of_configuration_waits_for_at_least_an_hour() {
        let denied = outcome(FailureClass::EgressDenied, None);
        let now = Timestamp::from_unix_seconds(1000);
        let hours = [1, 1, 1, 2, 5, 10, 10];
        for (count, hours) in (0..).zip(hours) {
            let at = now.plus(minutes(60 * hours));
            assert_eq!(next(&snapshot(count), &denied, now, 0.5), Next::Retry(at));
        }
        assert_eq!(next(&snapshot(7), &denied, now, 0.5), Next::DeadLetter);
    }

    proptest! {
        #[test]
        fn waits_stay_within_a_fifth_and_honour_retry_after(
            count in 0_u32..7,
            fraction in 0.0_f64..1.0,
            asked in proptest::option::of(0_u64..200_000),
        ) {
            let now = Timestamp::from_unix_seconds(1000);
            let limited = outcome(FailureClass::HttpRateLimited, asked.map(Duration::from_secs));
            let Next::Retry(at) = next(&snapshot(count), &limited, now, fraction) else {
                return Err(TestCaseError::fail("no retry"));
            };
            let wait = at.since(now);
            let base = SCHEDULE[count as usize];
            let asked = Duration::from_secs(asked.unwrap_or_default()).min(MAX_RETRY_AFTER);
            prop_assert!(wait >= asked);
            prop_assert!(wait >= base.mul_f64(0.799));
            prop_assert!(wait <= base.mul_f64(1.201).max(asked));
        }
    }
}
