//! How a destination's deliveries are attempted, between the wire and the domain.

use std::time::Duration;

use countersign_proto::v1::{self, retry_policy};
use countersign_shared::wire::{duration_from_wire, duration_to_wire, timestamp_to_wire};

use super::violations::Violations;
use crate::{
    model::{
        Backoff, DEADLINE, FACTOR, MAX_OFFLINE, MAX_RATE, MAX_RETRIES, RetryPolicy, WAIT, Waits,
    },
    signals::{Flow, FlowState},
};

/// How much longer each wait is than the one before where nothing is said, in thousandths.
const DEFAULT_FACTOR: u32 = 2 * FACTOR.0;
/// The longest wait where nothing is said.
const DEFAULT_LONGEST: Duration = Duration::from_secs(10 * 3600);

/// A retry policy; what is wrong is noted under `name`.
pub(super) fn retry(
    violations: &mut Violations,
    name: &str,
    wire: Option<&v1::RetryPolicy>,
) -> RetryPolicy {
    let Some(wire) = wire else {
        return RetryPolicy::default();
    };
    let waits = match &wire.waits {
        None => Waits::Standard,
        Some(retry_policy::Waits::Schedule(schedule)) => {
            if schedule.waits.len() > MAX_RETRIES {
                let problem = format!("must have at most {MAX_RETRIES} waits");
                violations.add(format!("{name}.schedule.waits"), problem);
            }
            let field = format!("{name}.schedule.waits");
            let waits = schedule.waits.iter().take(MAX_RETRIES);
            Waits::Schedule(
                waits
                    .map(|wait| within(violations, &field, Some(*wait), WAIT))
                    .collect(),
            )
        }
        Some(retry_policy::Waits::Backoff(wire)) => backoff(violations, name, wire),
    };
    let field = format!("{name}.deadline");
    let deadline = wire.deadline;
    let deadline = deadline.map(|given| within(violations, &field, Some(given), DEADLINE));
    RetryPolicy { waits, deadline }
}

fn backoff(violations: &mut Violations, name: &str, wire: &v1::ExponentialBackoff) -> Waits {
    let field = |part: &str| format!("{name}.backoff.{part}");
    let first = within(violations, &field("first_wait"), wire.first_wait, WAIT);
    let longest = match wire.maximum_wait {
        None => DEFAULT_LONGEST.max(first),
        given => within(violations, &field("maximum_wait"), given, WAIT),
    };
    let thousandths = (wire.factor * f64::from(FACTOR.0)).round();
    let factor = match wire.factor {
        0.0 => DEFAULT_FACTOR,
        _ if (f64::from(FACTOR.0)..=f64::from(FACTOR.1)).contains(&thousandths) => {
            thousandths as u32
        }
        _ => {
            violations.add(field("factor"), "must be from 1 to 10");
            DEFAULT_FACTOR
        }
    };
    let retries = usize::try_from(wire.retries).unwrap_or_default();
    if !(1..=MAX_RETRIES).contains(&retries) {
        violations.add(field("retries"), format!("must be from 1 to {MAX_RETRIES}"));
    }
    Waits::Backoff(Backoff {
        first,
        factor,
        longest,
        retries,
    })
}

fn within(
    violations: &mut Violations,
    field: &str,
    given: Option<prost_types::Duration>,
    (shortest, longest): (Duration, Duration),
) -> Duration {
    let found = given.and_then(duration_from_wire);
    match found.filter(|found| (shortest..=longest).contains(found)) {
        Some(found) => found,
        None => {
            let (shortest, longest) = (shortest.as_secs(), longest.as_secs());
            violations.add(field, format!("must be from {shortest} s to {longest} s"));
            Duration::from_secs(shortest)
        }
    }
}

/// How long an agent goes on alone; absent: no longer than usual.
pub(super) fn max_offline(
    violations: &mut Violations,
    name: &str,
    wire: Option<prost_types::Duration>,
) -> Option<Duration> {
    wire.map(|given| within(violations, name, Some(given), MAX_OFFLINE))
}

/// A rate limit; 0 is none.
pub(super) fn rate_limit(violations: &mut Violations, name: &str, wire: i32) -> Option<u32> {
    match u32::try_from(wire) {
        Ok(0) => None,
        Ok(limit) if limit <= MAX_RATE => Some(limit),
        _ => {
            violations.add(name, format!("must be from 0 to {MAX_RATE}"));
            None
        }
    }
}

/// To the wire; absent when nothing was said.
pub(super) fn retry_to_wire(policy: &RetryPolicy) -> Option<v1::RetryPolicy> {
    if *policy == RetryPolicy::default() {
        return None;
    }
    let waits = match &policy.waits {
        Waits::Standard => None,
        Waits::Schedule(waits) => Some(retry_policy::Waits::Schedule(v1::RetrySchedule {
            waits: waits.iter().copied().map(duration_to_wire).collect(),
        })),
        Waits::Backoff(backoff) => Some(retry_policy::Waits::Backoff(v1::ExponentialBackoff {
            first_wait: Some(duration_to_wire(backoff.first)),
            factor: f64::from(backoff.factor) / f64::from(FACTOR.0),
            maximum_wait: Some(duration_to_wire(backoff.longest)),
            retries: i32::try_from(backoff.retries).unwrap_or(i32::MAX),
        })),
    };
    Some(v1::RetryPolicy {
        waits,
        deadline: policy.deadline.map(duration_to_wire),
    })
}

/// To the wire.
pub(super) fn flow_to_wire(flow: Flow) -> v1::DeliveryFlow {
    let (state, resume) = match flow.state {
        FlowState::Open => (v1::DeliveryFlowState::Open, None),
        FlowState::Paused(until) => (v1::DeliveryFlowState::Paused, Some(until)),
        FlowState::Probing(next) => (v1::DeliveryFlowState::Probing, Some(next)),
    };
    v1::DeliveryFlow {
        state: state.into(),
        resume_time: resume.map(timestamp_to_wire),
        failures_in_a_row: i32::try_from(flow.failures_in_a_row).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    fn there_and_back(wire: &v1::RetryPolicy) -> Result<v1::RetryPolicy, String> {
        let mut violations = Violations::default();
        let policy = retry(&mut violations, "p", Some(wire));
        let checked = violations.check();
        checked.map_err(|status| status.message().to_owned())?;
        Ok(retry_to_wire(&policy).unwrap())
    }

    fn schedule(waits: Vec<prost_types::Duration>) -> v1::RetryPolicy {
        let waits = retry_policy::Waits::Schedule(v1::RetrySchedule { waits });
        v1::RetryPolicy {
            waits: Some(waits),
            deadline: Some(seconds(90)),
        }
    }

    fn growing(backoff: v1::ExponentialBackoff) -> v1::RetryPolicy {
        v1::RetryPolicy {
            waits: Some(retry_policy::Waits::Backoff(backoff)),
            deadline: None,
        }
    }

    #[test]
    fn what_is_given_comes_back() {
        for wire in [
            schedule(vec![seconds(1), seconds(604_800)]),
            schedule(vec![]),
            growing(v1::ExponentialBackoff {
                first_wait: Some(seconds(2)),
                factor: 1.5,
                maximum_wait: Some(seconds(60)),
                retries: 9,
            }),
        ] {
            assert_eq!(there_and_back(&wire), Ok(wire));
        }
        let mut violations = Violations::default();
        let none = retry(&mut violations, "p", None);
        assert_eq!(retry_to_wire(&none), None);
    }

    #[test]
    fn a_backoff_has_defaults() {
        let wire = growing(v1::ExponentialBackoff {
            first_wait: Some(seconds(2)),
            retries: 3,
            ..v1::ExponentialBackoff::default()
        });
        let expected = growing(v1::ExponentialBackoff {
            first_wait: Some(seconds(2)),
            factor: 2.0,
            maximum_wait: Some(seconds(36_000)),
            retries: 3,
        });
        assert_eq!(there_and_back(&wire), Ok(expected));
    }

    #[test]
    fn every_bad_part_is_named() {
        let bad = growing(v1::ExponentialBackoff {
            first_wait: None,
            factor: 0.5,
            maximum_wait: Some(seconds(0)),
            retries: 33,
        });
        let message = there_and_back(&bad).unwrap_err();
        for part in ["first_wait", "factor", "maximum_wait", "retries"] {
            assert!(message.contains(&format!("p.backoff.{part}:")), "{message}");
        }
        for factor in [f64::NAN, f64::INFINITY, -2.0, 10.1] {
            let message = there_and_back(&growing(v1::ExponentialBackoff {
                first_wait: Some(seconds(1)),
                factor,
                maximum_wait: None,
                retries: 1,
            }));
            assert!(
                message.unwrap_err().contains("p.backoff.factor"),
                "{factor}"
            );
        }
        let many = there_and_back(&schedule(vec![seconds(1); 33])).unwrap_err();
        assert!(many.contains("at most 32"), "{many}");
        let late = v1::RetryPolicy {
            waits: None,
            deadline: Some(seconds(31 * 24 * 3600)),
        };
        assert!(there_and_back(&late).unwrap_err().contains("p.deadline:"));
        let mut violations = Violations::default();
        rate_limit(&mut violations, "rate", -1);
        rate_limit(&mut violations, "rate", 100_001);
        assert!(violations.check().is_err());
    }
}
