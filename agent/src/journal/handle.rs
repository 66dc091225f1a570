//! What others write to the journal through: values are sealed here, so that nothing plain waits in
//! a queue.

use std::sync::Arc;

use countersign_shared::{
    job::{LeaseId, LeasedJob},
    name::DestinationName,
    seal::SealingKey,
    tasks::Tasks,
    wire,
};
use prost::Message as _;
use tokio::sync::mpsc;

use super::{
    error::JournalError,
    outbox_state::Batch,
    store::{Store, Tree, lease_key, seal},
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
        let sealed = seal(&self.key, Tree::Bundles, &key, encoded)?;
        let change = Change::Put(key, sealed);
        self.send(Write::new(vec![(Tree::Bundles, change)])).await
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
        let change = Change::Remove(key);
        self.send(Write::new(vec![(Tree::Bundles, change)])).await
    }

    /// Changes outcomes and jobs, all in one step.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was changed then.
    pub(super) async fn write(&self, batch: &Batch) -> Result<(), JournalError> {
        let mut changes = Vec::new();
        for outcome in &batch.outcomes {
            let lease = LeaseId {
                delivery: outcome.delivery,
                epoch: outcome.epoch,
            };
            let encoded = wire::outcome_to_wire(outcome).encode_to_vec();
            changes.push(self.put(Tree::Outcomes, lease, &encoded)?);
        }
        for job in &batch.jobs {
            let encoded = wire::job_to_disk(LeasedJob::clone(job)).encode_to_vec();
            changes.push(self.put(Tree::Jobs, job.lease, &encoded)?);
        }
        for (tree, leases) in [
            (Tree::Outcomes, &batch.acknowledged),
            (Tree::Jobs, &batch.done),
        ] {
            let removed = leases.iter().map(|it| Change::Remove(lease_key(*it)));
            changes.extend(removed.map(|change| (tree, change)));
        }
        let durable = self.send(Write::new(changes)).await?;
        durable.await.map_err(|_| JournalError::Closed)?
    }

    fn put(
        &self,
        tree: Tree,
        lease: LeaseId,
        encoded: &[u8],
    ) -> Result<(Tree, Change), JournalError> {
        let key = lease_key(lease);
        let sealed = seal(&self.key, tree, &key, encoded)?;
        Ok((tree, Change::Put(key, sealed)))
    }

    async fn send(&self, (write, durable): (Write, Durable)) -> Result<Durable, JournalError> {
        let sent = self.writes.send(write).await;
        sent.map(|()| durable).map_err(|_| JournalError::Closed)
    }
}
