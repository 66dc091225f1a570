//! Counting the backlog in the store: all of it soon after a start, and again every now and then.

use std::{collections::HashMap, sync::Arc, time::Duration};

use countersign_shared::name::DestinationName;
use tokio_util::sync::CancellationToken;

use super::Backlog;
use crate::{
    model::DestinationKey,
    store::{Store, StoreError},
};

/// Fills [`Backlog`] after a start, and corrects it.
pub struct Recount {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// What is corrected.
    pub backlog: Arc<Backlog>,
    /// How often everything is counted.
    pub every: Duration,
}

impl Recount {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// None for now: what fails is counted in the next round.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut round = tokio::time::interval(self.every);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = round.tick() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                result = self.count_all() => if let Err(error) = result {
                    tracing::warn!(%error, "backlog not counted; trying again");
                }
            }
        }
    }

    /// Counts every destination that has a backlog, or is thought to. One at a time: each count is a
    /// short look, and what changes during it is little.
    ///
    /// # Errors
    /// [`StoreError`]; those that come after were not counted then.
    pub async fn count_all(&self) -> Result<(), StoreError> {
        let mut destinations: HashMap<DestinationKey, DestinationName> =
            self.store.backlogged().await?.into_iter().collect();
        destinations.extend(self.backlog.counted());
        for (key, name) in destinations {
            let began = self.backlog.begin(key, &name);
            let load = self.store.backlog(key).await?;
            self.backlog.end(key, began, load);
        }
        self.backlog.forget_unknown();
        Ok(())
    }
}
