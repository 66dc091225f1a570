//! What others write to the journal through: values are sealed here, so that nothing plain waits in
//! a queue.

use std::sync::Arc;

use countersign_shared::{
    job::LeaseId, name::DestinationName, outcome::Outcome, seal::SealingKey, tasks::Tasks, wire,
};
use prost::Message as _;
use tokio::sync::mpsc;

use super::{
    error::JournalError,
    store::{BUNDLES, OUTCOMES, Store, outcome_key, seal},
    writer::{self, Change, Durable, Write},
};

/// Writes that may wait for the thread.
const QUEUE: usize = 256;

/// Writes to the journal. Cheap to clone; the last clone that is dropped ends the thread.
#[derive(Debug, Clone)]
pub struct Journal {
    key: Arc<SealingKey>,
    writes: mpsc::Sender<Write>,
}

impl Journal {
    /// Starts the thread that writes to `store`.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(store: Store, tasks: &Tasks) -> std::io::Result<Self> {
        let (writes, queue) = mpsc::channel(QUEUE);
        let key = Arc::clone(&store.key);
        writer::start(store, queue, tasks)?;
        Ok(Self { key, writes })
    }

    /// Stores a bundle, in the place of the destination's older one.
    ///
    /// # Errors
    /// [`JournalError`] at once, or through what is returned.
    pub async fn put_bundle(
        &self,
        destination: &DestinationName,
        encoded: &[u8],
    ) -> Result<Durable, JournalError> {
        let key = destination.as_str().as_bytes().to_vec();
        let sealed = seal(&self.key, BUNDLES, &key, encoded)?;
        self.write(Write::bundles(vec![Change::Put(key, sealed)]))
            .await
    }

    /// Forgets a destination's bundle.
    ///
    /// # Errors
    /// [`JournalError`] at once, or through what is returned.
    pub async fn remove_bundle(
        &self,
        destination: &DestinationName,
    ) -> Result<Durable, JournalError> {
        let key = destination.as_str().as_bytes().to_vec();
        self.write(Write::bundles(vec![Change::Remove(key)])).await
    }

    /// Stores and forgets outcomes, all in one step.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was changed then.
    pub(super) async fn write_outcomes(
        &self,
        puts: &[Arc<Outcome>],
        removes: &[LeaseId],
    ) -> Result<(), JournalError> {
        let mut changes = Vec::with_capacity(puts.len() + removes.len());
        for outcome in puts {
            let lease = LeaseId {
                delivery: outcome.delivery,
                epoch: outcome.epoch,
            };
            let (key, encoded) = (outcome_key(lease), wire::outcome_to_wire(outcome));
            let sealed = seal(&self.key, OUTCOMES, &key, &encoded.encode_to_vec())?;
            changes.push(Change::Put(key, sealed));
        }
        changes.extend(removes.iter().map(|it| Change::Remove(outcome_key(*it))));
        let durable = self.write(Write::outcomes(changes)).await?;
        durable.await.map_err(|_| JournalError::Closed)?
    }

    async fn write(&self, (write, durable): (Write, Durable)) -> Result<Durable, JournalError> {
        let sent = self.writes.send(write).await;
        sent.map(|()| durable).map_err(|_| JournalError::Closed)
    }
}
