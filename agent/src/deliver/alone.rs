//! What an agent does on its own with a job while it is cut off: whether, and when, a failed attempt is made again. Plain
//! decisions.

use std::time::Duration;

use countersign_shared::{class::FailureClass, job::LeasedJob, outcome::Outcome, time::Timestamp};

/// The wait after the first attempt that failed, and the longest; each is twice as long as the one before.
const WAIT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// How long to wait before a job is attempted again after `outcome`, without a control plane that could say: 5 s first,
/// then twice as long each time, up to 5 min, each ±20 % (`fraction`, from 0 to 1, says where), and no less than the
/// receiver asks for. `None`: there is to be no other attempt before the control plane has this outcome, as it is not
/// that kind of job, or of failure, or there is no time left.
pub(super) fn again(
    job: &LeasedJob,
    outcome: &Outcome,
    now: Timestamp,
    fraction: f64,
) -> Option<Duration> {
    // What only a change cures waits for whoever makes it; 410 says not to come back.
    if !outcome.class.costs_an_attempt() || outcome.class == FailureClass::HttpGone {
        return None;
    }
    let doublings = outcome.unrecorded_attempts.min(16);
    let wait = WAIT.0.saturating_mul(1 << doublings).min(WAIT.1);
    let wait = wait.mul_f64(0.8 + 0.4 * fraction);
    let wait = wait.max(outcome.retry_after.unwrap_or_default());
    job.may_begin_alone(now.plus(wait)).then_some(wait)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use countersign_shared::{
        headers::Headers,
        job::{LeaseId, OfflineWork},
        random,
    };

    use super::*;
    use crate::deliver::attempt::not_attempted;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn job() -> LeasedJob {
        LeasedJob {
            lease: LeaseId {
                delivery: random::uuid_v7(NOW).into(),
                epoch: 1,
            },
            destination: "accounts/a/destinations/d".parse().unwrap(),
            expires_at: NOW.plus(HOUR),
            payload: Bytes::new(),
            headers: Headers::default(),
            content_type: "text/plain".into(),
            attempt_number: 1,
            offline: Some(OfflineWork::default()),
        }
    }

    fn failed(class: FailureClass, before: u32) -> Outcome {
        Outcome {
            class,
            unrecorded_attempts: before,
            ..not_attempted(&job(), NOW, "")
        }
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let waits = [0, 1, 2, 5, 6, 7, 1000].map(|before| {
            let outcome = failed(FailureClass::HttpServerError, before);
            again(&job(), &outcome, NOW, 0.5).map(|wait| wait.as_secs())
        });
        let expected = [5, 10, 20, 160, 300, 300, 300].map(Some);
        assert_eq!(waits, expected);
        let outcome = failed(FailureClass::ConnectionRefused, 0);
        let most = again(&job(), &outcome, NOW, 1.0);
        assert_eq!(most, Some(Duration::from_secs(6)));
        let asked = Outcome {
            retry_after: Some(Duration::from_secs(77)),
            ..failed(FailureClass::HttpRateLimited, 0)
        };
        assert_eq!(
            again(&job(), &asked, NOW, 0.0),
            Some(Duration::from_secs(77))
        );
    }

    #[test]
    fn only_what_can_end_otherwise_and_in_time_is_attempted_again() {
        for class in [
            FailureClass::Delivered,
            FailureClass::NotAttempted,
            FailureClass::HttpGone,
            FailureClass::ClientCaNotTrusted,
            FailureClass::EgressDenied,
        ] {
            assert_eq!(again(&job(), &failed(class, 0), NOW, 0.5), None, "{class}");
        }
        let outcome = failed(FailureClass::HttpServerError, 0);
        let online = LeasedJob {
            offline: None,
            ..job()
        };
        assert_eq!(again(&online, &outcome, NOW, 0.5), None);
        let late = |attempt_deadline| LeasedJob {
            offline: Some(OfflineWork { attempt_deadline }),
            ..job()
        };
        let soon = NOW.plus(Duration::from_secs(4));
        assert_eq!(again(&late(Some(soon)), &outcome, NOW, 0.5), None);
        let over = NOW.plus(HOUR).minus(Duration::from_secs(4));
        assert_eq!(again(&job(), &outcome, over, 0.5), None);
    }
}
