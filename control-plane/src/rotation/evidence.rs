//! What deliveries show of certificates: that the receiver accepts the active one, or that it had to
//! be replaced by the one before within an attempt.

use countersign_shared::class::FailureClass;
use tokio_util::sync::CancellationToken;

use super::reconcile::Rotations;
use crate::{
    model::{ClientCertificateState, Evidence},
    signals::Observer,
    store::StoreError,
};

impl Rotations {
    /// Takes in what attempts show until `shutdown`.
    ///
    /// # Errors
    /// None for now: what is missed is shown by the next attempt or a probe.
    pub async fn observe(
        self,
        mut observer: Observer,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        loop {
            let seen = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                seen = observer.next() => seen,
            };
            for evidence in seen {
                if let Err(error) = self.take_in(&evidence).await {
                    tracing::warn!(%error, "evidence of a client certificate not recorded");
                }
            }
        }
    }

    pub(super) async fn take_in(&self, evidence: &Evidence) -> Result<(), StoreError> {
        let (destination, now) = (evidence.destination, self.clock.now());
        let shown = evidence.shown;
        // Only where the one before was taken: else the receiver may just be restarting.
        if let Some((version, class)) = shown.refused
            && shown.presented.is_some()
        {
            let noted = self.store.note_refusal(destination, version, class, now);
            if noted.await? {
                self.poke.poke();
            }
        }
        // An answer came over a connection that presented this version.
        if let Some(version) = shown.presented
            && shown.class != FailureClass::ClientIdentityForbidden
            && !shown.class.refuses_client_certificate()
        {
            let confirmed = self.store.confirm_certificate(destination, version, now);
            if confirmed.await? {
                self.poke.poke();
            }
        }
        if !shown.kept_back
            && matches!(
                shown.class,
                FailureClass::ClientCertificateExpired | FailureClass::ClientCertificateRevoked
            )
        {
            self.replace(evidence).await?;
        }
        Ok(())
    }

    /// The receiver holds the certificate to be expired or revoked, and there was none to fall back
    /// on: a new one is the cure, unless the present one is new. Then it is the receiver's clock or
    /// list that is wrong, and another would be refused as well.
    async fn replace(&self, evidence: &Evidence) -> Result<(), StoreError> {
        let now = self.clock.now();
        let found = self.store.destination_by_key(evidence.destination).await?;
        let view = self.store.rotation(&found.name).await?;
        let mut active = view.certificates.iter();
        let active = active.find(|it| it.state == ClientCertificateState::Active);
        let since = active.and_then(|it| it.activated_at);
        let is_old = since.is_some_and(|since| since.plus(self.policy.renewal_pause) <= now);
        if is_old && view.certificates.len() == 1 && !view.rotation.asked {
            tracing::warn!(destination = %found.name, class = %evidence.shown.class, "the receiver no longer takes the client certificate: a new one is issued");
            self.store.ask_rotation(&found.name, now).await?;
            self.poke.poke();
        }
        Ok(())
    }
}
