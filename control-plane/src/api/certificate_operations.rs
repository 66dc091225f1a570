//! CertificateService: what is done to client certificates and authorities. The service itself is in
//! `certificates`.

use countersign_proto::v1;
use countersign_shared::{
    name::{DestinationName, split},
    secret::SecretBytes,
    time::Timestamp,
    tls::{self, MAX_PEM_LENGTH, PemError},
    wire::timestamp_to_wire,
};
use tonic::Status;

use super::{
    authority_name::{number, parse_authority, parse_owner},
    certificates::CertificateApi,
    page,
    rotation_wire::{self as wire, authority_error, operation_error},
    violations::{Violations, name},
};
use crate::{
    ca::{ImportError, ImportedAuthority, Purpose, request_pem},
    model::{AuthorityOwner, DestinationTrust},
    rotation::{AuthorityError, AuthorityRotation},
};

impl CertificateApi {
    pub(super) async fn rotate(
        &self,
        request: v1::RotateClientCertificateRequest,
    ) -> Result<v1::RotateClientCertificateResponse, Status> {
        let name: DestinationName = name("parent", &request.parent)?;
        let view = self.rotations.rotate(&name).await;
        let view = view.map_err(operation_error)?;
        Ok(v1::RotateClientCertificateResponse {
            rotation: Some(wire::rotation(&view)),
        })
    }

    pub(super) async fn revoke(
        &self,
        request: v1::RevokeClientCertificateRequest,
    ) -> Result<v1::RevokeClientCertificateResponse, Status> {
        let mut violations = Violations::default();
        let parsed = certificate_name(&request.name)
            .map_err(|problem| violations.add("name", problem))
            .ok();
        let reason = wire::reason(&mut violations, request.reason);
        let ((name, version), reason) = violations.finish(parsed.zip(reason))?;
        let revoked = self.rotations.revoke(&name, version, reason).await;
        let (certificate, stops) = revoked.map_err(operation_error)?;
        Ok(v1::RevokeClientCertificateResponse {
            client_certificate: Some(self.certificate_to_wire(&name, &certificate)),
            stops: stops.iter().map(wire::stop).collect(),
        })
    }

    pub(super) async fn signing_request(
        &self,
        request: v1::GetCertificateSigningRequestRequest,
    ) -> Result<v1::GetCertificateSigningRequestResponse, Status> {
        let name: DestinationName = name("parent", &request.parent)?;
        let open = self.rotations.signing_request(&name).await;
        let open = open.map_err(operation_error)?;
        Ok(v1::GetCertificateSigningRequestResponse {
            certificate_signing_request_pem: request_pem(&open.request),
            version: i32::try_from(open.version).unwrap_or(i32::MAX),
            create_time: Some(timestamp_to_wire(open.created_at)),
        })
    }

    pub(super) async fn upload(
        &self,
        request: v1::UploadClientCertificateRequest,
    ) -> Result<v1::UploadClientCertificateResponse, Status> {
        let name: DestinationName = name("parent", &request.parent)?;
        let uploaded = self.rotations.upload(&name, &request.certificate_pem).await;
        let uploaded = uploaded.map_err(operation_error)?;
        Ok(v1::UploadClientCertificateResponse {
            client_certificate: Some(self.certificate_to_wire(&name, &uploaded)),
        })
    }

    pub(super) async fn begin_rotation(
        &self,
        request: v1::RotateCertificateAuthorityRequest,
    ) -> Result<v1::CertificateAuthorityRotation, Status> {
        let owner = owner(&request.parent)?;
        let imported = request
            .imported
            .map(|it| imported(it, self.authorities.clock.now()));
        let imported = imported.transpose()?;
        let begun = self
            .authorities
            .rotate(&owner, imported, request.emergency)
            .await;
        rotation_of(&owner, begun)
    }

    pub(super) async fn authority_rotation(
        &self,
        parent: &str,
    ) -> Result<v1::CertificateAuthorityRotation, Status> {
        let owner = owner(parent)?;
        let found = self.authorities.rotation(&owner).await;
        rotation_of(&owner, found)
    }

    pub(super) async fn advance(
        &self,
        parent: &str,
    ) -> Result<v1::CertificateAuthorityRotation, Status> {
        let owner = owner(parent)?;
        let advanced = self.authorities.advance(&owner).await;
        rotation_of(&owner, advanced)
    }

    pub(super) async fn abort(
        &self,
        parent: &str,
    ) -> Result<v1::CertificateAuthorityRotation, Status> {
        let owner = owner(parent)?;
        let aborted = self.authorities.abort(&owner).await;
        rotation_of(&owner, aborted)
    }

    pub(super) async fn trust(
        &self,
        request: v1::ListDestinationTrustRequest,
    ) -> Result<v1::ListDestinationTrustResponse, Status> {
        const KIND: &str = "trust";
        let mut violations = Violations::default();
        let owner = parse_owner(&mut violations, &request.parent);
        let size = page::size(&mut violations, request.page_size);
        let after = page::after(&mut violations, KIND, &request.page_token);
        let owner = violations.finish(owner)?;
        let after = after.parse::<DestinationName>().ok();
        let found = self.authorities.trust(&owner, after.as_ref(), size).await;
        let found = found.map_err(authority_error)?;
        let last = |item: &DestinationTrust| item.destination.to_string();
        Ok(v1::ListDestinationTrustResponse {
            next_page_token: page::token(&found, KIND, last),
            destination_trust: found.items.iter().map(wire::destination_trust).collect(),
        })
    }

    pub(super) async fn set_trust(
        &self,
        request: v1::SetDestinationTrustRequest,
    ) -> Result<v1::SetDestinationTrustResponse, Status> {
        let mut violations = Violations::default();
        let name = violations.parse::<DestinationName>("destination", &request.destination);
        let state = wire::said_trust(&mut violations, request.state);
        let (name, state) = violations.finish(name.zip(state))?;
        let set = self.authorities.set_trust(&name, state).await;
        set.map_err(authority_error)?;
        Ok(v1::SetDestinationTrustResponse {})
    }

    pub(super) async fn revoke_generation(
        &self,
        request: v1::RevokeCertificateAuthorityRequest,
    ) -> Result<v1::RevokeCertificateAuthorityResponse, Status> {
        let (owner, generation) = parse_authority(&request.name)?;
        let revoked = self.authorities.revoke(&owner, generation).await;
        let (rotation, names) = revoked.map_err(authority_error)?;
        Ok(v1::RevokeCertificateAuthorityResponse {
            rotation: Some(wire::authority_rotation(&owner, &rotation)),
            destination_count: i64::try_from(names.len()).unwrap_or(i64::MAX),
        })
    }
}

/// An existing authority that becomes a generation of an account's.
fn imported(
    given: v1::ImportedCertificateAuthority,
    now: Timestamp,
) -> Result<ImportedAuthority, Status> {
    let key = SecretBytes::from(given.private_key_pem.into_bytes());
    let mut violations = Violations::default();
    let field = "imported.certificate_pem";
    if key.len() > MAX_PEM_LENGTH {
        violations.add("imported.private_key_pem", PemError::TooLong.to_string());
    }
    let certificates = tls::certificates_from_pem(&given.certificate_pem)
        .map_err(|error| violations.add(field, error.to_string()));
    let imported = certificates.ok().and_then(|certificates| {
        ImportedAuthority::with_pem(&certificates, &key, Purpose::Account, now)
            .map_err(|error| match error {
                ImportError::Key => violations.add("imported.private_key_pem", error.to_string()),
                _ => violations.add(field, error.to_string()),
            })
            .ok()
    });
    violations.finish(imported)
}

fn owner(parent: &str) -> Result<AuthorityOwner, Status> {
    let mut violations = Violations::default();
    let owner = parse_owner(&mut violations, parent);
    violations.finish(owner)
}

fn rotation_of(
    owner: &AuthorityOwner,
    rotation: Result<AuthorityRotation, AuthorityError>,
) -> Result<v1::CertificateAuthorityRotation, Status> {
    let rotation = rotation.map_err(authority_error)?;
    Ok(wire::authority_rotation(owner, &rotation))
}

/// `accounts/{account}/destinations/{destination}/clientCertificates/{version}`.
pub(super) fn certificate_name(text: &str) -> Result<(DestinationName, u32), String> {
    const PATTERN: &str =
        "accounts/{account}/destinations/{destination}/clientCertificates/{version}";
    let [account, destination, version] =
        split::<3>(text, PATTERN).map_err(|error| error.to_string())?;
    let name = format!("accounts/{account}/destinations/{destination}");
    let name = name.parse::<DestinationName>();
    Ok((name.map_err(|error| error.to_string())?, number(version)?))
}
