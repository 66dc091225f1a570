//! Releasing what is held: when its cause is gone, everything that waited for that goes at once.

use std::{sync::Arc, time::Duration};

use countersign_shared::{random, time::Clock};
use tokio_util::sync::CancellationToken;

use crate::{
    model::DestinationKey,
    signals::{Holds, Wake},
    store::{Store, StoreError},
};

/// How many deliveries one transaction releases: few enough that others hardly wait.
const SLICE: usize = 500;
/// How long to leave the store alone after it failed.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Releases held deliveries of the destinations that [`Holds`] names. Whoever has reason to think that
/// a cause is gone calls [`Holds::release`].
#[derive(Clone)]
pub struct Release {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Told when deliveries may go out.
    pub wake: Arc<Wake>,
    /// Names destinations.
    pub holds: Arc<Holds>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Release {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// None for now: a store that fails is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        loop {
            let destinations = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                destinations = self.holds.to_release() => destinations,
            };
            let mut failed = false;
            for destination in destinations {
                if let Err(error) = self.release(destination).await {
                    tracing::warn!(%error, "held deliveries not released; trying again");
                    self.holds.release(destination);
                    failed = true;
                }
            }
            if failed {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = tokio::time::sleep(random::full_jitter(BACK_OFF)) => {}
                }
            }
        }
    }

    /// Makes all held deliveries of a destination due now; answers with how many there were.
    ///
    /// # Errors
    /// [`StoreError`]; some may have been released then.
    pub async fn release(&self, destination: DestinationKey) -> Result<usize, StoreError> {
        // One time for all slices: what was released once is not found again.
        let now = self.clock.now();
        let mut all = 0;
        loop {
            let released = self.store.release_held(destination, now, SLICE).await?;
            if released > 0 {
                all += released;
                self.wake.due_anywhere(destination, now);
            }
            if released < SLICE {
                break;
            }
        }
        if all > 0 {
            tracing::info!(deliveries = all, "held deliveries released");
        }
        Ok(all)
    }
}
