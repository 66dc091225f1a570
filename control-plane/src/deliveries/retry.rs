//! What becomes of a delivery after an attempt: a pure decision.

use std::time::Duration;

use countersign_shared::{class::FailureClass, outcome::Outcome, time::Timestamp};

use crate::model::{Next, Snapshot};

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// How long a delivery is held after each attempt; the last for every further one.
pub const HOLDS: [Duration; 6] = [
    Duration::from_secs(30),
    minutes(1),
    minutes(2),
    minutes(5),
    minutes(15),
    minutes(30),
];
/// How long a delivery is held at most, from the first attempt after which it was.
pub const HELD_AT_MOST: Duration = minutes(7 * 24 * 60);

/// Each wait is spread by this share to both sides, so that what failed together does not come back
/// together.
const JITTER: f64 = 0.2;
/// Longest wait that a receiver can ask for with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Least wait after an attempt that no address was allowed for: nobody changes an agent's
/// configuration and starts it again in less.
const EGRESS_DENIED: Duration = minutes(5);
/// How soon a delivery that an agent gave back goes to another.
const GIVEN_BACK: Duration = Duration::from_secs(1);

/// Decides. `fraction`, in `0.0..1.0`, spreads the waits.
pub fn next(snapshot: &Snapshot, outcome: &Outcome, now: Timestamp, fraction: f64) -> Next {
    match outcome.class {
        FailureClass::Delivered => return Next::Delivered,
        FailureClass::NotAttempted => return Next::Again(now.plus(GIVEN_BACK.mul_f64(fraction))),
        class if class.holds() => return hold(snapshot, class, now, fraction),
        _ => {}
    }
    let failed_before = usize::try_from(snapshot.attempt_count).unwrap_or(usize::MAX);
    let Some(wait) = snapshot.retry.waits.after(failed_before) else {
        return Next::DeadLetter;
    };
    let asked = outcome.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    let at = now.plus(spread(wait, fraction).max(asked));
    match snapshot.retry.allows(snapshot.accepted_at, at) {
        true => Next::Retry(at),
        // No attempt would begin in time.
        false => Next::DeadLetter,
    }
}

fn hold(snapshot: &Snapshot, class: FailureClass, now: Timestamp, fraction: f64) -> Next {
    let held_for = snapshot
        .held_since
        .map_or(Duration::ZERO, |since| now.since(since));
    if held_for >= HELD_AT_MOST {
        return Next::DeadLetter;
    }
    let wait = match class {
        FailureClass::EgressDenied => hold_after(held_for).max(EGRESS_DENIED),
        _ => hold_after(held_for),
    };
    let at = now.plus(spread(wait, fraction));
    match snapshot.retry.allows(snapshot.accepted_at, at) {
        true => Next::Hold(at),
        false => Next::DeadLetter,
    }
}

/// The next wait of a delivery that has been held for so long: the first of [`HOLDS`] that it can't
/// have waited out yet, even if each was as short as jitter makes it.
fn hold_after(held_for: Duration) -> Duration {
    let mut waited = Duration::ZERO;
    for wait in HOLDS {
        waited += wait.mul_f64(1.0 - JITTER);
        if held_for < waited {
            return wait;
        }
    }
    HOLDS[HOLDS.len() - 1]
}

fn spread(wait: Duration, fraction: f64) -> Duration {
    wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * fraction)
}

#[cfg(test)]
mod tests {
    use countersign_shared::{outcome::AttemptTimings, random};
    use proptest::prelude::*;

    use super::*;
    use crate::model::{RetryPolicy, SCHEDULE, Waits};

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
            receipt: None,
            unrecorded_attempts: 0,
        }
    }

    fn snapshot(attempt_count: u32) -> Snapshot {
        Snapshot {
            attempt_count,
            accepted_at: Timestamp::default(),
            held_since: None,
            retry: RetryPolicy::default(),
        }
    }

    fn held(since: Timestamp) -> Snapshot {
        Snapshot {
            held_since: Some(since),
            ..snapshot(7)
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
    fn what_only_a_change_can_cure_is_held_wherever_its_schedule_stands() {
        let now = Timestamp::from_unix_seconds(1000);
        for &class in FailureClass::ALL {
            let failed = outcome(class, None);
            for count in [0, 6, 7, u32::MAX] {
                let next = next(&snapshot(count), &failed, now, 0.5);
                assert_eq!(matches!(next, Next::Hold(_)), class.holds(), "{class}");
            }
        }
    }

    #[test]
    fn a_hold_gets_longer_step_by_step_and_ends_after_a_week() {
        let refused = outcome(FailureClass::ClientCaNotTrusted, None);
        let since = Timestamp::from_unix_seconds(1000);
        for fraction in [0.0, 0.5, 0.999] {
            let (mut now, mut before) = (since, snapshot(7));
            let steps = HOLDS.into_iter().chain([minutes(30), minutes(30)]);
            for expected in steps {
                let Next::Hold(at) = next(&before, &refused, now, fraction) else {
                    panic!("not held");
                };
                let expected = spread(expected, fraction);
                assert_eq!(at.since(now), expected);
                (now, before) = (at, held(since));
            }
        }
        let week = since.plus(HELD_AT_MOST);
        let just_before = week.minus(Duration::from_micros(1));
        let last = next(&held(since), &refused, just_before, 0.5);
        assert_eq!(last, Next::Hold(just_before.plus(minutes(30))));
        assert_eq!(next(&held(since), &refused, week, 0.5), Next::DeadLetter);
    }

    #[test]
    fn what_the_agent_s_operator_must_allow_waits_for_five_minutes_at_least() {
        let denied = outcome(FailureClass::EgressDenied, None);
        let now = Timestamp::from_unix_seconds(10_000);
        let first = next(&snapshot(0), &denied, now, 0.5);
        assert_eq!(first, Next::Hold(now.plus(minutes(5))));
        let later = next(&held(now.minus(minutes(60))), &denied, now, 0.5);
        assert_eq!(later, Next::Hold(now.plus(minutes(30))));
    }

    #[test]
    fn a_destination_s_own_waits_and_deadline_count() {
        let accepted = Timestamp::from_unix_seconds(1000);
        let of = |attempt_count, deadline| Snapshot {
            accepted_at: accepted,
            retry: RetryPolicy {
                waits: Waits::Schedule(vec![Duration::from_secs(2), Duration::from_secs(60)]),
                deadline,
            },
            ..snapshot(attempt_count)
        };
        let failed = outcome(FailureClass::HttpServerError, None);
        let after = |count, deadline| next(&of(count, deadline), &failed, accepted, 0.5);
        let in_seconds = |seconds| accepted.plus(Duration::from_secs(seconds));
        assert_eq!(after(0, None), Next::Retry(in_seconds(2)));
        assert_eq!(after(1, None), Next::Retry(in_seconds(60)));
        assert_eq!(after(2, None), Next::DeadLetter);
        let minute = Some(minutes(1));
        assert_eq!(
            after(1, minute),
            Next::Retry(in_seconds(60)),
            "just in time"
        );
        assert_eq!(after(1, Some(Duration::from_secs(59))), Next::DeadLetter);
        let asked = outcome(FailureClass::HttpRateLimited, minute);
        let asks_too_much = next(&of(0, Some(Duration::from_secs(59))), &asked, accepted, 0.5);
        assert_eq!(asks_too_much, Next::DeadLetter);
        let refused = outcome(FailureClass::ClientCaNotTrusted, None);
        let held = |deadline| next(&of(0, deadline), &refused, accepted, 0.5);
        assert_eq!(held(minute), Next::Hold(in_seconds(30)));
        assert_eq!(held(Some(Duration::from_secs(29))), Next::DeadLetter);
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

        #[test]
        fn a_hold_is_never_shorter_than_the_one_before_it_nor_longer_than_its_last_step(
            held_for in 0_u64..7 * 24 * 3600,
            more in 0_u64..7 * 24 * 3600,
            fraction in 0.0_f64..1.0,
        ) {
            let since = Timestamp::from_unix_seconds(1000);
            let refused = outcome(FailureClass::ServerCaNotTrusted, Some(Duration::from_secs(9)));
            let wait = |seconds| {
                let now = since.plus(Duration::from_secs(seconds));
                match next(&held(since), &refused, now, fraction) {
                    Next::Hold(at) => Some(at.since(now)),
                    _ => None,
                }
            };
            let (sooner, later) = (wait(held_for), wait(held_for + more));
            let Some(sooner) = sooner else {
                return Err(TestCaseError::fail("not held within the week"));
            };
            prop_assert!(sooner >= HOLDS[0].mul_f64(0.799));
            match later {
                Some(later) => {
                    prop_assert!(later >= sooner);
                    prop_assert!(later <= minutes(30).mul_f64(1.201));
                }
                None => prop_assert!(held_for + more >= 7 * 24 * 3600),
            }
        }
    }
}
