//! Outcomes and what they are made of, on the wire.

use std::borrow::Cow;

use bytes::Bytes;
use countersign_proto::v1;
use prost::Message as _;

use super::{
    WireError, class_from_wire, class_to_wire, delivery_id, duration_from_wire, duration_to_wire,
    epoch, timestamp_from_wire, timestamp_to_wire,
};
use crate::{
    outcome::{
        Alert, AttemptTimings, CertificateRefusal, HandshakeRecord, MAX_ACCEPTABLE_CA_NAMES,
        Outcome, PresentedCertificate, ServerCertificate, SharedRecord,
    },
    receipt::MAX_LENGTH,
};

/// To the wire.
pub fn handshake_to_wire(record: &HandshakeRecord) -> v1::HandshakeRecord {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (version, serial) = match &record.presented {
        Some(presented) => (presented.version, presented.serial.clone()),
        None => (0, String::new()),
    };
    v1::HandshakeRecord {
        completed: record.completed,
        client_certificate_requested: record.client_certificate_requested,
        client_certificate_version: i32::try_from(version).unwrap_or(i32::MAX),
        client_certificate_serial: serial,
        tls_version: text(&record.tls_version),
        cipher_suite: text(&record.cipher_suite),
        key_exchange_group: text(&record.key_exchange_group),
        resumed: record.resumed,
        server_certificate_subject: record
            .server
            .as_ref()
            .map_or_else(String::new, |server| server.subject.clone()),
        server_certificate_issuer: record
            .server
            .as_ref()
            .map_or_else(String::new, |server| server.issuer.clone()),
        server_certificate_not_after_time: record
            .server
            .as_ref()
            .map(|server| timestamp_to_wire(server.not_after)),
        acceptable_ca_names: record.acceptable_ca_names.clone(),
        alert_number: record
            .alert
            .as_ref()
            .map_or(0, |alert| i32::from(alert.number)),
        alert_name: record
            .alert
            .as_ref()
            .map_or_else(String::new, |alert| alert.name.clone()),
        peer_address: text(&record.peer_address),
        connection_reused: record.connection_reused,
        alpn_protocol: text(&record.alpn_protocol),
    }
}

/// From the wire.
///
/// # Errors
/// [`WireError::Value`] for numbers out of range.
pub fn handshake_from_wire(record: v1::HandshakeRecord) -> Result<HandshakeRecord, WireError> {
    let text = |value: String| (!value.is_empty()).then_some(value);
    let version = u32::try_from(record.client_certificate_version)
        .map_err(|_| WireError::Value("client_certificate_version"))?;
    let number = u8::try_from(record.alert_number).map_err(|_| WireError::Value("alert_number"))?;
    let server = record
        .server_certificate_not_after_time
        .map(|not_after| ServerCertificate {
            subject: record.server_certificate_subject,
            issuer: record.server_certificate_issuer,
            not_after: timestamp_from_wire(not_after),
        });
    let mut acceptable_ca_names = record.acceptable_ca_names;
    acceptable_ca_names.truncate(MAX_ACCEPTABLE_CA_NAMES);
    Ok(HandshakeRecord {
        completed: record.completed,
        client_certificate_requested: record.client_certificate_requested,
        presented: (version > 0).then_some(PresentedCertificate {
            version,
            serial: record.client_certificate_serial,
        }),
        tls_version: text(record.tls_version),
        cipher_suite: text(record.cipher_suite),
        key_exchange_group: text(record.key_exchange_group),
        resumed: record.resumed,
        server,
        acceptable_ca_names,
        alert: text(record.alert_name).map(|name| Alert { number, name }),
        peer_address: text(record.peer_address),
        connection_reused: record.connection_reused,
        alpn_protocol: text(record.alpn_protocol),
    })
}

/// A record's encoded form; made once for all that share it.
fn encoded(record: &SharedRecord) -> Bytes {
    record.encoded_by(|record| handshake_to_wire(record).encode_to_vec().into())
}

/// From its encoded form.
///
/// # Errors
/// [`WireError::Value`] for what is none, and numbers out of range.
pub(super) fn handshake_from_encoded(encoded: &Bytes) -> Result<SharedRecord, WireError> {
    let record = v1::HandshakeRecord::decode(encoded.clone());
    let record = record.map_err(|_| WireError::Value("handshake"))?;
    Ok(handshake_from_wire(record)?.into())
}

/// To the wire.
pub fn timings_to_wire(timings: &AttemptTimings) -> v1::AttemptTimings {
    v1::AttemptTimings {
        queued: timings.queued.map(duration_to_wire),
        resolve: timings.resolve.map(duration_to_wire),
        connect: timings.connect.map(duration_to_wire),
        handshake: timings.handshake.map(duration_to_wire),
        response: timings.response.map(duration_to_wire),
        total: timings.total.map(duration_to_wire),
    }
}

/// From the wire; parts that make no sense are absent.
pub fn timings_from_wire(timings: v1::AttemptTimings) -> AttemptTimings {
    AttemptTimings {
        queued: timings.queued.and_then(duration_from_wire),
        resolve: timings.resolve.and_then(duration_from_wire),
        connect: timings.connect.and_then(duration_from_wire),
        handshake: timings.handshake.and_then(duration_from_wire),
        response: timings.response.and_then(duration_from_wire),
        total: timings.total.and_then(duration_from_wire),
    }
}

/// Longest detail that is taken from an agent, in characters.
const MAX_DETAIL: usize = 300;

/// To the wire.
pub fn outcome_to_wire(outcome: &Outcome) -> v1::Outcome {
    v1::Outcome {
        delivery_id: outcome.delivery.as_bytes().to_vec().into(),
        epoch: i64::try_from(outcome.epoch).unwrap_or(i64::MAX),
        class: class_to_wire(outcome.class).into(),
        http_status: outcome.http_status.map_or(0, i32::from),
        handshake: outcome.handshake.as_ref().map(encoded),
        timings: Some(timings_to_wire(&outcome.timings)),
        start_time: Some(timestamp_to_wire(outcome.started_at)),
        mtls_not_enforced: outcome.mtls_not_enforced,
        retry_after: outcome.retry_after.map(duration_to_wire),
        detail: outcome.detail.clone().into_owned(),
        refused_certificate: outcome.refused.as_deref().map(refusal_to_wire),
        receipt: outcome.receipt.as_deref().unwrap_or_default().to_owned(),
        unrecorded_attempts: i32::try_from(outcome.unrecorded_attempts).unwrap_or(i32::MAX),
    }
}

/// To the wire.
pub fn refusal_to_wire(refusal: &CertificateRefusal) -> v1::CertificateRefusal {
    v1::CertificateRefusal {
        client_certificate_version: i32::try_from(refusal.version).unwrap_or(i32::MAX),
        class: class_to_wire(refusal.class).into(),
        handshake: refusal.handshake.as_ref().map(handshake_to_wire),
        detail: refusal.detail.clone().into_owned(),
    }
}

fn refusal_from_wire(refusal: v1::CertificateRefusal) -> Result<CertificateRefusal, WireError> {
    Ok(CertificateRefusal {
        version: u32::try_from(refusal.client_certificate_version)
            .map_err(|_| WireError::Value("client_certificate_version"))?,
        class: class_from_wire(refusal.class).ok_or(WireError::Value("class"))?,
        handshake: refusal.handshake.map(handshake_from_wire).transpose()?,
        detail: detail_from_wire(&refusal.detail),
    })
}

/// Whether it is one is for whoever verifies it.
fn receipt_from_wire(receipt: String) -> Result<Option<Box<str>>, WireError> {
    if receipt.len() > MAX_LENGTH || !receipt.is_ascii() {
        return Err(WireError::Value("receipt"));
    }
    Ok((!receipt.is_empty()).then(|| receipt.into()))
}

/// An HTTP status; none for 0.
pub(super) fn status_from_wire(status: i32) -> Result<Option<u16>, WireError> {
    let status = u16::try_from(status).ok().filter(|status| *status < 1000);
    let status = status.ok_or(WireError::Value("http_status"))?;
    Ok((status > 0).then_some(status))
}

pub(super) fn detail_from_wire(detail: &str) -> Cow<'static, str> {
    detail.chars().take(MAX_DETAIL).collect::<String>().into()
}

/// From the wire.
///
/// # Errors
/// [`WireError`], naming the field.
pub fn outcome_from_wire(outcome: v1::Outcome) -> Result<Outcome, WireError> {
    outcome_with(outcome, handshake_from_encoded)
}

/// From the wire, with `handshake` for what reads a handshake's record from its encoded form.
///
/// # Errors
/// [`WireError`], naming the field.
pub fn outcome_with(
    outcome: v1::Outcome,
    handshake: impl FnOnce(&Bytes) -> Result<SharedRecord, WireError>,
) -> Result<Outcome, WireError> {
    Ok(Outcome {
        delivery: delivery_id(&outcome.delivery_id)?,
        epoch: epoch(outcome.epoch)?,
        class: class_from_wire(outcome.class).ok_or(WireError::Value("class"))?,
        mtls_not_enforced: outcome.mtls_not_enforced,
        http_status: status_from_wire(outcome.http_status)?,
        handshake: outcome.handshake.as_ref().map(handshake).transpose()?,
        timings: outcome.timings.map(timings_from_wire).unwrap_or_default(),
        started_at: outcome
            .start_time
            .map(timestamp_from_wire)
            .ok_or(WireError::Missing("start_time"))?,
        retry_after: outcome.retry_after.and_then(duration_from_wire),
        detail: detail_from_wire(&outcome.detail),
        refused: outcome
            .refused_certificate
            .map(|refusal| refusal_from_wire(refusal).map(Box::new))
            .transpose()?,
        receipt: receipt_from_wire(outcome.receipt)?,
        unrecorded_attempts: u32::try_from(outcome.unrecorded_attempts)
            .map_err(|_| WireError::Value("unrecorded_attempts"))?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{class::FailureClass, random, time::Timestamp};

    fn outcome() -> Outcome {
        Outcome {
            delivery: random::uuid_v7(Timestamp::from_unix_seconds(1)).into(),
            epoch: 3,
            class: FailureClass::HttpRateLimited,
            mtls_not_enforced: true,
            http_status: Some(429),
            handshake: Some(
                HandshakeRecord {
                    completed: true,
                    client_certificate_requested: true,
                    presented: Some(PresentedCertificate {
                        version: 2,
                        serial: "0a".into(),
                    }),
                    tls_version: Some("TLSv1.3".into()),
                    alert: Some(Alert {
                        number: 0,
                        name: "close_notify".into(),
                    }),
                    server: Some(ServerCertificate {
                        subject: "CN=a".into(),
                        issuer: "CN=b".into(),
                        not_after: Timestamp::from_unix_seconds(9),
                    }),
                    ..HandshakeRecord::default()
                }
                .into(),
            ),
            timings: AttemptTimings {
                total: Some(Duration::from_micros(1234)),
                ..AttemptTimings::default()
            },
            started_at: Timestamp::from_unix_micros(1_000_001),
            retry_after: Some(Duration::from_secs(7)),
            detail: "asked to wait".into(),
            refused: Some(Box::new(CertificateRefusal {
                version: 3,
                class: FailureClass::ClientCaNotTrusted,
                handshake: Some(HandshakeRecord::default()),
                detail: "unknown".into(),
            })),
            receipt: Some("a.b.c".into()),
            unrecorded_attempts: 4,
        }
    }

    #[test]
    fn outcomes_round_trip() {
        let original = outcome();
        assert_eq!(outcome_from_wire(outcome_to_wire(&original)), Ok(original));
    }

    #[test]
    fn outcomes_that_mean_nothing_name_the_field() {
        let good = outcome_to_wire(&outcome());
        type Case = (&'static str, fn(&mut v1::Outcome));
        let cases: [Case; 6] = [
            ("unrecorded_attempts", |outcome| {
                outcome.unrecorded_attempts = -1
            }),
            ("delivery_id", |outcome| {
                outcome.delivery_id = vec![1].into()
            }),
            ("epoch", |outcome| outcome.epoch = -1),
            ("class", |outcome| outcome.class = 999),
            ("http_status", |outcome| outcome.http_status = 70_000),
            ("start_time", |outcome| outcome.start_time = None),
        ];
        for (field, spoil) in cases {
            let mut bad = good.clone();
            spoil(&mut bad);
            let error = outcome_from_wire(bad).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
