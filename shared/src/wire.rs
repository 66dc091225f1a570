//! Between the vocabulary and its wire form: what comes from the other side is checked here, once,
//! and becomes a domain type or a [`WireError`] that names the field.

use std::time::Duration;

use countersign_proto::v1;
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::{
    address_range::{AddressRange, MAX_ALLOWED_RANGES},
    bundle::{Bundle, MinimumTls, MtlsEnforcement, UrlError, parse_destination_url},
    class::FailureClass,
    job::LeaseId,
    name::{DeliveryId, NameError},
    outcome::{
        Alert, AttemptTimings, HandshakeRecord, Outcome, PresentedCertificate, ServerCertificate,
    },
    secret::SecretBytes,
    time::Timestamp,
};

/// Why a message of the other side is not understood.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum WireError {
    /// A field without which the message means nothing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field with a value outside its range.
    #[error("{0} has a value that is not allowed")]
    Value(&'static str),
    /// A malformed resource name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A malformed URL.
    #[error("url {0}")]
    Url(#[from] UrlError),
}

/// To the wire.
pub fn timestamp_to_wire(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_unix_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0),
    }
}

/// From the wire; nanoseconds are cut to microseconds.
pub fn timestamp_from_wire(at: prost_types::Timestamp) -> Timestamp {
    let micros = at.seconds.saturating_mul(1_000_000);
    Timestamp::from_unix_micros(micros.saturating_add(i64::from(at.nanos) / 1000))
}

/// To the wire; saturates at the largest time that fits.
pub fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// From the wire; `None` for a negative or denormal one.
pub fn duration_from_wire(duration: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok()?;
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// Defines both directions between [`FailureClass`] and its wire form.
macro_rules! failure_classes {
    ($($name:ident),* $(,)?) => {
        /// To the wire.
        pub fn class_to_wire(class: FailureClass) -> v1::FailureClass {
            match class { $(FailureClass::$name => v1::FailureClass::$name,)* }
        }

        /// From the wire; `None` for an unknown or unspecified one.
        pub fn class_from_wire(class: i32) -> Option<FailureClass> {
            match v1::FailureClass::try_from(class).ok()? {
                v1::FailureClass::Unspecified => None,
                $(v1::FailureClass::$name => Some(FailureClass::$name),)*
            }
        }
    };
}

failure_classes!(
    Delivered,
    MtlsNotEnforced,
    ClientCertificateExpired,
    ClientCaNotTrusted,
    ClientCertificateRevoked,
    ClientCertificateRequired,
    ClientCertificateRejected,
    ClientIdentityForbidden,
    ServerCertificateExpired,
    ServerCaNotTrusted,
    ServerNameMismatch,
    ServerCertificateRevoked,
    TlsVersionUnsupported,
    TlsHandshakeFailed,
    DnsFailure,
    ConnectionRefused,
    ConnectionTimeout,
    ConnectionLost,
    RequestTimeout,
    EgressDenied,
    HttpRedirect,
    HttpGone,
    HttpRateLimited,
    HttpClientError,
    HttpServerError,
    NotAttempted,
);

/// To the wire.
pub fn minimum_tls_to_wire(version: MinimumTls) -> v1::TlsVersion {
    match version {
        MinimumTls::Tls12 => v1::TlsVersion::TlsVersion12,
        MinimumTls::Tls13 => v1::TlsVersion::TlsVersion13,
    }
}

/// From the wire; unspecified is the default, unknown is `None`.
pub fn minimum_tls_from_wire(version: i32) -> Option<MinimumTls> {
    Some(match v1::TlsVersion::try_from(version).ok()? {
        v1::TlsVersion::Unspecified => MinimumTls::default(),
        v1::TlsVersion::TlsVersion12 => MinimumTls::Tls12,
        v1::TlsVersion::TlsVersion13 => MinimumTls::Tls13,
    })
}

/// To the wire.
pub fn enforcement_to_wire(enforcement: MtlsEnforcement) -> v1::MtlsEnforcement {
    match enforcement {
        MtlsEnforcement::Deliver => v1::MtlsEnforcement::Deliver,
        MtlsEnforcement::Refuse => v1::MtlsEnforcement::Refuse,
    }
}

/// From the wire; unspecified is the default, unknown is `None`.
pub fn enforcement_from_wire(enforcement: i32) -> Option<MtlsEnforcement> {
    Some(match v1::MtlsEnforcement::try_from(enforcement).ok()? {
        v1::MtlsEnforcement::Unspecified => MtlsEnforcement::default(),
        v1::MtlsEnforcement::Deliver => MtlsEnforcement::Deliver,
        v1::MtlsEnforcement::Refuse => MtlsEnforcement::Refuse,
    })
}

/// To the wire.
pub fn lease_to_wire(lease: LeaseId) -> v1::HeldLease {
    v1::HeldLease {
        delivery_id: lease.delivery.as_bytes().to_vec().into(),
        epoch: i64::try_from(lease.epoch).unwrap_or(i64::MAX),
    }
}

/// From the wire.
///
/// # Errors
/// [`WireError::Value`].
pub fn lease_from_wire(lease: &v1::HeldLease) -> Result<LeaseId, WireError> {
    Ok(LeaseId {
        delivery: delivery_id(&lease.delivery_id)?,
        epoch: epoch(lease.epoch)?,
    })
}

/// A delivery id from its 16 bytes.
///
/// # Errors
/// [`WireError::Value`] for another length.
pub fn delivery_id(bytes: &[u8]) -> Result<DeliveryId, WireError> {
    DeliveryId::from_slice(bytes).ok_or(WireError::Value("delivery_id"))
}

/// A fencing token.
///
/// # Errors
/// [`WireError::Value`] for a negative one.
pub fn epoch(epoch: i64) -> Result<u64, WireError> {
    u64::try_from(epoch).map_err(|_| WireError::Value("epoch"))
}

/// To the wire, with the content hash that agents and control planes compare.
pub fn bundle_to_wire(bundle: &Bundle) -> v1::Bundle {
    let der =
        |list: &[CertificateDer<'static>]| list.iter().map(|item| item.to_vec().into()).collect();
    v1::Bundle {
        destination: bundle.destination.to_string(),
        generation: i64::try_from(bundle.generation).unwrap_or(i64::MAX),
        content_sha256: bundle.content_sha256.to_vec().into(),
        url: bundle.url.to_string(),
        certificate_chain: der(&bundle.certificate_chain),
        private_key: bundle.private_key.expose().to_vec().into(),
        client_certificate_version: i32::try_from(bundle.client_certificate_version)
            .unwrap_or(i32::MAX),
        server_cas: der(&bundle.server_cas),
        minimum_tls_version: minimum_tls_to_wire(bundle.minimum_tls).into(),
        mtls_enforcement: enforcement_to_wire(bundle.mtls_enforcement).into(),
        signing_secrets: bundle
            .signing_secrets
            .iter()
            .map(|secret| secret.expose().to_vec().into())
            .collect(),
        attempt_timeout: Some(duration_to_wire(bundle.attempt_timeout)),
        concurrency_limit: i32::try_from(bundle.concurrency_limit).unwrap_or(i32::MAX),
        allowed_ranges: bundle
            .allowed_ranges
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// From the wire. Whether certificate and key fit together is for whoever uses them to find out.
///
/// # Errors
/// [`WireError`], naming the field.
pub fn bundle_from_wire(bundle: v1::Bundle) -> Result<Bundle, WireError> {
    let der = |list: Vec<bytes::Bytes>| -> Vec<CertificateDer<'static>> {
        let owned = list.into_iter().map(|item| item.to_vec().into());
        owned.collect()
    };
    let certificate_chain = der(bundle.certificate_chain);
    if certificate_chain.is_empty() {
        return Err(WireError::Missing("certificate_chain"));
    }
    if bundle.private_key.is_empty() {
        return Err(WireError::Missing("private_key"));
    }
    if bundle.signing_secrets.is_empty() {
        return Err(WireError::Missing("signing_secrets"));
    }
    Ok(Bundle {
        destination: bundle.destination.parse()?,
        generation: u64::try_from(bundle.generation).map_err(|_| WireError::Value("generation"))?,
        content_sha256: bundle
            .content_sha256
            .as_ref()
            .try_into()
            .map_err(|_| WireError::Value("content_sha256"))?,
        url: parse_destination_url(&bundle.url)?,
        certificate_chain,
        private_key: SecretBytes::from(bundle.private_key.to_vec()),
        client_certificate_version: u32::try_from(bundle.client_certificate_version)
            .map_err(|_| WireError::Value("client_certificate_version"))?,
        server_cas: der(bundle.server_cas),
        minimum_tls: minimum_tls_from_wire(bundle.minimum_tls_version)
            .ok_or(WireError::Value("minimum_tls_version"))?,
        mtls_enforcement: enforcement_from_wire(bundle.mtls_enforcement)
            .ok_or(WireError::Value("mtls_enforcement"))?,
        signing_secrets: bundle
            .signing_secrets
            .iter()
            .map(|secret| SecretBytes::from(secret.to_vec()))
            .collect(),
        attempt_timeout: bundle
            .attempt_timeout
            .and_then(duration_from_wire)
            .ok_or(WireError::Value("attempt_timeout"))?,
        concurrency_limit: u32::try_from(bundle.concurrency_limit)
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or(WireError::Value("concurrency_limit"))?,
        allowed_ranges: allowed_ranges_from_wire(&bundle.allowed_ranges)?,
    })
}

fn allowed_ranges_from_wire(ranges: &[String]) -> Result<Vec<AddressRange>, WireError> {
    if ranges.len() > MAX_ALLOWED_RANGES {
        return Err(WireError::Value("allowed_ranges"));
    }
    let parsed = ranges.iter().map(|range| range.parse());
    let parsed: Result<_, _> = parsed.collect();
    parsed.map_err(|_| WireError::Value("allowed_ranges"))
}

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
    acceptable_ca_names.truncate(crate::outcome::MAX_ACCEPTABLE_CA_NAMES);
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
        handshake: outcome.handshake.as_ref().map(handshake_to_wire),
        timings: Some(timings_to_wire(&outcome.timings)),
        start_time: Some(timestamp_to_wire(outcome.started_at)),
        mtls_not_enforced: outcome.mtls_not_enforced,
        retry_after: outcome.retry_after.map(duration_to_wire),
        detail: outcome.detail.clone().into_owned(),
    }
}

/// From the wire.
///
/// # Errors
/// [`WireError`], naming the field.
pub fn outcome_from_wire(outcome: v1::Outcome) -> Result<Outcome, WireError> {
    let http_status = u16::try_from(outcome.http_status)
        .ok()
        .filter(|status| *status < 1000)
        .ok_or(WireError::Value("http_status"))?;
    let detail: String = outcome.detail.chars().take(MAX_DETAIL).collect();
    Ok(Outcome {
        delivery: delivery_id(&outcome.delivery_id)?,
        epoch: epoch(outcome.epoch)?,
        class: class_from_wire(outcome.class).ok_or(WireError::Value("class"))?,
        mtls_not_enforced: outcome.mtls_not_enforced,
        http_status: (http_status > 0).then_some(http_status),
        handshake: outcome.handshake.map(handshake_from_wire).transpose()?,
        timings: outcome.timings.map(timings_from_wire).unwrap_or_default(),
        started_at: outcome
            .start_time
            .map(timestamp_from_wire)
            .ok_or(WireError::Missing("start_time"))?,
        retry_after: outcome.retry_after.and_then(duration_from_wire),
        detail: detail.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bundle::CONCURRENCY_LIMIT, name::Id, random, signature};

    fn outcome() -> Outcome {
        Outcome {
            delivery: random::uuid_v7(Timestamp::from_unix_seconds(1)).into(),
            epoch: 3,
            class: FailureClass::HttpRateLimited,
            mtls_not_enforced: true,
            http_status: Some(429),
            handshake: Some(HandshakeRecord {
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
            }),
            timings: AttemptTimings {
                total: Some(Duration::from_micros(1234)),
                ..AttemptTimings::default()
            },
            started_at: Timestamp::from_unix_micros(1_000_001),
            retry_after: Some(Duration::from_secs(7)),
            detail: "asked to wait".into(),
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
        let cases: [Case; 5] = [
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

    #[test]
    fn classes_keep_their_names_on_the_wire() {
        for &class in FailureClass::ALL {
            let wire = class_to_wire(class);
            assert_eq!(class_from_wire(wire.into()), Some(class));
            let name = format!("FAILURE_CLASS_{class}");
            assert_eq!(wire.as_str_name(), name);
        }
    }

    #[test]
    fn bundles_round_trip_and_what_is_missing_is_named() {
        let account = Id::chosen("acme").unwrap();
        let bundle = Bundle {
            destination: crate::name::DestinationName::new(&account, &account),
            generation: 4,
            content_sha256: [9; 32],
            url: parse_destination_url("https://a.example/").unwrap(),
            certificate_chain: vec![vec![1, 2].into()],
            private_key: SecretBytes::from(vec![3]),
            client_certificate_version: 1,
            server_cas: Vec::new(),
            minimum_tls: MinimumTls::Tls12,
            mtls_enforcement: MtlsEnforcement::Refuse,
            signing_secrets: vec![signature::generate_secret()],
            attempt_timeout: Duration::from_secs(30),
            concurrency_limit: CONCURRENCY_LIMIT.2,
            allowed_ranges: vec!["10.1.0.0/16".parse().unwrap()],
        };
        let wire = bundle_to_wire(&bundle);
        assert!(!format!("{wire:?}").contains("private_key"));
        let back = bundle_from_wire(wire.clone()).unwrap();
        assert_eq!(bundle_to_wire(&back), wire);
        // A range that is not understood must not become no range at all.
        let mut unclear = wire.clone();
        unclear.allowed_ranges = vec!["10.1.0.0".into()];
        assert_eq!(
            bundle_from_wire(unclear).unwrap_err(),
            WireError::Value("allowed_ranges")
        );
        let mut keyless = wire;
        keyless.private_key = Vec::new().into();
        assert_eq!(
            bundle_from_wire(keyless).unwrap_err(),
            WireError::Missing("private_key")
        );
    }
}
