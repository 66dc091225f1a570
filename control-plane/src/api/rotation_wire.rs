//! Rotation, revocation and probes between the domain and the wire.

use countersign_proto::v1;
use countersign_shared::{
    digest::{hex, sha256},
    probe::ProbePresentation,
    tls,
    wire::{class_to_wire, handshake_to_wire, timestamp_to_wire, timings_to_wire},
};
use tonic::{Code, Status};

use super::{
    authority_name::authority_name,
    certificates::authority_state,
    status::{self, status},
    violations::Violations,
};
use crate::{
    bundles::BundleError,
    model::{
        AuthorityOwner, ClientCertificateState as State, DestinationTrust, RevocationReason,
        RotationView, Stop, TrustState,
    },
    rotation::{
        AuthorityError, AuthorityRotation, OperationError, Phase, ProbeError, Probed,
        RotationError, held_up_text,
    },
};

pub(super) fn rotation(view: &RotationView) -> v1::ClientCertificateRotation {
    let named = |is: &dyn Fn(State) -> bool| {
        let mut found = view.certificates.iter().filter(|it| is(it.state));
        found.next().map_or_else(String::new, |it| {
            let name = &view.destination.name;
            format!("{name}/clientCertificates/{}", it.version)
        })
    };
    let held_up = view.rotation.held_up;
    v1::ClientCertificateRotation {
        active_client_certificate: named(&|state| state == State::Active),
        next_client_certificate: named(&|state| {
            matches!(state, State::Pending | State::Distributed)
        }),
        previous_client_certificate: named(&|state| state == State::Retiring),
        held_up_reason: held_up.map_or_else(String::new, |(why, _)| held_up_text(why)),
        held_up_time: held_up.map(|(_, since)| timestamp_to_wire(since)),
        next_look_time: Some(timestamp_to_wire(view.rotation.next_look_at)),
        refusals: i32::try_from(view.rotation.refusals).unwrap_or(i32::MAX),
        signing_request_open: view.request.is_some(),
    }
}

pub(super) fn stop(stop: &Stop) -> v1::RevocationStop {
    v1::RevocationStop {
        agent: stop.agent.to_string(),
        ask_time: Some(timestamp_to_wire(stop.asked_at)),
        acknowledge_time: stop.acknowledged_at.map(timestamp_to_wire),
    }
}

pub(super) fn authority_rotation(
    owner: &AuthorityOwner,
    rotation: &AuthorityRotation,
) -> v1::CertificateAuthorityRotation {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let generations = rotation.generations.iter();
    v1::CertificateAuthorityRotation {
        parent: owner.to_string(),
        phase: match rotation.phase {
            Phase::Stable => v1::RotationPhase::Stable,
            Phase::Prepared => v1::RotationPhase::Prepared,
            Phase::Issuing => v1::RotationPhase::Issuing,
            Phase::Retiring => v1::RotationPhase::Retiring,
            Phase::Aborting => v1::RotationPhase::Aborting,
        }
        .into(),
        generations: generations
            .map(|(authority, used)| v1::GenerationUse {
                certificate_authority: authority_name(owner, authority.generation),
                state: authority_state(authority.state).into(),
                active_count: count(used.active),
                standby_count: count(used.standby),
            })
            .collect(),
        trust_counts: rotation
            .trust
            .iter()
            .map(|(state, counted)| v1::TrustCount {
                state: trust_state(*state).into(),
                count: count(*counted),
            })
            .collect(),
    }
}

pub(super) fn destination_trust(trust: &DestinationTrust) -> v1::DestinationTrust {
    v1::DestinationTrust {
        destination: trust.destination.to_string(),
        state: trust_state(trust.state).into(),
        state_time: trust.at.map(timestamp_to_wire),
        presented_generation: trust
            .presented
            .map_or(0, |it| i32::try_from(it).unwrap_or(i32::MAX)),
        held_up_reason: trust.held_up.map_or_else(String::new, held_up_text),
    }
}

fn trust_state(state: TrustState) -> v1::TrustState {
    match state {
        TrustState::Unknown => v1::TrustState::Unknown,
        TrustState::ProbedOk => v1::TrustState::ProbedOk,
        TrustState::ProbedRefused => v1::TrustState::ProbedRefused,
        TrustState::Acknowledged => v1::TrustState::Acknowledged,
        TrustState::Exempt => v1::TrustState::Exempt,
    }
}

/// The states that a person can say.
pub(super) fn said_trust(violations: &mut Violations, state: i32) -> Option<TrustState> {
    match v1::TrustState::try_from(state) {
        Ok(v1::TrustState::Unknown) => Some(TrustState::Unknown),
        Ok(v1::TrustState::Acknowledged) => Some(TrustState::Acknowledged),
        Ok(v1::TrustState::Exempt) => Some(TrustState::Exempt),
        _ => {
            violations.add("state", "must be ACKNOWLEDGED, EXEMPT or UNKNOWN");
            None
        }
    }
}

pub(super) fn reason(violations: &mut Violations, reason: i32) -> Option<RevocationReason> {
    use v1::RevocationReason as Wire;
    Some(match Wire::try_from(reason) {
        Ok(Wire::Unspecified) => RevocationReason::Unspecified,
        Ok(Wire::KeyCompromise) => RevocationReason::KeyCompromise,
        Ok(Wire::CaCompromise) => RevocationReason::CaCompromise,
        Ok(Wire::AffiliationChanged) => RevocationReason::AffiliationChanged,
        Ok(Wire::Superseded) => RevocationReason::Superseded,
        Ok(Wire::CessationOfOperation) => RevocationReason::CessationOfOperation,
        Ok(Wire::PrivilegeWithdrawn) => RevocationReason::PrivilegeWithdrawn,
        Err(_) => {
            violations.add("reason", "is not a known reason");
            return None;
        }
    })
}

pub(super) fn presentation(
    violations: &mut Violations,
    presentation: i32,
) -> Option<ProbePresentation> {
    use v1::ProbePresentation as Wire;
    Some(match Wire::try_from(presentation) {
        Ok(Wire::Unspecified | Wire::Chain) => ProbePresentation::Chain,
        Ok(Wire::LeafOnly) => ProbePresentation::LeafOnly,
        Ok(Wire::Nothing) => ProbePresentation::Nothing,
        Err(_) => {
            violations.add("presentation", "is not a known presentation");
            return None;
        }
    })
}

pub(super) fn probed(probed: &Probed) -> v1::ProbeDestinationResponse {
    let report = &probed.report;
    let resolution = match report.accepted {
        true => "",
        false => report.class.resolution(),
    };
    v1::ProbeDestinationResponse {
        accepted: report.accepted,
        class: class_to_wire(report.class).into(),
        resolution: resolution.to_owned(),
        detail: report.detail.clone().into_owned(),
        http_status: report.http_status.map_or(0, i32::from),
        handshake: report.handshake.as_ref().map(handshake_to_wire),
        timings: Some(timings_to_wire(&report.timings)),
        server_chain: report
            .server_chain
            .iter()
            .filter_map(|der| server_certificate(der))
            .collect(),
        agent: probed.agent.to_string(),
        start_time: Some(timestamp_to_wire(report.started_at)),
    }
}

fn server_certificate(der: &[u8]) -> Option<v1::ServerChainCertificate> {
    let facts = tls::certificate_facts(der)?;
    Some(v1::ServerChainCertificate {
        subject: facts.subject,
        issuer: facts.issuer,
        serial_number: facts.serial,
        not_before_time: Some(timestamp_to_wire(facts.not_before)),
        not_after_time: Some(timestamp_to_wire(facts.not_after)),
        sha256: hex(&sha256(der)),
    })
}

pub(super) fn operation_error(error: OperationError) -> Status {
    let message = error.to_string();
    let precondition = |reason| status(Code::FailedPrecondition, reason, message.clone());
    match error {
        OperationError::Store(error) | OperationError::Rotation(RotationError::Store(error)) => {
            status::store(error)
        }
        OperationError::Ca(error) => status::ca(error),
        OperationError::Upload(error) => {
            let mut violations = Violations::default();
            violations.add("certificate_pem", error.to_string());
            match violations.check() {
                Err(status) => status,
                Ok(()) => status(Code::InvalidArgument, "CERTIFICATE_REFUSED", message),
            }
        }
        OperationError::NotCustomer(_) => precondition("NOT_CUSTOMER_TRUST_MODEL"),
        OperationError::NothingToPresent(_) => precondition("NO_SUCH_CERTIFICATE_IN_USE"),
        OperationError::Probe(ProbeError::NoAgent(_)) => precondition("NO_AGENT"),
        OperationError::Probe(ProbeError::Silent) => {
            status(Code::Unavailable, "AGENT_SILENT", message)
        }
        OperationError::Probe(ProbeError::Bundle(error))
        | OperationError::Rotation(RotationError::Bundle(error)) => bundle_error(error),
    }
}

fn bundle_error(error: BundleError) -> Status {
    match error {
        BundleError::Store(error) => status::store(error),
        BundleError::Vault(error) => status::vault(error),
        BundleError::Stored(..) => status::internal(&error),
    }
}

pub(super) fn authority_error(error: AuthorityError) -> Status {
    let message = error.to_string();
    match error {
        AuthorityError::Store(error) => status::store(error),
        AuthorityError::Ca(error) => status::ca(error),
        AuthorityError::Vault(error) => status::vault(error),
        AuthorityError::Import => status(Code::InvalidArgument, "INVALID_FIELDS", message),
        AuthorityError::Blocked(_) => status(Code::FailedPrecondition, "ROTATION_BLOCKED", message),
    }
}
