//! For the tests of this folder: a destination, its certificates and what is known of its rotation.

use std::time::Duration;

use countersign_shared::{
    bundle::{MinimumTls, MtlsEnforcement},
    class::FailureClass,
    probe::ProbePresentation,
    time::Timestamp,
};

use crate::model::{
    AuthorityState, CertificateRequest, ClientCertificate, ClientCertificateState as State,
    DeliveryPolicy, Destination, DestinationConfig, DestinationKey, DestinationState, KeyAlgorithm,
    ProbeNote, Refusal, Rotation, RotationView, Sealed, SignatureSchemes, TrustModel,
};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
pub(super) const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// When the tests take place: the first certificate begins then.
pub(super) const START: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

pub(super) fn config() -> DestinationConfig {
    DestinationConfig {
        display_name: String::new(),
        url: "https://receiver.example/".to_owned(),
        trust_model: TrustModel::Dedicated,
        key_algorithm: KeyAlgorithm::EcdsaP256,
        region: None,
        server_ca_pem: String::new(),
        minimum_tls: MinimumTls::Tls13,
        mtls_enforcement: MtlsEnforcement::Deliver,
        attempt_timeout: Duration::from_secs(30),
        concurrency_limit: 8,
        signatures: SignatureSchemes::default(),
        policy: DeliveryPolicy::default(),
        allowed_ranges: Vec::new(),
        ordering_failure: crate::model::OrderingFailure::Hold,
        delivery_receipts: false,
    }
}

/// Issued by the first generation at `START`, with a serial number that renews it at 60 % sharp.
pub(super) fn certificate(version: u32, state: State) -> ClientCertificate {
    ClientCertificate {
        version,
        state,
        trust_model: TrustModel::Dedicated,
        key_algorithm: KeyAlgorithm::EcdsaP256,
        serial: "40000000".to_owned(),
        certificate: Vec::new(),
        chain: Vec::new(),
        issuer_generation: Some(1),
        sealed_key: Sealed(Vec::new()),
        not_before: START,
        not_after: START.plus(LIFE),
        activated_at: None,
        confirmed_at: None,
        replaced_at: None,
        revoked_at: None,
    }
}

/// A view of a destination with these certificates, newest first.
pub(super) fn view(certificates: Vec<ClientCertificate>) -> RotationView {
    let active = certificates.iter().find(|it| it.state == State::Active);
    RotationView {
        destination: Destination {
            key: DestinationKey(1),
            name: "accounts/acme/destinations/orders".parse().unwrap(),
            config: config(),
            state: DestinationState::Enabled,
            active_certificate: active.map_or(0, |it| it.version),
            generation: 1,
            failing_since: None,
            created_at: START,
            updated_at: START,
            revision: 1,
        },
        highest_version: certificates.iter().map(|it| it.version).max().unwrap_or(0),
        certificates,
        request: None,
        rotation: Rotation {
            epoch: 1,
            next_look_at: START,
            asked: false,
            refused: None,
            refusals: 0,
            held_up: None,
            trust: None,
            probes: Vec::new(),
        },
        generations: vec![(1, AuthorityState::Active)],
    }
}

pub(super) fn probed(version: u32, class: FailureClass, at: Timestamp, failures: u32) -> ProbeNote {
    ProbeNote {
        version,
        presentation: ProbePresentation::Chain,
        at,
        class,
        accepted: class.accepts_client_certificate(),
        failures,
    }
}

pub(super) fn refusal(version: u32, at: Timestamp) -> Option<Refusal> {
    Some(Refusal {
        version,
        class: FailureClass::ClientCaNotTrusted,
        at,
    })
}

pub(super) fn request(version: u32, key_algorithm: KeyAlgorithm) -> Option<CertificateRequest> {
    Some(CertificateRequest {
        version,
        request: Vec::new(),
        key_algorithm,
        sealed_key: Sealed(Vec::new()),
        created_at: START,
    })
}
