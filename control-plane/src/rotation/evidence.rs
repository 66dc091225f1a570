//! What deliveries show of certificates: that the receiver accepts the active one, or that it had to
//! be replaced by the one before within an attempt.

use countersign_shared::class::FailureClass;
use tokio_util::sync::CancellationToken;

use super::reconcile::Rotations;
use crate::{model::Evidence, signals::Observer, store::StoreError};

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

    async fn take_in(&self, evidence: &Evidence) -> Result<(), StoreError> {
        let (destination, now) = (evidence.destination, self.clock.now());
        let shown = evidence.shown;
        if let Some((version, class)) = shown.refused {
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
            self.store
                .confirm_certificate(destination, version, now)
                .await?;
        }
        Ok(())
    }
}
