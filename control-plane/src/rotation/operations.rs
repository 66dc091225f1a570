//! What operators do to client certificates by hand: rotate, revoke, upload what a receiver's CA has
//! signed, and ask a receiver what it thinks.

use countersign_shared::{name::DestinationName, probe::ProbePresentation};
use thiserror::Error;

use super::{
    agents::{ProbeError, Probed},
    reconcile::{RotationError, Rotations},
};
use crate::{
    ca::{self, CaError, UploadError},
    model::{
        AuthorityOwner, CertificateRequest, ClientCertificate, ClientCertificateState,
        RevocationReason, RotationView, Stop, TrustModel,
    },
    store::StoreError,
};

/// Why an operation was not done.
#[derive(Debug, Error)]
pub enum OperationError {
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key or a request could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The upload can't be presented.
    #[error("certificate_pem: {0}")]
    Upload(#[from] UploadError),
    /// The destination's certificates are not signed by a receiver's CA.
    #[error("{0} has not the trust model CUSTOMER: change it with UpdateDestination first")]
    NotCustomer(DestinationName),
    /// The probe was not answered.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// There is nothing to present.
    #[error("{0} has no such client certificate in use: ListClientCertificates tells which are")]
    NothingToPresent(DestinationName),
    /// The rotation could not be carried on.
    #[error(transparent)]
    Rotation(#[from] RotationError),
}

impl Rotations {
    /// Asks for a new client certificate; one that waits for the receiver is tried again at once.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn rotate(&self, name: &DestinationName) -> Result<RotationView, OperationError> {
        self.store.ask_rotation(name, self.clock.now()).await?;
        self.poke.poke();
        Ok(self.store.rotation(name).await?)
    }

    /// Revokes a client certificate: it goes on the revocation list, agents stop using it at once, and
    /// if it was presented a new one is issued and takes its place.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn revoke(
        &self,
        name: &DestinationName,
        version: u32,
        reason: RevocationReason,
    ) -> Result<(ClientCertificate, Vec<Stop>), OperationError> {
        let now = self.clock.now();
        let revoked = self.store.revoke_certificate(name, version, reason, now);
        let revoked = revoked.await?;
        self.metrics.rotation("revoked");
        let serials = [revoked.serial.clone()];
        self.agents.revoke(name, &serials).await;
        self.publish(name, &revoked).await;
        self.changes.changed(name.clone());
        self.poke.poke();
        tracing::warn!(destination = %name, version, serial = revoked.serial, "client certificate revoked");
        let stops = self.stops(name, &revoked.serial).await?;
        Ok((revoked, stops))
    }

    /// The answer of a revocation means that the list says it, if it can be signed now.
    async fn publish(&self, name: &DestinationName, revoked: &ClientCertificate) {
        let owner = match revoked.trust_model {
            TrustModel::Dedicated => AuthorityOwner::Account(name.account_name()),
            TrustModel::Shared => AuthorityOwner::Shared,
            TrustModel::Customer => return,
        };
        if let Some(generation) = revoked.issuer_generation
            && let Err(error) = self.lists.sign_now(&owner, generation).await
        {
            tracing::warn!(authority = %owner, generation, %error, "revocation list not signed; trying again");
        }
    }

    /// Which agents were told to stop using a certificate, and which have.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stops(
        &self,
        name: &DestinationName,
        serial: &str,
    ) -> Result<Vec<Stop>, StoreError> {
        let mut stops = self.store.stops(name).await?;
        stops.retain(|stop| stop.serial == serial);
        Ok(stops)
    }

    /// The request that the receiver's CA is to sign, made if there is none.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn signing_request(
        &self,
        name: &DestinationName,
    ) -> Result<CertificateRequest, OperationError> {
        let view = self.customers(name).await?;
        if let Some(open) = view.request {
            return Ok(open);
        }
        // Also without a need: somebody renews ahead of time.
        self.store.ask_rotation(name, self.clock.now()).await?;
        self.carry_on(name).await?;
        let view = self.store.rotation(name).await?;
        let waiting = || StoreError::Unavailable("a request could not be made now".to_owned());
        Ok(view.request.ok_or_else(waiting)?)
    }

    /// Takes what the receiver's CA has signed.
    ///
    /// # Errors
    /// [`OperationError`]; nothing has changed then.
    pub async fn upload(
        &self,
        name: &DestinationName,
        pem: &str,
    ) -> Result<ClientCertificate, OperationError> {
        let view = self.customers(name).await?;
        let request = view.request;
        let held = request
            .iter()
            .filter_map(|open| ca::request_key(&open.request));
        let held: Vec<[u8; 32]> = held.collect();
        let now = self.clock.now();
        let uploaded = ca::check_upload(pem, &held, now)?;
        // One of the held keys fits, so there is a request.
        let Some(request) = request else {
            return Err(OperationError::NothingToPresent(name.clone()));
        };
        let certificate = ClientCertificate {
            version: request.version,
            state: ClientCertificateState::Pending,
            trust_model: TrustModel::Customer,
            key_algorithm: request.key_algorithm,
            serial: uploaded.serial,
            certificate: uploaded.certificate,
            chain: uploaded.chain,
            issuer_generation: None,
            sealed_key: request.sealed_key,
            not_before: uploaded.not_before,
            not_after: uploaded.not_after,
            activated_at: None,
            confirmed_at: None,
            replaced_at: None,
            revoked_at: None,
        };
        let version = certificate.version;
        self.store
            .upload_certificate(name, certificate, now)
            .await?;
        self.changes.changed(name.clone());
        self.carry_on(name).await?;
        self.poke.poke();
        tracing::info!(destination = %name, version, "client certificate uploaded");
        Ok(self.store.client_certificate(name, version).await?)
    }

    async fn customers(&self, name: &DestinationName) -> Result<RotationView, OperationError> {
        let view = self.store.rotation(name).await?;
        match view.destination.config.trust_model {
            TrustModel::Customer => Ok(view),
            _ => Err(OperationError::NotCustomer(name.clone())),
        }
    }

    /// Has an agent that would deliver make a handshake without a payload. `version` 0: the active one.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn probe_by_hand(
        &self,
        name: &DestinationName,
        version: u32,
        presentation: ProbePresentation,
    ) -> Result<Probed, OperationError> {
        let view = self.store.rotation(name).await?;
        let version = match version {
            0 => view.destination.active_certificate,
            version => version,
        };
        let known = view.certificates.iter().any(|it| it.version == version);
        if !known || view.destination.active_certificate == 0 {
            return Err(OperationError::NothingToPresent(name.clone()));
        }
        let probed = self.agents.probe(&view.destination, version, presentation);
        let probed = probed.await?;
        if probed.report.accepted {
            self.holds.release(view.destination.key);
        }
        Ok(probed)
    }
}
