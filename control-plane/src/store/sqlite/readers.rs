//! The readers: a few threads, each with a connection, which see every commit that was answered.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use countersign_shared::tasks::{OnFailure, Tasks};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::connection;
use crate::store::{Result, StoreError};

const THREADS: usize = 2;
/// How many reads may wait for one thread; beyond that, callers wait to enter.
const QUEUE: usize = 256;

type Work = Box<dyn FnOnce(&Connection) + Send>;

/// Hands reads to the readers' threads, in turn.
#[derive(Debug)]
pub(super) struct Readers {
    queues: Vec<mpsc::Sender<Work>>,
    turn: AtomicUsize,
}

impl Readers {
    /// Starts the threads.
    pub(super) fn start(path: &Path, tasks: &Tasks) -> Result<Self> {
        let mut queues = Vec::with_capacity(THREADS);
        for _ in 0..THREADS {
            let connection = connection::open_reader(path)?;
            let (queue, mut waiting) = mpsc::channel::<Work>(QUEUE);
            tasks
                .spawn_thread("store reader", OnFailure::StopProcess, move || {
                    while let Some(work) = waiting.blocking_recv() {
                        work(&connection);
                    }
                    Ok::<_, StoreError>(())
                })
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
            queues.push(queue);
        }
        Ok(Self {
            queues,
            turn: AtomicUsize::new(0),
        })
    }

    /// Runs `work` on a reader.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stopped = || StoreError::Unavailable("it has been stopped".to_owned());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let (reply, replied) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            // A caller that went away no longer needs the answer.
            let _ = reply.send(work(connection));
        });
        let queue = self.queues.get(turn).ok_or_else(stopped)?;
        queue.send(work).await.map_err(|_| stopped())?;
        replied.await.map_err(|_| stopped())?
    }
}
