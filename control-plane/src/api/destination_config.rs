//! What an operator decides about a destination, between the wire and the domain.

use countersign_proto::v1;
use countersign_shared::{
    address_range::{AddressRange, MAX_ALLOWED_RANGES},
    bundle::{
        ATTEMPT_TIMEOUT, CONCURRENCY_LIMIT, MinimumTls, MtlsEnforcement, parse_destination_url,
    },
    tls,
    wire::{
        duration_from_wire, duration_to_wire, enforcement_from_wire, enforcement_to_wire,
        minimum_tls_from_wire, minimum_tls_to_wire, timestamp_to_wire,
    },
};

use super::{delivery_policy, violations::Violations};
use crate::model::{
    DeliveryPolicy, Destination, DestinationConfig, DestinationState, KeyAlgorithm,
    OrderingFailure, SignatureSchemes, TrustModel,
};

/// How much is shown of a text that is no range: as long as the longest that is one.
const LONGEST_RANGE: usize = 49;

/// Fields that an update can change.
pub(super) const FIELDS: &[&str] = &[
    "display_name",
    "url",
    "trust_model",
    "key_algorithm",
    "region",
    "server_ca_pem",
    "minimum_tls_version",
    "mtls_enforcement",
    "attempt_timeout",
    "concurrency_limit",
    "allowed_ranges",
    "retry_policy",
    "rate_limit_per_second",
    "signature_schemes",
    "ordering_failure",
    "delivery_receipts",
    "max_offline",
];

/// A new destination's configuration; `url` is required, the rest has defaults.
pub(super) fn new(violations: &mut Violations, wire: &v1::Destination) -> DestinationConfig {
    let mut config = DestinationConfig {
        display_name: String::new(),
        url: String::new(),
        trust_model: TrustModel::default(),
        key_algorithm: KeyAlgorithm::default(),
        region: None,
        server_ca_pem: String::new(),
        minimum_tls: MinimumTls::default(),
        mtls_enforcement: MtlsEnforcement::default(),
        attempt_timeout: ATTEMPT_TIMEOUT.2,
        concurrency_limit: CONCURRENCY_LIMIT.2,
        allowed_ranges: Vec::new(),
        signatures: SignatureSchemes::default(),
        policy: DeliveryPolicy::default(),
        ordering_failure: OrderingFailure::default(),
        delivery_receipts: false,
    };
    for field in FIELDS
        .iter()
        .filter(|field| **field == "url" || is_set(wire, field))
    {
        apply(violations, &mut config, wire, field);
    }
    config
}

fn trust_model_from_wire(wire: i32) -> Option<TrustModel> {
    Some(match v1::TrustModel::try_from(wire).ok()? {
        v1::TrustModel::Unspecified | v1::TrustModel::Dedicated => TrustModel::Dedicated,
        v1::TrustModel::Shared => TrustModel::Shared,
        v1::TrustModel::Customer => TrustModel::Customer,
    })
}

/// To the wire.
pub(super) fn trust_model_to_wire(trust_model: TrustModel) -> v1::TrustModel {
    match trust_model {
        TrustModel::Dedicated => v1::TrustModel::Dedicated,
        TrustModel::Shared => v1::TrustModel::Shared,
        TrustModel::Customer => v1::TrustModel::Customer,
    }
}

fn schemes_from_wire(wire: &[i32]) -> Option<SignatureSchemes> {
    use v1::SignatureScheme::{V1, V1a};
    let schemes: Result<Vec<_>, _> = wire.iter().map(|it| (*it).try_into()).collect();
    Some(match schemes.ok()?.as_slice() {
        [] | [V1] => SignatureSchemes::V1,
        [V1a] => SignatureSchemes::V1a,
        [V1, V1a] | [V1a, V1] => SignatureSchemes::Both,
        _ => return None,
    })
}

fn schemes_to_wire(schemes: SignatureSchemes) -> Vec<i32> {
    use v1::SignatureScheme::{V1, V1a};
    match schemes {
        SignatureSchemes::V1 => vec![V1.into()],
        SignatureSchemes::V1a => vec![V1a.into()],
        SignatureSchemes::Both => vec![V1.into(), V1a.into()],
    }
}

fn key_algorithm_from_wire(wire: i32) -> Option<KeyAlgorithm> {
    Some(match v1::KeyAlgorithm::try_from(wire).ok()? {
        v1::KeyAlgorithm::Unspecified | v1::KeyAlgorithm::EcdsaP256 => KeyAlgorithm::EcdsaP256,
        v1::KeyAlgorithm::EcdsaP384 => KeyAlgorithm::EcdsaP384,
        v1::KeyAlgorithm::Rsa2048 => KeyAlgorithm::Rsa2048,
        v1::KeyAlgorithm::Rsa3072 => KeyAlgorithm::Rsa3072,
    })
}

/// To the wire.
pub(super) fn key_algorithm_to_wire(algorithm: KeyAlgorithm) -> v1::KeyAlgorithm {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => v1::KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384 => v1::KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa2048 => v1::KeyAlgorithm::Rsa2048,
        KeyAlgorithm::Rsa3072 => v1::KeyAlgorithm::Rsa3072,
    }
}

fn ordering_failure_from_wire(wire: i32) -> Option<OrderingFailure> {
    Some(match v1::OrderingFailure::try_from(wire).ok()? {
        v1::OrderingFailure::Unspecified | v1::OrderingFailure::Hold => OrderingFailure::Hold,
        v1::OrderingFailure::Skip => OrderingFailure::Skip,
    })
}

fn ordering_failure_to_wire(ordering_failure: OrderingFailure) -> v1::OrderingFailure {
    match ordering_failure {
        OrderingFailure::Hold => v1::OrderingFailure::Hold,
        OrderingFailure::Skip => v1::OrderingFailure::Skip,
    }
}

/// Whether a field has another value than the wire's default.
pub(super) fn is_set(wire: &v1::Destination, field: &str) -> bool {
    match field {
        "display_name" => !wire.display_name.is_empty(),
        "url" => !wire.url.is_empty(),
        "trust_model" => wire.trust_model != 0,
        "key_algorithm" => wire.key_algorithm != 0,
        "region" => !wire.region.is_empty(),
        "server_ca_pem" => !wire.server_ca_pem.is_empty(),
        "minimum_tls_version" => wire.minimum_tls_version != 0,
        "mtls_enforcement" => wire.mtls_enforcement != 0,
        "attempt_timeout" => wire.attempt_timeout.is_some(),
        "concurrency_limit" => wire.concurrency_limit != 0,
        "allowed_ranges" => !wire.allowed_ranges.is_empty(),
        "retry_policy" => wire.retry_policy.is_some(),
        "rate_limit_per_second" => wire.rate_limit_per_second != 0,
        "signature_schemes" => !wire.signature_schemes.is_empty(),
        "ordering_failure" => wire.ordering_failure != 0,
        "delivery_receipts" => wire.delivery_receipts,
        "max_offline" => wire.max_offline.is_some(),
        _ => false,
    }
}

/// Takes one field over; a bad value is noted and changes nothing.
pub(super) fn apply(
    violations: &mut Violations,
    config: &mut DestinationConfig,
    wire: &v1::Destination,
    field: &str,
) {
    let name = format!("destination.{field}");
    match field {
        "display_name" => {
            violations.display_name(&name, &wire.display_name);
            config.display_name.clone_from(&wire.display_name);
        }
        "url" => match parse_destination_url(&wire.url) {
            Ok(url) => config.url = url.to_string(),
            Err(error) => violations.add(name, error.to_string()),
        },
        "trust_model" => match trust_model_from_wire(wire.trust_model) {
            Some(trust_model) => config.trust_model = trust_model,
            None => violations.add(name, "is not a known trust model"),
        },
        "key_algorithm" => match key_algorithm_from_wire(wire.key_algorithm) {
            Some(algorithm) => config.key_algorithm = algorithm,
            None => violations.add(name, "is not a known key algorithm"),
        },
        "region" => config.region = violations.optional_id(&name, &wire.region),
        "server_ca_pem" => {
            if !wire.server_ca_pem.is_empty()
                && let Err(error) = tls::certificates_from_pem(&wire.server_ca_pem)
            {
                violations.add(name, error.to_string());
            }
            config.server_ca_pem.clone_from(&wire.server_ca_pem);
        }
        "minimum_tls_version" => match minimum_tls_from_wire(wire.minimum_tls_version) {
            Some(version) => config.minimum_tls = version,
            None => violations.add(name, "is not a known TLS version"),
        },
        "mtls_enforcement" => match enforcement_from_wire(wire.mtls_enforcement) {
            Some(enforcement) => config.mtls_enforcement = enforcement,
            None => violations.add(name, "is not a known enforcement"),
        },
        "attempt_timeout" => apply_timeout(violations, config, wire, name),
        "concurrency_limit" => apply_limit(violations, config, wire, name),
        "allowed_ranges" => apply_ranges(violations, config, wire, name),
        "retry_policy" => {
            let wire = wire.retry_policy.as_ref();
            config.policy.retry = delivery_policy::retry(violations, &name, wire);
        }
        "signature_schemes" => match schemes_from_wire(&wire.signature_schemes) {
            Some(schemes) => config.signatures = schemes,
            None => violations.add(name, "has a scheme that is not known, or one twice"),
        },
        "rate_limit_per_second" => {
            let wire = wire.rate_limit_per_second;
            config.policy.rate_limit = delivery_policy::rate_limit(violations, &name, wire);
        }
        "ordering_failure" => match ordering_failure_from_wire(wire.ordering_failure) {
            Some(ordering_failure) => config.ordering_failure = ordering_failure,
            None => violations.add(name, "is not a known reaction"),
        },
        "delivery_receipts" => config.delivery_receipts = wire.delivery_receipts,
        "max_offline" => {
            config.policy.max_offline =
                delivery_policy::max_offline(violations, &name, wire.max_offline);
        }
        _ => {}
    }
}

fn apply_timeout(
    violations: &mut Violations,
    config: &mut DestinationConfig,
    wire: &v1::Destination,
    name: String,
) {
    let (shortest, longest, default) = ATTEMPT_TIMEOUT;
    let asked = wire
        .attempt_timeout
        .map_or(Some(default), duration_from_wire);
    match asked.filter(|timeout| (shortest..=longest).contains(timeout)) {
        Some(timeout) => config.attempt_timeout = timeout,
        None => {
            let (shortest, longest) = (shortest.as_secs(), longest.as_secs());
            violations.add(name, format!("must be from {shortest} s to {longest} s"));
        }
    }
}

fn apply_limit(
    violations: &mut Violations,
    config: &mut DestinationConfig,
    wire: &v1::Destination,
    name: String,
) {
    let (least, most, default) = CONCURRENCY_LIMIT;
    let asked = match wire.concurrency_limit {
        0 => Ok(default),
        limit => u32::try_from(limit),
    };
    match asked.ok().filter(|limit| (least..=most).contains(limit)) {
        Some(limit) => config.concurrency_limit = limit,
        None => violations.add(name, format!("must be from {least} to {most}")),
    }
}

fn apply_ranges(
    violations: &mut Violations,
    config: &mut DestinationConfig,
    wire: &v1::Destination,
    name: String,
) {
    if wire.allowed_ranges.len() > MAX_ALLOWED_RANGES {
        let problem = format!("must have at most {MAX_ALLOWED_RANGES} ranges");
        return violations.add(name, problem);
    }
    let mut ranges = Vec::new();
    for text in &wire.allowed_ranges {
        match text.parse::<AddressRange>() {
            Ok(range) => ranges.push(range),
            Err(error) => {
                let shown: String = text.chars().take(LONGEST_RANGE).collect();
                violations.add(name.as_str(), format!("'{shown}' {error}"));
            }
        }
    }
    config.allowed_ranges = ranges;
}

/// To the wire, without the agents that hold the bundle.
pub(super) fn to_wire(destination: &Destination) -> v1::Destination {
    let config = &destination.config;
    let state = match destination.state {
        DestinationState::Enabled => v1::DestinationState::Enabled,
        DestinationState::Disabled => v1::DestinationState::Disabled,
    };
    let version = destination.active_certificate;
    v1::Destination {
        name: destination.name.to_string(),
        display_name: config.display_name.clone(),
        url: config.url.clone(),
        state: state.into(),
        trust_model: trust_model_to_wire(config.trust_model).into(),
        key_algorithm: key_algorithm_to_wire(config.key_algorithm).into(),
        region: config
            .region
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        server_ca_pem: config.server_ca_pem.clone(),
        minimum_tls_version: minimum_tls_to_wire(config.minimum_tls).into(),
        mtls_enforcement: enforcement_to_wire(config.mtls_enforcement).into(),
        attempt_timeout: Some(duration_to_wire(config.attempt_timeout)),
        concurrency_limit: i32::try_from(config.concurrency_limit).unwrap_or(i32::MAX),
        allowed_ranges: config
            .allowed_ranges
            .iter()
            .map(ToString::to_string)
            .collect(),
        ordering_failure: ordering_failure_to_wire(config.ordering_failure).into(),
        delivery_receipts: config.delivery_receipts,
        max_offline: config.policy.max_offline.map(duration_to_wire),
        active_client_certificate: match version {
            0 => String::new(),
            version => format!("{}/clientCertificates/{version}", destination.name),
        },
        bundle_generation: i64::try_from(destination.generation).unwrap_or(i64::MAX),
        create_time: Some(timestamp_to_wire(destination.created_at)),
        update_time: Some(timestamp_to_wire(destination.updated_at)),
        etag: destination.revision.to_string(),
        signature_schemes: schemes_to_wire(config.signatures),
        retry_policy: delivery_policy::retry_to_wire(&config.policy.retry),
        rate_limit_per_second: config
            .policy
            .rate_limit
            .map_or(0, |limit| i32::try_from(limit).unwrap_or(i32::MAX)),
        client_certificate_rotation: None,
        delivery_flow: None,
        failing_since_time: destination.failing_since.map(timestamp_to_wire),
        durable_agents: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn good() -> v1::Destination {
        v1::Destination {
            url: "https://receiver.example/hook".into(),
            ..v1::Destination::default()
        }
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let mut violations = Violations::default();
        let config = new(&mut violations, &good());
        assert!(violations.check().is_ok());
        assert_eq!(config.attempt_timeout, Duration::from_secs(30));
        assert_eq!(config.concurrency_limit, 64);
        assert_eq!(config.minimum_tls, MinimumTls::Tls13);
        assert_eq!(config.mtls_enforcement, MtlsEnforcement::Deliver);
    }

    #[test]
    fn every_bad_field_is_named() {
        let wire = v1::Destination {
            url: "http://receiver.example/".into(),
            region: "Europe".into(),
            server_ca_pem: "x".into(),
            minimum_tls_version: 9,
            mtls_enforcement: 9,
            ordering_failure: 9,
            attempt_timeout: Some(prost_types::Duration {
                seconds: 121,
                nanos: 0,
            }),
            concurrency_limit: -1,
            allowed_ranges: vec!["10.1.2.3/8".into()],
            trust_model: 9,
            key_algorithm: 9,
            display_name: "\u{7}".into(),
            rate_limit_per_second: -1,
            signature_schemes: vec![1, 1],
            retry_policy: Some(v1::RetryPolicy {
                deadline: Some(prost_types::Duration::default()),
                waits: None,
            }),
            max_offline: Some(prost_types::Duration {
                seconds: 59,
                nanos: 0,
            }),
            ..v1::Destination::default()
        };
        let mut violations = Violations::default();
        new(&mut violations, &wire);
        let message = violations.check().unwrap_err().message().to_owned();
        // A switch can't be wrong.
        for field in FIELDS.iter().filter(|it| **it != "delivery_receipts") {
            assert!(
                message.contains(&format!("destination.{field}")),
                "{field}: {message}"
            );
        }
        assert!(message.contains("destination.trust_model"), "{message}");
        assert!(message.contains("did you mean 10.0.0.0/8?"), "{message}");
    }

    #[test]
    fn ranges_are_taken_and_bounded() {
        let mut violations = Violations::default();
        let some = v1::Destination {
            allowed_ranges: vec!["10.1.0.0/16".into(), "fd00:1::/32".into()],
            ..good()
        };
        let mut config = new(&mut violations, &some);
        assert!(violations.check().is_ok());
        assert_eq!(config.allowed_ranges.len(), 2);
        // An update that names the field and gives none takes them away.
        let mut violations = Violations::default();
        apply(&mut violations, &mut config, &good(), "allowed_ranges");
        assert!(config.allowed_ranges.is_empty());
        let many = v1::Destination {
            allowed_ranges: vec!["10.1.0.0/16".into(); MAX_ALLOWED_RANGES + 1],
            ..good()
        };
        apply(&mut violations, &mut config, &many, "allowed_ranges");
        let message = violations.check().unwrap_err().message().to_owned();
        assert!(message.contains("at most 64"), "{message}");
    }
}
