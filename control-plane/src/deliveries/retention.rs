//! Retention: what is settled is kept for a while, to be looked at, and then removed.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    name::DeliveryId,
    time::{Clock, Timestamp},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Keep,
    store::{RemoveBefore, Store, StoreError},
};

/// How often old things are looked for.
const LOOK: Duration = Duration::from_secs(600);
/// How many deliveries one transaction removes: few enough that others hardly wait.
const SLICE: usize = 200;
/// Request ids are good for twice as long as is promised.
const REQUESTS: Duration = Duration::from_secs(2 * 24 * 3600);

/// Removes what is old.
pub struct Retention {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// How long things are kept.
    pub keep: Keep,
}

impl Retention {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// None for now: a store that fails is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = look.tick() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                result = self.remove_old(self.clock.now()) => if let Err(error) = result {
                    tracing::warn!(%error, "old deliveries not removed; trying again");
                }
            }
        }
    }

    /// One look at everything.
    async fn remove_old(&self, now: Timestamp) -> Result<(), StoreError> {
        let old = RemoveBefore {
            deliveries: now.minus(self.keep.deliveries),
            payloads: now.minus(self.keep.payloads),
        };
        let old = self.store.remove_pieces(self.keep, old, now).await?;
        let mut after: Option<DeliveryId> = None;
        loop {
            let before = old.deliveries;
            after = self.store.remove_deliveries(before, after, SLICE).await?;
            if after.is_none() {
                break;
            }
        }
        loop {
            let before = old.payloads;
            after = self.store.erase_payloads(before, after, SLICE).await?;
            if after.is_none() {
                break;
            }
        }
        while self
            .store
            .forget_requests(now.minus(REQUESTS), SLICE)
            .await?
        {}
        Ok(())
    }
}
