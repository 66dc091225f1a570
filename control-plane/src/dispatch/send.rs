//! From a lease to an agent: the payload is opened, the bundle goes ahead if the agent lacks it.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    job::{LeasedJob, OfflineWork},
    name::DestinationName,
    time::Timestamp,
};

use super::{
    fairness::serves,
    sessions::{Session, Work},
};
use crate::{
    bundles::{BundleError, Bundles},
    deliveries::content,
    model::SealedJob,
    store::{Store, StoreError},
    vault::{Vault, VaultError},
};

/// What an agent is told of a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) until: Timestamp,
    pub(super) lasts: Duration,
    pub(super) offline: Option<OfflineWork>,
}

/// Sends work to sessions.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) store: Arc<dyn Store>,
    pub(super) vault: Arc<Vault>,
    pub(super) bundles: Bundles,
}

impl Sender {
    /// Sends the bundle if the agent has not this generation.
    pub(super) async fn ensure_bundle(
        &self,
        session: &Session,
        destination: &DestinationName,
        generation: u64,
    ) -> Result<(), BundleError> {
        if session
            .bundle_generation(destination)
            .is_some_and(|held| held >= generation)
        {
            return Ok(());
        }
        self.refresh_bundle(session, destination).await
    }

    /// Sends the newest bundle, or says that there is none for this agent any more.
    pub(super) async fn refresh_bundle(
        &self,
        session: &Session,
        destination: &DestinationName,
    ) -> Result<(), BundleError> {
        let prepared = match self.bundles.current(destination).await {
            Err(error) if is_gone(&error) => {
                remove_bundle(session, destination);
                return Ok(());
            }
            prepared => prepared?,
        };
        if !serves(session.region.as_ref(), prepared.region.as_ref()) {
            remove_bundle(session, destination);
            return Ok(());
        }
        session.send_bundle(destination, prepared.bundle);
        Ok(())
    }

    /// Opens a job's payload and sends it.
    pub(super) async fn send_job(
        &self,
        session: &Session,
        destination: &DestinationName,
        job: SealedJob,
        lease: Lease,
    ) -> Result<(), VaultError> {
        let scope = destination.account_text();
        let scope = self.vault.scope(self.store.as_ref(), scope).await?;
        let delivery = job.lease.delivery;
        let opened = scope.open_payload(delivery, job.sealed_payload)?;
        let unreadable = || StoreError::Corrupt(format!("the content of {delivery}"));
        let (headers, payload) = content::split(opened).ok_or_else(unreadable)?;
        let job = LeasedJob {
            lease: job.lease,
            destination: destination.clone(),
            expires_at: lease.until,
            payload,
            headers,
            content_type: job.content_type,
            attempt_number: job.attempt_number,
            offline: lease.offline,
        };
        session.use_credit(job.payload.len());
        session.send_work(Work::Job(job, lease.lasts));
        Ok(())
    }
}

/// Whether the destination, or its account with the data key, is gone.
pub(super) fn is_gone(error: &BundleError) -> bool {
    matches!(
        error,
        BundleError::Store(StoreError::NotFound(_))
            | BundleError::Vault(VaultError::Store(StoreError::NotFound(_)))
    )
}

pub(super) fn remove_bundle(session: &Session, destination: &DestinationName) {
    if session.forgets_bundle(destination) {
        session.send_work(Work::RemoveBundle(destination.clone()));
    }
}
