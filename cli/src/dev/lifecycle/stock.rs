//! Takes stock at the end of a story: what the store says of each delivery, and what the receiver
//! counted.

use std::time::Duration;

use countersign_proto::v1::{self, DeliveryState};
use countersign_shared::{time::Timestamp, wire};
use tokio::time::Instant;

use super::{
    outcome::{Certificate, Deliveries, Received},
    tally::Tally,
    view::View,
};
use crate::{
    dev::report::class_text,
    local::provision::{Administrator, ApiError},
};

/// How often to ask whether everything is settled.
const AGAIN: Duration = Duration::from_millis(100);

/// What became of an account's deliveries once they are settled, or when `limit` has passed. Attempts
/// are looked at one by one where there was not exactly one, and where the delivery was accepted in
/// one of the times `doubted`.
///
/// # Errors
/// [`ApiError`].
pub(crate) async fn take(
    api: &Administrator,
    account: &str,
    doubted: &[(Timestamp, Timestamp)],
    limit: Duration,
) -> Result<Deliveries, ApiError> {
    let end = Instant::now() + limit;
    let all = loop {
        let all = list(api, account).await?;
        if all.iter().all(is_delivered) || Instant::now() >= end {
            break all;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let mut found = Deliveries::default();
    for delivery in &all {
        found.delivered += u64::from(is_delivered(delivery));
        found.attempts += u64::try_from(delivery.attempt_count).unwrap_or_default();
        if !is_plain(delivery, doubted) {
            for attempt in api.attempts(&delivery.name).await? {
                note(&mut found, &attempt);
            }
        }
    }
    Ok(found)
}

async fn list(api: &Administrator, account: &str) -> Result<Vec<v1::Delivery>, ApiError> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let page = api.deliveries(account, token).await?;
        all.extend(page.deliveries);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        token = page.next_page_token;
    }
}

fn is_delivered(delivery: &v1::Delivery) -> bool {
    delivery.state == i32::from(DeliveryState::Delivered)
}

/// Delivered by its one attempt, at a time when no certificate was refused.
fn is_plain(delivery: &v1::Delivery, doubted: &[(Timestamp, Timestamp)]) -> bool {
    let accepted = delivery.create_time.map(wire::timestamp_from_wire);
    let in_doubt = accepted.is_none_or(|at| {
        let mut doubted = doubted.iter();
        doubted.any(|(from, to)| (*from..=*to).contains(&at))
    });
    is_delivered(delivery) && delivery.attempt_count == 1 && !in_doubt
}

fn note(found: &mut Deliveries, attempt: &v1::Attempt) {
    found.fallbacks += u64::from(attempt.refused_certificate.is_some());
    if attempt.class != i32::from(v1::FailureClass::Delivered) {
        let class = class_text(attempt.class).unwrap_or_else(|| "UNKNOWN".to_owned());
        *found.failed_attempts.entry(class).or_default() += 1;
    }
}

/// What the receiver counted.
pub(crate) fn received(tally: &Tally) -> Received {
    Received {
        webhooks: tally.received(),
        repeated: tally.repeated(),
        unverified: tally.unverified,
        refused_connections: tally.refused,
    }
}

/// What each certificate carried, in the order of first use; times count from `start`.
pub(crate) fn certificates(tally: &Tally, view: &View, start: Timestamp) -> Vec<Certificate> {
    let carried = tally.carried.iter().map(|carried| {
        let mut known = view.certificates.iter();
        let known = known.find(|it| it.serial_number == carried.serial);
        let after = |at: Timestamp| at.since(start).as_secs_f64();
        Certificate {
            version: known.map_or(0, |it| it.version),
            serial: carried.serial.clone(),
            issuer: carried.issuer.clone(),
            webhooks: carried.webhooks,
            connections: carried.connections,
            used: (after(carried.first), after(carried.last)),
        }
    });
    carried.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn one_good_attempt_in_a_quiet_time_needs_no_second_look() {
        let delivery = |state: DeliveryState, attempts, seconds| v1::Delivery {
            state: state.into(),
            attempt_count: attempts,
            create_time: Some(wire::timestamp_to_wire(at(seconds))),
            ..v1::Delivery::default()
        };
        let doubted = [(at(100), at(200))];
        let cases = [
            (delivery(DeliveryState::Delivered, 1, 99), true),
            (delivery(DeliveryState::Delivered, 1, 100), false),
            (delivery(DeliveryState::Delivered, 1, 200), false),
            (delivery(DeliveryState::Delivered, 2, 201), false),
            (delivery(DeliveryState::Pending, 1, 201), false),
            (v1::Delivery::default(), false),
        ];
        for (delivery, expected) in cases {
            assert_eq!(is_plain(&delivery, &doubted), expected, "{delivery:?}");
        }
    }

    #[test]
    fn attempts_count_by_their_class() {
        let mut found = Deliveries::default();
        let refused = v1::Attempt {
            class: v1::FailureClass::ConnectionLost.into(),
            ..v1::Attempt::default()
        };
        let fallback = v1::Attempt {
            class: v1::FailureClass::Delivered.into(),
            refused_certificate: Some(v1::CertificateRefusal::default()),
            ..v1::Attempt::default()
        };
        for attempt in [&refused, &fallback, &refused] {
            note(&mut found, attempt);
        }
        assert_eq!(found.failed_attempts["CONNECTION_LOST"], 2);
        assert_eq!(found.fallbacks, 1);
    }
}
