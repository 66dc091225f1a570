//! The journal: what the agent keeps on disk beside its identity, sealed, in sled. Bundles, and
//! outcomes that the control plane has not acknowledged yet.
//!
//! It is a cache that the control plane can refill: if it does not open it is set aside under
//! another name. `store` is the database, `writer` its thread, `outbox` the unacknowledged outcomes
//! in memory and how they get to disk in time.

use std::sync::Arc;

use countersign_proto::v1;
use countersign_shared::{
    job::LeaseId,
    name::DestinationName,
    outcome::Outcome,
    seal::{SealError, SealingKey},
    secret::SecretBytes,
    tasks::Tasks,
    wire,
};
use prost::Message as _;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

mod outbox;
mod store;
mod writer;

pub use self::{outbox::Outbox, store::open};
use self::{
    store::{BUNDLES, OUTCOMES, Store, outcome_key, seal},
    writer::{Change, Write},
};

/// Writes that may wait for the thread.
const QUEUE: usize = 256;

/// Why something is not on disk.
#[derive(Debug, Error, Clone)]
pub enum JournalError {
    /// The disk or the database refuses.
    #[error("the journal can't be written ({0})")]
    Disk(String),
    /// It can't be opened, and not because of its content.
    #[error("the journal {path} can't be opened ({reason})")]
    Open {
        /// Where.
        path: String,
        /// Why.
        reason: String,
    },
    /// Too large to seal.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The agent is stopping.
    #[error("the journal is closed")]
    Closed,
}

/// What the journal held when it was opened.
#[derive(Debug, Default)]
pub struct Contents {
    /// Bundles, as the control plane encoded them.
    pub bundles: Vec<SecretBytes>,
    /// Outcomes that were not acknowledged.
    pub outcomes: Vec<Outcome>,
}

/// Writes to the journal. Cheap to clone; the last clone that is dropped ends the thread.
#[derive(Debug, Clone)]
pub struct Journal {
    key: Arc<SealingKey>,
    writes: mpsc::Sender<Write>,
}

/// Resolves when a write is on disk.
pub type Durable = oneshot::Receiver<Result<(), JournalError>>;

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
    async fn write_outcomes(
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

fn decode_outcome(encoded: &[u8]) -> Option<Outcome> {
    let outcome = v1::Outcome::decode(encoded).ok()?;
    wire::outcome_from_wire(outcome).ok()
}
