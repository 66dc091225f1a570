//! CertificateService: authorities and client certificates, to read.

use std::sync::Arc;

use countersign_proto::v1::{self, certificate_service_server::CertificateService};
use countersign_shared::{
    digest::{hex, sha256},
    name::DestinationName,
    tls,
    wire::timestamp_to_wire,
};
use tonic::{Request, Response, Status};

use super::{
    authority_name::{authority_name, parse_authority, parse_owner},
    certificate_operations::certificate_name,
    destination_config::{key_algorithm_to_wire, trust_model_to_wire},
    page, rotation_wire, status,
    violations::Violations,
};
use crate::{
    ca::{self, ClientNames, SigningAuthority, crl_pem, pem},
    model::{
        Authority, AuthorityOwner, AuthorityState, ClientCertificate, ClientCertificateState, Page,
        TrustModel,
    },
    rotation::{Authorities, Rotations},
    store::{Store, StoreError},
};

/// CertificateService over the store.
#[derive(Clone)]
pub struct CertificateApi {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Ends provenance chains.
    pub root: Arc<SigningAuthority>,
    /// Host part of `spiffe://` URIs.
    pub trust_domain: Arc<str>,
    /// Replaces and revokes client certificates.
    pub rotations: Rotations,
    /// Replaces and revokes authorities.
    pub authorities: Authorities,
}

#[tonic::async_trait]
impl CertificateService for CertificateApi {
    async fn get_certificate_authority(
        &self,
        request: Request<v1::GetCertificateAuthorityRequest>,
    ) -> Result<Response<v1::GetCertificateAuthorityResponse>, Status> {
        let text = request.into_inner().name;
        let (owner, generation) = parse_authority(&text)?;
        let found = self.generations(&owner).await?;
        let found = found
            .iter()
            .find(|authority| authority.generation == generation);
        let authority = found.ok_or_else(|| status::store(StoreError::NotFound(text)))?;
        Ok(Response::new(v1::GetCertificateAuthorityResponse {
            certificate_authority: Some(self.authority_to_wire(authority)),
        }))
    }

    async fn list_certificate_authorities(
        &self,
        request: Request<v1::ListCertificateAuthoritiesRequest>,
    ) -> Result<Response<v1::ListCertificateAuthoritiesResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let owner = parse_owner(&mut violations, &request.parent);
        let size = page::size(&mut violations, request.page_size);
        let after = page::after(&mut violations, "authorities", &request.page_token);
        let owner = violations.finish(owner)?;
        let after: u32 = after.parse().unwrap_or_default();
        let mut found = self.generations(&owner).await?;
        found.retain(|authority| authority.generation > after);
        let found = Page::cut(found, size);
        let last = |item: &Authority| item.generation.to_string();
        let to_wire = |authority| self.authority_to_wire(authority);
        Ok(Response::new(v1::ListCertificateAuthoritiesResponse {
            next_page_token: page::token(&found, "authorities", last),
            certificate_authorities: found.items.iter().map(to_wire).collect(),
        }))
    }

    async fn get_trust_bundle(
        &self,
        request: Request<v1::GetTrustBundleRequest>,
    ) -> Result<Response<v1::GetTrustBundleResponse>, Status> {
        let mut violations = Violations::default();
        let owner = parse_owner(&mut violations, &request.into_inner().parent);
        let owner = violations.finish(owner)?;
        let generations = self.generations(&owner).await?;
        let published = generations.iter().filter(|it| it.state.is_published());
        let anchors: Vec<_> = published.map(|it| &it.anchor).collect();
        Ok(Response::new(v1::GetTrustBundleResponse {
            trust_bundle_pem: anchors.iter().map(|der| pem(der)).collect(),
            trust_anchors: anchors.iter().map(|der| der.to_vec().into()).collect(),
        }))
    }

    async fn get_certificate_revocation_list(
        &self,
        request: Request<v1::GetCertificateRevocationListRequest>,
    ) -> Result<Response<v1::GetCertificateRevocationListResponse>, Status> {
        let text = request.into_inner().name;
        let (owner, generation) = parse_authority(&text)?;
        let found = self.store.crl(&owner, generation).await;
        let found = found.map_err(status::store)?;
        let crl = found.ok_or_else(|| {
            status::store(StoreError::NotFound(format!(
                "the revocation list of {text}"
            )))
        })?;
        Ok(Response::new(v1::GetCertificateRevocationListResponse {
            crl_pem: crl_pem(&crl.der),
            crl: crl.der.into(),
            number: i64::try_from(crl.number).unwrap_or(i64::MAX),
            this_update_time: Some(timestamp_to_wire(crl.this_update)),
            next_update_time: Some(timestamp_to_wire(crl.next_update)),
        }))
    }

    async fn get_client_certificate(
        &self,
        request: Request<v1::GetClientCertificateRequest>,
    ) -> Result<Response<v1::GetClientCertificateResponse>, Status> {
        let text = request.into_inner().name;
        let mut violations = Violations::default();
        let parsed = certificate_name(&text)
            .map_err(|problem| violations.add("name", problem))
            .ok();
        let (name, version) = violations.finish(parsed)?;
        let found = self.store.client_certificate(&name, version).await;
        let found = found.map_err(status::store)?;
        let stops = self.rotations.stops(&name, &found.serial).await;
        let stops = stops.map_err(status::store)?;
        let certificate = v1::ClientCertificate {
            stops: stops.iter().map(rotation_wire::stop).collect(),
            ..self.certificate_to_wire(&name, &found)
        };
        Ok(Response::new(v1::GetClientCertificateResponse {
            client_certificate: Some(certificate),
        }))
    }

    async fn list_client_certificates(
        &self,
        request: Request<v1::ListClientCertificatesRequest>,
    ) -> Result<Response<v1::ListClientCertificatesResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let name = violations.parse::<DestinationName>("parent", &request.parent);
        let size = page::size(&mut violations, request.page_size);
        let before = page::after(&mut violations, "certificates", &request.page_token);
        let name = violations.finish(name)?;
        let before = before.parse().ok();
        let found = self.store.client_certificates(&name, before, size).await;
        let found = found.map_err(status::store)?;
        let last = |item: &ClientCertificate| item.version.to_string();
        let to_wire = |certificate| self.certificate_to_wire(&name, certificate);
        Ok(Response::new(v1::ListClientCertificatesResponse {
            next_page_token: page::token(&found, "certificates", last),
            client_certificates: found.items.iter().map(to_wire).collect(),
        }))
    }

    async fn rotate_client_certificate(
        &self,
        request: Request<v1::RotateClientCertificateRequest>,
    ) -> Result<Response<v1::RotateClientCertificateResponse>, Status> {
        self.rotate(request.into_inner()).await.map(Response::new)
    }

    async fn revoke_client_certificate(
        &self,
        request: Request<v1::RevokeClientCertificateRequest>,
    ) -> Result<Response<v1::RevokeClientCertificateResponse>, Status> {
        self.revoke(request.into_inner()).await.map(Response::new)
    }

    async fn get_certificate_signing_request(
        &self,
        request: Request<v1::GetCertificateSigningRequestRequest>,
    ) -> Result<Response<v1::GetCertificateSigningRequestResponse>, Status> {
        let made = self.signing_request(request.into_inner()).await;
        made.map(Response::new)
    }

    async fn upload_client_certificate(
        &self,
        request: Request<v1::UploadClientCertificateRequest>,
    ) -> Result<Response<v1::UploadClientCertificateResponse>, Status> {
        self.upload(request.into_inner()).await.map(Response::new)
    }

    async fn get_certificate_authority_rotation(
        &self,
        request: Request<v1::GetCertificateAuthorityRotationRequest>,
    ) -> Result<Response<v1::GetCertificateAuthorityRotationResponse>, Status> {
        let rotation = self
            .authority_rotation(&request.into_inner().parent)
            .await?;
        Ok(Response::new(v1::GetCertificateAuthorityRotationResponse {
            rotation: Some(rotation),
        }))
    }

    async fn rotate_certificate_authority(
        &self,
        request: Request<v1::RotateCertificateAuthorityRequest>,
    ) -> Result<Response<v1::RotateCertificateAuthorityResponse>, Status> {
        let rotation = self.begin_rotation(request.into_inner()).await?;
        Ok(Response::new(v1::RotateCertificateAuthorityResponse {
            rotation: Some(rotation),
        }))
    }

    async fn advance_rotation(
        &self,
        request: Request<v1::AdvanceRotationRequest>,
    ) -> Result<Response<v1::AdvanceRotationResponse>, Status> {
        let rotation = self.advance(&request.into_inner().parent).await?;
        Ok(Response::new(v1::AdvanceRotationResponse {
            rotation: Some(rotation),
        }))
    }

    async fn abort_rotation(
        &self,
        request: Request<v1::AbortRotationRequest>,
    ) -> Result<Response<v1::AbortRotationResponse>, Status> {
        let rotation = self.abort(&request.into_inner().parent).await?;
        Ok(Response::new(v1::AbortRotationResponse {
            rotation: Some(rotation),
        }))
    }

    async fn list_destination_trust(
        &self,
        request: Request<v1::ListDestinationTrustRequest>,
    ) -> Result<Response<v1::ListDestinationTrustResponse>, Status> {
        self.trust(request.into_inner()).await.map(Response::new)
    }

    async fn set_destination_trust(
        &self,
        request: Request<v1::SetDestinationTrustRequest>,
    ) -> Result<Response<v1::SetDestinationTrustResponse>, Status> {
        self.set_trust(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn revoke_certificate_authority(
        &self,
        request: Request<v1::RevokeCertificateAuthorityRequest>,
    ) -> Result<Response<v1::RevokeCertificateAuthorityResponse>, Status> {
        let revoked = self.revoke_generation(request.into_inner()).await;
        revoked.map(Response::new)
    }
}

impl CertificateApi {
    async fn generations(&self, owner: &AuthorityOwner) -> Result<Vec<Authority>, Status> {
        if let AuthorityOwner::Account(account) = owner {
            self.store.account(account).await.map_err(status::store)?;
        }
        self.store.authorities(owner).await.map_err(status::store)
    }

    fn authority_to_wire(&self, authority: &Authority) -> v1::CertificateAuthority {
        let generation = authority.generation;
        let root = self.root.authority.anchor.as_slice();
        let provenance = authority.provenance.as_deref();
        // Above one that was imported are those who have signed that.
        let by_root = provenance.is_none_or(|it| ca::is_signed_by(it, root));
        let chain = provenance.into_iter().chain(by_root.then_some(root));
        v1::CertificateAuthority {
            name: authority_name(&authority.owner, generation),
            generation: i32::try_from(generation).unwrap_or(i32::MAX),
            state: authority_state(authority.state).into(),
            subject: subject(&authority.anchor),
            trust_anchor_pem: pem(&authority.anchor),
            provenance_chain_pem: chain.map(pem).collect(),
            trust_anchor_sha256: hex(&sha256(&authority.anchor)),
            not_before_time: Some(timestamp_to_wire(authority.not_before)),
            not_after_time: Some(timestamp_to_wire(authority.not_after)),
            cross_certificate_pem: authority.cross.as_deref().map_or_else(String::new, pem),
        }
    }

    pub(super) fn certificate_to_wire(
        &self,
        destination: &DestinationName,
        certificate: &ClientCertificate,
    ) -> v1::ClientCertificate {
        let (version, facts) = (
            certificate.version,
            tls::certificate_facts(&certificate.certificate),
        );
        let signer = match certificate.trust_model {
            TrustModel::Dedicated => Some(AuthorityOwner::Account(destination.account_name())),
            TrustModel::Shared => Some(AuthorityOwner::Shared),
            TrustModel::Customer => None,
        };
        let issuer = match (signer, certificate.issuer_generation) {
            (Some(owner), Some(generation)) => authority_name(&owner, generation),
            _ => String::new(),
        };
        let uri = match certificate.trust_model {
            TrustModel::Customer => String::new(),
            _ => ClientNames::dedicated(&self.trust_domain, destination).uri,
        };
        v1::ClientCertificate {
            name: format!("{destination}/clientCertificates/{version}"),
            version: i32::try_from(version).unwrap_or(i32::MAX),
            state: certificate_state(certificate.state).into(),
            serial_number: certificate.serial.clone(),
            subject: subject(&certificate.certificate),
            certificate_pem: pem(&certificate.certificate),
            issuer,
            not_before_time: Some(timestamp_to_wire(certificate.not_before)),
            not_after_time: Some(timestamp_to_wire(certificate.not_after)),
            uri,
            trust_model: trust_model_to_wire(certificate.trust_model).into(),
            key_algorithm: key_algorithm_to_wire(certificate.key_algorithm).into(),
            chain_pem: certificate.chain.iter().map(|der| pem(der)).collect(),
            issuer_subject: facts.map_or_else(String::new, |facts| facts.issuer),
            activate_time: certificate.activated_at.map(timestamp_to_wire),
            confirm_time: certificate.confirmed_at.map(timestamp_to_wire),
            replace_time: certificate.replaced_at.map(timestamp_to_wire),
            revoke_time: certificate.revoked_at.map(timestamp_to_wire),
            stops: Vec::new(),
        }
    }
}

pub(super) fn authority_state(state: AuthorityState) -> v1::CertificateAuthorityState {
    use v1::CertificateAuthorityState as Wire;
    match state {
        AuthorityState::Prepared => Wire::Prepared,
        AuthorityState::Active => Wire::Active,
        AuthorityState::Superseded => Wire::Superseded,
        AuthorityState::Retiring => Wire::Retiring,
        AuthorityState::Retired => Wire::Retired,
        AuthorityState::Aborted => Wire::Aborted,
        AuthorityState::Revoked => Wire::Revoked,
    }
}

fn certificate_state(state: ClientCertificateState) -> v1::ClientCertificateState {
    use v1::ClientCertificateState as Wire;
    match state {
        ClientCertificateState::Pending => Wire::Pending,
        ClientCertificateState::Distributed => Wire::Distributed,
        ClientCertificateState::Active => Wire::Active,
        ClientCertificateState::Retiring => Wire::Retiring,
        ClientCertificateState::Retired => Wire::Retired,
        ClientCertificateState::Revoked => Wire::Revoked,
        ClientCertificateState::Expired => Wire::Expired,
    }
}

fn subject(certificate: &[u8]) -> String {
    tls::certificate_facts(certificate).map_or_else(String::new, |facts| facts.subject)
}
