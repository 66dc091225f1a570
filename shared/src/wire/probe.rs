//! Probes on the wire.

use countersign_proto::v1;

use super::{
    WireError, class_from_wire, class_to_wire, handshake_from_wire, handshake_to_wire,
    outcome::{detail_from_wire, status_from_wire},
    timestamp_from_wire, timestamp_to_wire, timings_from_wire, timings_to_wire,
};
use crate::probe::{MAX_SERVER_CHAIN, Probe, ProbeId, ProbePresentation, ProbeReport};

/// To the wire.
pub fn probe_to_wire(probe: &Probe) -> v1::Probe {
    v1::Probe {
        probe_id: probe.id.0.to_vec().into(),
        destination: probe.destination.to_string(),
        client_certificate_version: i32::try_from(probe.version).unwrap_or(i32::MAX),
        presentation: match probe.presentation {
            ProbePresentation::Chain => v1::ProbePresentation::Chain,
            ProbePresentation::LeafOnly => v1::ProbePresentation::LeafOnly,
            ProbePresentation::Nothing => v1::ProbePresentation::Nothing,
        }
        .into(),
    }
}

/// From the wire.
///
/// # Errors
/// [`WireError`], naming the field.
pub fn probe_from_wire(probe: &v1::Probe) -> Result<Probe, WireError> {
    Ok(Probe {
        id: id(&probe.probe_id)?,
        destination: probe.destination.parse()?,
        version: u32::try_from(probe.client_certificate_version)
            .map_err(|_| WireError::Value("client_certificate_version"))?,
        presentation: match v1::ProbePresentation::try_from(probe.presentation) {
            Ok(v1::ProbePresentation::Chain) => ProbePresentation::Chain,
            Ok(v1::ProbePresentation::LeafOnly) => ProbePresentation::LeafOnly,
            Ok(v1::ProbePresentation::Nothing) => ProbePresentation::Nothing,
            _ => return Err(WireError::Value("presentation")),
        },
    })
}

fn id(bytes: &[u8]) -> Result<ProbeId, WireError> {
    let id = bytes.try_into().map(ProbeId);
    id.map_err(|_| WireError::Value("probe_id"))
}

/// To the wire.
pub fn probe_report_to_wire(report: &ProbeReport) -> v1::ProbeResult {
    let chain = report.server_chain.iter().take(MAX_SERVER_CHAIN);
    v1::ProbeResult {
        probe_id: report.id.0.to_vec().into(),
        class: class_to_wire(report.class).into(),
        accepted: report.accepted,
        http_status: report.http_status.map_or(0, i32::from),
        handshake: report.handshake.as_ref().map(handshake_to_wire),
        timings: Some(timings_to_wire(&report.timings)),
        start_time: Some(timestamp_to_wire(report.started_at)),
        detail: report.detail.clone().into_owned(),
        server_chain: chain.map(|item| item.to_vec().into()).collect(),
    }
}

/// From the wire; of a server's chain no more than [`MAX_SERVER_CHAIN`].
///
/// # Errors
/// [`WireError`], naming the field.
pub fn probe_report_from_wire(result: v1::ProbeResult) -> Result<ProbeReport, WireError> {
    let chain = result.server_chain.into_iter().take(MAX_SERVER_CHAIN);
    Ok(ProbeReport {
        id: id(&result.probe_id)?,
        class: class_from_wire(result.class).ok_or(WireError::Value("class"))?,
        accepted: result.accepted,
        http_status: status_from_wire(result.http_status)?,
        handshake: result.handshake.map(handshake_from_wire).transpose()?,
        timings: result.timings.map(timings_from_wire).unwrap_or_default(),
        started_at: result
            .start_time
            .map(timestamp_from_wire)
            .ok_or(WireError::Missing("start_time"))?,
        detail: detail_from_wire(&result.detail),
        server_chain: chain.map(|item| item.to_vec().into()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        class::FailureClass,
        name::{DestinationName, Id},
        outcome::{AttemptTimings, HandshakeRecord},
        time::Timestamp,
    };

    #[test]
    fn probes_and_reports_round_trip() {
        let id = Id::chosen("acme").unwrap();
        for presentation in [
            ProbePresentation::Chain,
            ProbePresentation::LeafOnly,
            ProbePresentation::Nothing,
        ] {
            let probe = Probe {
                id: ProbeId([7; 16]),
                destination: DestinationName::new(&id, &id),
                version: 3,
                presentation,
            };
            assert_eq!(probe_from_wire(&probe_to_wire(&probe)), Ok(probe));
        }
        let report = ProbeReport {
            id: ProbeId([7; 16]),
            class: FailureClass::HttpClientError,
            accepted: true,
            http_status: Some(405),
            handshake: Some(HandshakeRecord::default()),
            timings: AttemptTimings::default(),
            started_at: Timestamp::from_unix_seconds(5),
            detail: "".into(),
            server_chain: vec![vec![1, 2].into()],
        };
        let wire = probe_report_to_wire(&report);
        assert_eq!(probe_report_from_wire(wire.clone()), Ok(report));
        let mut bad = wire;
        bad.probe_id = vec![1].into();
        assert_eq!(
            probe_report_from_wire(bad).unwrap_err(),
            WireError::Value("probe_id")
        );
    }
}
