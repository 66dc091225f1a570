//! What people do to deliveries: send them again, give them up.

use std::sync::Arc;

use countersign_shared::{
    name::{AccountName, DeliveryId},
    time::Clock,
};

use super::Backlog;
use crate::{
    model::{Delivery, ReplayFilter},
    signals::{DeadLetters, Wake},
    store::{Store, StoreError},
};

/// Most dead letters that one call replays, and how many at a time.
const MAX_REPLAY: usize = 10_000;
const REPLAY_SLICE: usize = 500;

/// Retries, replays and cancels.
#[derive(Clone)]
pub struct ByHand {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Told when deliveries are due.
    pub wake: Arc<Wake>,
    /// Told of dead letters that are sent again or cancelled.
    pub dead_letters: Arc<DeadLetters>,
    /// Told what comes back and what goes.
    pub backlog: Arc<Backlog>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl ByHand {
    /// Makes a dead letter or a waiting delivery due now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Precondition`] in any other state.
    pub async fn retry(
        &self,
        account: &AccountName,
        id: DeliveryId,
    ) -> Result<Delivery, StoreError> {
        let now = self.clock.now();
        let retried = self.store.retry(account, id, now).await?;
        let delivery = retried.delivery;
        let key = delivery.destination_key;
        if retried.revived {
            self.dead_letters.changed(key);
            let name = &delivery.destination;
            self.backlog.returned(name, key, delivery.payload_size);
        }
        self.wake.due_anywhere(key, now);
        Ok(delivery)
    }

    /// Gives a delivery up; the next of its ordering key is due then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Precondition`] when it is settled already.
    pub async fn cancel(
        &self,
        account: &AccountName,
        id: DeliveryId,
    ) -> Result<Delivery, StoreError> {
        let now = self.clock.now();
        let cancelled = self.store.cancel(account, id, now).await?;
        let delivery = cancelled.delivery;
        let key = delivery.destination_key;
        match cancelled.was_settled {
            true => self.dead_letters.changed(key),
            false => self.backlog.left([(key, delivery.payload_size)]),
        }
        if delivery.ordering_key.is_some() {
            self.wake.due_anywhere(key, now);
        }
        Ok(delivery)
    }

    /// Makes the dead letters of an account that fit `filter` due now, at most 10,000, or only counts
    /// them with `dry_run`. Answers with how many there were, and whether there are more.
    ///
    /// # Errors
    /// [`StoreError`]; some may be due then.
    pub async fn replay(
        &self,
        account: &AccountName,
        filter: &ReplayFilter,
        dry_run: bool,
    ) -> Result<(usize, bool), StoreError> {
        let now = self.clock.now();
        let (mut count, mut more) = (0, true);
        // In slices, so that other writes need not wait for all of them.
        while more && count < MAX_REPLAY {
            let size = match dry_run {
                true => MAX_REPLAY,
                false => REPLAY_SLICE.min(MAX_REPLAY - count),
            };
            let found = self
                .store
                .replay(account, filter, dry_run, size, now)
                .await?;
            count += found.items.len();
            more = found.more;
            if dry_run {
                break;
            }
            for item in found.items {
                let key = item.destination;
                let name = match self.backlog.name(key) {
                    Some(name) => Ok(name),
                    None => self
                        .store
                        .destination_by_key(key)
                        .await
                        .map(|found| found.name),
                };
                // One that is gone by now has no backlog.
                if let Ok(name) = name {
                    self.backlog.returned(&name, key, item.payload_size);
                }
                self.wake.due_anywhere(key, now);
                self.dead_letters.changed(key);
            }
        }
        Ok((count, more))
    }
}
