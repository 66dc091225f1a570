//! The journal's thread: takes what is waiting, applies it as one batch a tree, flushes once, and
//! tells everyone who waited.

use std::io;

use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::sync::{mpsc, oneshot};

use super::{error::JournalError, store::Store};

/// Most writes under one flush.
const GROUP: usize = 64;

/// Resolves when a write is on disk.
pub type Durable = oneshot::Receiver<Result<(), JournalError>>;

/// One change: a key, and its sealed value or nothing.
pub(super) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
}

/// Changes of one tree that belong together, and who waits for them.
pub(super) struct Write {
    bundles: bool,
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

impl Write {
    pub(super) fn bundles(changes: Vec<Change>) -> (Self, Durable) {
        Self::new(true, changes)
    }

    pub(super) fn outcomes(changes: Vec<Change>) -> (Self, Durable) {
        Self::new(false, changes)
    }

    fn new(bundles: bool, changes: Vec<Change>) -> (Self, Durable) {
        let (done, durable) = oneshot::channel();
        let write = Self {
            bundles,
            changes,
            done,
        };
        (write, durable)
    }
}

/// Starts the thread; it ends when nobody can write any more.
pub(super) fn start(
    store: Store,
    mut queue: mpsc::Receiver<Write>,
    tasks: &Tasks,
) -> io::Result<()> {
    tasks.spawn_thread("journal", OnFailure::StopProcess, move || {
        let mut group = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut group, GROUP) > 0 {
            write_group(&store, &mut group);
        }
        Ok::<(), JournalError>(())
    })
}

fn write_group(store: &Store, group: &mut Vec<Write>) {
    let (mut bundles, mut outcomes) = (sled::Batch::default(), sled::Batch::default());
    let mut waiting = Vec::with_capacity(group.len());
    for write in group.drain(..) {
        let batch = if write.bundles {
            &mut bundles
        } else {
            &mut outcomes
        };
        for change in write.changes {
            match change {
                Change::Put(key, value) => batch.insert(key, value),
                Change::Remove(key) => batch.remove(key),
            }
        }
        waiting.push(write.done);
    }
    let result = store
        .bundles
        .apply_batch(bundles)
        .and_then(|()| store.outcomes.apply_batch(outcomes))
        .and_then(|()| store.db.flush())
        .map(|_| ())
        .map_err(|error| JournalError::Disk(error.to_string()));
    for done in waiting {
        // Whoever no longer waits does not need to know.
        let _ = done.send(result.clone());
    }
}
