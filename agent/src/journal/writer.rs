//! The journal's thread: takes what is waiting, applies it as one batch a tree, flushes once, and
//! tells everyone who waited.

use std::io;

use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::sync::{mpsc, oneshot};

use super::{
    error::JournalError,
    store::{Store, Tree},
};

/// Most writes under one flush.
const GROUP: usize = 64;

/// Resolves when a write is on disk.
pub type Durable = oneshot::Receiver<Result<(), JournalError>>;

/// One change: a key, and its sealed value or nothing.
pub(super) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
}

/// Changes that belong together, and who waits for them.
pub(super) struct Write {
    changes: Vec<(Tree, Change)>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

impl Write {
    pub(super) fn new(changes: Vec<(Tree, Change)>) -> (Self, Durable) {
        let (done, durable) = oneshot::channel();
        (Self { changes, done }, durable)
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
    let mut batches = Tree::ALL.map(|tree| (tree, sled::Batch::default()));
    let mut waiting = Vec::with_capacity(group.len());
    for write in group.drain(..) {
        for (tree, change) in write.changes {
            let Some((_, batch)) = batches.iter_mut().find(|(it, _)| *it == tree) else {
                continue;
            };
            match change {
                Change::Put(key, value) => batch.insert(key, value),
                Change::Remove(key) => batch.remove(key),
            }
        }
        waiting.push(write.done);
    }
    let applied: sled::Result<()> = batches
        .into_iter()
        .try_for_each(|(tree, batch)| store.tree(tree).apply_batch(batch));
    let result = applied
        .and_then(|()| store.db.flush())
        .map(|_| ())
        .map_err(|error| JournalError::Disk(error.to_string()));
    for done in waiting {
        // Whoever no longer waits does not need to know.
        let _ = done.send(result.clone());
    }
}
