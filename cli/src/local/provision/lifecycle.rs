//! What is asked about certificates, their authorities and alerts.

use countersign_proto::v1;

use super::{Administrator, ApiError, checked, present};

/// Most alerts and certificates that are looked at.
const PAGE: i32 = 1000;

impl Administrator {
    /// The versions of a destination's client certificate, newest first, at most 1000.
    pub(crate) async fn client_certificates(
        &self,
        destination: &str,
    ) -> Result<Vec<v1::ClientCertificate>, ApiError> {
        let request = v1::ListClientCertificatesRequest {
            parent: destination.to_owned(),
            page_size: PAGE,
            ..v1::ListClientCertificatesRequest::default()
        };
        let answer = self
            .0
            .certificates()
            .list_client_certificates(request)
            .await;
        Ok(checked("ListClientCertificates", answer)?.client_certificates)
    }

    /// Asks for a new client certificate.
    pub(crate) async fn rotate(
        &self,
        destination: &str,
    ) -> Result<v1::ClientCertificateRotation, ApiError> {
        let parent = destination.to_owned();
        let request = v1::RotateClientCertificateRequest { parent };
        let answer = self
            .0
            .certificates()
            .rotate_client_certificate(request)
            .await;
        let begun = checked("RotateClientCertificate", answer)?;
        present("RotateClientCertificate", begun.rotation)
    }

    /// Revokes a client certificate: its key may be in other hands.
    pub(crate) async fn revoke(
        &self,
        certificate: &str,
    ) -> Result<v1::RevokeClientCertificateResponse, ApiError> {
        let request = v1::RevokeClientCertificateRequest {
            name: certificate.to_owned(),
            reason: v1::RevocationReason::KeyCompromise.into(),
        };
        let answer = self
            .0
            .certificates()
            .revoke_client_certificate(request)
            .await;
        checked("RevokeClientCertificate", answer)
    }

    /// The list of what one generation of an authority has revoked.
    pub(crate) async fn revocation_list(
        &self,
        authority: &str,
    ) -> Result<v1::GetCertificateRevocationListResponse, ApiError> {
        let name = authority.to_owned();
        let request = v1::GetCertificateRevocationListRequest { name };
        let answer = self
            .0
            .certificates()
            .get_certificate_revocation_list(request)
            .await;
        checked("GetCertificateRevocationList", answer)
    }

    /// The request that a receiver's CA is to sign, in PEM.
    pub(crate) async fn signing_request(&self, destination: &str) -> Result<String, ApiError> {
        let parent = destination.to_owned();
        let request = v1::GetCertificateSigningRequestRequest { parent };
        let answer = self
            .0
            .certificates()
            .get_certificate_signing_request(request)
            .await;
        Ok(checked("GetCertificateSigningRequest", answer)?.certificate_signing_request_pem)
    }

    /// Brings what a receiver's CA has signed, in PEM.
    pub(crate) async fn upload(
        &self,
        destination: &str,
        pem: String,
    ) -> Result<v1::ClientCertificate, ApiError> {
        let request = v1::UploadClientCertificateRequest {
            parent: destination.to_owned(),
            certificate_pem: pem,
        };
        let answer = self
            .0
            .certificates()
            .upload_client_certificate(request)
            .await;
        let uploaded = checked("UploadClientCertificate", answer)?;
        present("UploadClientCertificate", uploaded.client_certificate)
    }

    /// Begins the rotation of an account's authority.
    pub(crate) async fn rotate_authority(
        &self,
        account: &str,
    ) -> Result<v1::CertificateAuthorityRotation, ApiError> {
        let request = v1::RotateCertificateAuthorityRequest {
            parent: account.to_owned(),
            ..v1::RotateCertificateAuthorityRequest::default()
        };
        let answer = self
            .0
            .certificates()
            .rotate_certificate_authority(request)
            .await;
        let begun = checked("RotateCertificateAuthority", answer)?;
        present("RotateCertificateAuthority", begun.rotation)
    }

    /// Takes the rotation of an account's authority to its next phase.
    pub(crate) async fn advance_rotation(
        &self,
        account: &str,
    ) -> Result<v1::CertificateAuthorityRotation, ApiError> {
        let parent = account.to_owned();
        let request = v1::AdvanceRotationRequest { parent };
        let answer = self.0.certificates().advance_rotation(request).await;
        let advanced = checked("AdvanceRotation", answer)?;
        present("AdvanceRotation", advanced.rotation)
    }

    /// How the receiver of a destination stands towards the generation that signs; `None` when it is
    /// not told of.
    pub(crate) async fn trust(
        &self,
        account: &str,
        destination: &str,
    ) -> Result<Option<v1::DestinationTrust>, ApiError> {
        let request = v1::ListDestinationTrustRequest {
            parent: account.to_owned(),
            page_size: PAGE,
            ..v1::ListDestinationTrustRequest::default()
        };
        let answer = self.0.certificates().list_destination_trust(request).await;
        let found = checked("ListDestinationTrust", answer)?.destination_trust;
        let mut found = found.into_iter();
        Ok(found.find(|it| it.destination == destination))
    }

    /// What became of the alerts of a resource, newest first, the resolved ones too.
    pub(crate) async fn alerts(&self, resource: &str) -> Result<Vec<v1::Alert>, ApiError> {
        let request = v1::ListAlertsRequest {
            page_size: PAGE,
            include_resolved: true,
            ..v1::ListAlertsRequest::default()
        };
        let answer = self.0.alerts().list_alerts(request).await;
        let mut found = checked("ListAlerts", answer)?.alerts;
        found.retain(|it| it.resource == resource);
        Ok(found)
    }
}
