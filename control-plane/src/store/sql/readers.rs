//! The readers: a few threads, each with a connection, which see every commit that was answered.

use std::{
    convert::Infallible,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc as std_mpsc,
    },
};

use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::sync::{mpsc, oneshot};

use super::connection::Connection;
use crate::store::{Result, StoreError};

/// How many reads may wait for one thread; beyond that, callers wait to enter.
const QUEUE: usize = 256;

type Work = Box<dyn FnOnce(&Connection) + Send>;

/// Tells when the last reader's connection is closed. The writer waits for that: SQLite tidies its log
/// away when the last connection closes, and two that close at once each leave it to the other.
#[derive(Debug)]
pub(in crate::store) struct Reading(std_mpsc::Receiver<Infallible>);

impl Reading {
    /// Where there are no readers.
    #[cfg(test)]
    pub(in crate::store) fn nobody() -> Self {
        Self(std_mpsc::channel().1)
    }

    /// Waits until no reader is left.
    pub(in crate::store) fn wait(self) {
        // Nothing is ever sent: the error says that every sending end is gone.
        let _ = self.0.recv();
    }
}

/// Hands reads to the readers' threads, in turn.
#[derive(Debug)]
pub(in crate::store) struct Readers {
    queues: Vec<mpsc::Sender<Work>>,
    turn: AtomicUsize,
}

impl Readers {
    /// Starts the threads.
    pub(in crate::store) fn start(
        threads: usize,
        connect: impl Fn() -> Result<Connection>,
        tasks: &Tasks,
    ) -> Result<(Self, Reading)> {
        let mut queues = Vec::with_capacity(threads);
        let (open, reading) = std_mpsc::channel::<Infallible>();
        for _ in 0..threads {
            let connection = connect()?;
            let (queue, mut waiting) = mpsc::channel::<Work>(QUEUE);
            let open = open.clone();
            tasks
                .spawn_thread("store reader", OnFailure::StopProcess, move || {
                    while let Some(work) = waiting.blocking_recv() {
                        work(&connection);
                    }
                    drop(connection);
                    drop(open);
                    Ok::<_, StoreError>(())
                })
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
            queues.push(queue);
        }
        let readers = Self {
            queues,
            turn: AtomicUsize::new(0),
        };
        Ok((readers, Reading(reading)))
    }

    /// Runs `work` on a reader.
    pub(in crate::store) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stopped = || StoreError::Unavailable("it has been stopped".to_owned());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let (reply, replied) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            // A caller that went away no longer needs the answer.
            let _ = reply.send(connection.ready().and_then(|()| work(connection)));
        });
        let queue = self.queues.get(turn).ok_or_else(stopped)?;
        queue.send(work).await.map_err(|_| stopped())?;
        replied.await.map_err(|_| stopped())?
    }
}
