//! Bundles on the wire.

use bytes::Bytes;
use countersign_proto::v1;
use rustls_pki_types::CertificateDer;

use super::{
    WireError, duration_from_wire, duration_to_wire, enforcement_from_wire, enforcement_to_wire,
    minimum_tls_from_wire, minimum_tls_to_wire,
};
use crate::{
    address_range::{AddressRange, MAX_ALLOWED_RANGES},
    bundle::{Bundle, Credential, parse_destination_url},
    secret::SecretBytes,
};

/// To the wire, with the content hash that agents and control planes compare.
pub fn bundle_to_wire(bundle: &Bundle) -> v1::Bundle {
    let standby = [
        (&bundle.candidate, v1::StandbyUse::Candidate),
        (&bundle.fallback, v1::StandbyUse::Fallback),
    ];
    let standby = standby
        .into_iter()
        .filter_map(|(held, usage)| Some((held.as_ref()?, usage)));
    v1::Bundle {
        destination: bundle.destination.to_string(),
        generation: i64::try_from(bundle.generation).unwrap_or(i64::MAX),
        content_sha256: bundle.content_sha256.to_vec().into(),
        url: bundle.url.to_string(),
        certificate_chain: der(&bundle.active.chain),
        private_key: bundle.active.private_key.expose().to_vec().into(),
        client_certificate_version: version(&bundle.active),
        server_cas: der(&bundle.server_cas),
        minimum_tls_version: minimum_tls_to_wire(bundle.minimum_tls).into(),
        mtls_enforcement: enforcement_to_wire(bundle.mtls_enforcement).into(),
        signing_secrets: exposed(&bundle.signing_secrets),
        signing_seeds: exposed(&bundle.signing_seeds),
        attempt_timeout: Some(duration_to_wire(bundle.attempt_timeout)),
        concurrency_limit: i32::try_from(bundle.concurrency_limit).unwrap_or(i32::MAX),
        allowed_ranges: bundle
            .allowed_ranges
            .iter()
            .map(ToString::to_string)
            .collect(),
        sealed_secrets: None,
        delivery_receipts: bundle.receipts,
        standby_certificates: standby
            .map(|(credential, usage)| v1::StandbyCertificate {
                client_certificate_version: version(credential),
                r#use: usage.into(),
                certificate_chain: der(&credential.chain),
                private_key: credential.private_key.expose().to_vec().into(),
            })
            .collect(),
    }
}

fn exposed(secrets: &[SecretBytes]) -> Vec<Bytes> {
    let copied = secrets.iter().map(|secret| secret.expose().to_vec().into());
    copied.collect()
}

fn secrets(raw: &[Bytes]) -> Vec<SecretBytes> {
    let copied = raw.iter().map(|secret| SecretBytes::from(secret.to_vec()));
    copied.collect()
}

fn der(list: &[CertificateDer<'static>]) -> Vec<Bytes> {
    list.iter().map(|item| item.to_vec().into()).collect()
}

fn version(credential: &Credential) -> i32 {
    i32::try_from(credential.version).unwrap_or(i32::MAX)
}

/// From the wire. Whether certificate and key fit together is for whoever uses them to find out.
///
/// # Errors
/// [`WireError`], naming the field.
pub fn bundle_from_wire(bundle: v1::Bundle) -> Result<Bundle, WireError> {
    let active = credential_from_wire(
        bundle.client_certificate_version,
        bundle.certificate_chain,
        &bundle.private_key,
    )?;
    let (mut candidate, mut fallback) = (None, None);
    for standby in bundle.standby_certificates {
        let held = match v1::StandbyUse::try_from(standby.r#use) {
            Ok(v1::StandbyUse::Candidate) => &mut candidate,
            Ok(v1::StandbyUse::Fallback) => &mut fallback,
            _ => return Err(WireError::Value("use")),
        };
        let credential = credential_from_wire(
            standby.client_certificate_version,
            standby.certificate_chain,
            &standby.private_key,
        )?;
        if held.replace(credential).is_some() {
            return Err(WireError::Value("standby_certificates"));
        }
    }
    if bundle.signing_secrets.is_empty() && bundle.signing_seeds.is_empty() {
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
        active,
        candidate,
        fallback,
        server_cas: owned(bundle.server_cas),
        minimum_tls: minimum_tls_from_wire(bundle.minimum_tls_version)
            .ok_or(WireError::Value("minimum_tls_version"))?,
        mtls_enforcement: enforcement_from_wire(bundle.mtls_enforcement)
            .ok_or(WireError::Value("mtls_enforcement"))?,
        signing_secrets: secrets(&bundle.signing_secrets),
        signing_seeds: secrets(&bundle.signing_seeds),
        attempt_timeout: bundle
            .attempt_timeout
            .and_then(duration_from_wire)
            .ok_or(WireError::Value("attempt_timeout"))?,
        concurrency_limit: u32::try_from(bundle.concurrency_limit)
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or(WireError::Value("concurrency_limit"))?,
        allowed_ranges: allowed_ranges_from_wire(&bundle.allowed_ranges)?,
        receipts: bundle.delivery_receipts,
    })
}

fn credential_from_wire(
    version: i32,
    chain: Vec<Bytes>,
    private_key: &[u8],
) -> Result<Credential, WireError> {
    if chain.is_empty() {
        return Err(WireError::Missing("certificate_chain"));
    }
    if private_key.is_empty() {
        return Err(WireError::Missing("private_key"));
    }
    Ok(Credential {
        version: u32::try_from(version)
            .map_err(|_| WireError::Value("client_certificate_version"))?,
        chain: owned(chain),
        private_key: SecretBytes::from(private_key.to_vec()),
    })
}

fn owned(list: Vec<Bytes>) -> Vec<CertificateDer<'static>> {
    list.into_iter().map(|item| item.to_vec().into()).collect()
}

fn allowed_ranges_from_wire(ranges: &[String]) -> Result<Vec<AddressRange>, WireError> {
    if ranges.len() > MAX_ALLOWED_RANGES {
        return Err(WireError::Value("allowed_ranges"));
    }
    let parsed = ranges.iter().map(|range| range.parse());
    let parsed: Result<_, _> = parsed.collect();
    parsed.map_err(|_| WireError::Value("allowed_ranges"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        bundle::{CONCURRENCY_LIMIT, MinimumTls, MtlsEnforcement},
        name::{DestinationName, Id},
        signature,
    };

    fn credential(version: u32) -> Credential {
        Credential {
            version,
            chain: vec![vec![1, 2].into()],
            private_key: SecretBytes::from(vec![3]),
        }
    }

    #[test]
    fn bundles_round_trip_and_what_is_missing_is_named() {
        let account = Id::chosen("acme").unwrap();
        let bundle = Bundle {
            destination: DestinationName::new(&account, &account),
            generation: 4,
            content_sha256: [9; 32],
            url: parse_destination_url("https://a.example/").unwrap(),
            active: credential(2),
            candidate: Some(credential(3)),
            fallback: Some(credential(1)),
            server_cas: Vec::new(),
            minimum_tls: MinimumTls::Tls12,
            mtls_enforcement: MtlsEnforcement::Refuse,
            signing_secrets: vec![signature::generate_secret()],
            signing_seeds: vec![signature::ed25519::generate().0],
            attempt_timeout: Duration::from_secs(30),
            concurrency_limit: CONCURRENCY_LIMIT.2,
            allowed_ranges: vec!["10.1.0.0/16".parse().unwrap()],
            receipts: true,
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
        let mut twice = wire.clone();
        twice.standby_certificates[1].r#use = v1::StandbyUse::Candidate.into();
        assert_eq!(
            bundle_from_wire(twice).unwrap_err(),
            WireError::Value("standby_certificates")
        );
        let mut keyless = wire;
        keyless.private_key = Vec::new().into();
        assert_eq!(
            bundle_from_wire(keyless).unwrap_err(),
            WireError::Missing("private_key")
        );
    }
}
