//! The one writer: collects what is waiting, runs it in one transaction, and answers everybody after
//! the commit. While a commit syncs the disk the next batch gathers, so the batch grows with the
//! load by itself, and a lone write waits for nobody.
//!
//! Each piece of work runs in a savepoint: one that fails takes back its own changes and no other's.

use countersign_shared::tasks::{OnFailure, Tasks};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::readers::Reading;
use crate::store::{Result, StoreError};

/// How many pieces of work one commit takes at most.
const BATCH: usize = 256;
/// How many may wait; beyond that, callers wait to enter.
const QUEUE: usize = 4 * BATCH;

/// Runs inside the transaction; gives back what to do once the commit's result is known.
type Work = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(&Result<()>) + Send>;

/// Hands work to the writer's thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Work>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection, reading: Reading, tasks: &Tasks) -> Result<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tasks
            .spawn_thread("store writer", OnFailure::StopProcess, move || {
                write_until_closed(&connection, waiting);
                reading.wait();
                Ok::<_, StoreError>(())
            })
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { queue })
    }

    /// Runs `work` in the next transaction and answers when that is on disk.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, replied) = oneshot::channel();
        let boxed: Work = Box::new(move |connection| {
            let result = in_savepoint(connection, work);
            Box::new(move |committed| {
                // A caller that went away no longer needs the answer.
                let _ = reply.send(match committed {
                    Ok(()) => result,
                    Err(error) => result.and(Err(error.clone())),
                });
            })
        });
        self.queue.send(boxed).await.map_err(|_| stopped())?;
        replied.await.map_err(|_| stopped())?
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("it has been stopped".to_owned())
}

fn write_until_closed(connection: &Connection, mut waiting: mpsc::Receiver<Work>) {
    while let Some(first) = waiting.blocking_recv() {
        if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
            refuse(&mut waiting, connection, first, &error.into());
            continue;
        }
        let mut answers = vec![first(connection)];
        while answers.len() < BATCH {
            match waiting.try_recv() {
                Ok(work) => answers.push(work(connection)),
                Err(_) => break,
            }
        }
        let committed = commit(connection);
        if let Err(error) = &committed {
            tracing::error!(%error, "the store could not commit");
        }
        for answer in answers {
            answer(&committed);
        }
    }
}

fn commit(connection: &Connection) -> Result<()> {
    connection.execute_batch("COMMIT").map_err(|error| {
        // A failed commit (disk full) can leave the transaction open; the next BEGIN needs it gone.
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        error.into()
    })
}

/// No transaction could be begun: everybody who waits is told so.
fn refuse(
    waiting: &mut mpsc::Receiver<Work>,
    connection: &Connection,
    first: Work,
    error: &StoreError,
) {
    let refusal = Err(error.clone());
    let mut next = Some(first);
    while let Some(work) = next {
        // Run and rolled back at once: outside a transaction a savepoint is one of its own.
        if connection.execute_batch("SAVEPOINT refused").is_ok() {
            let answer = work(connection);
            let _ = connection.execute_batch("ROLLBACK TO refused; RELEASE refused");
            answer(&refusal);
        }
        // Otherwise the work is dropped, and with it its reply: the caller hears "stopped".
        next = waiting.try_recv().ok();
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    execute(connection, "SAVEPOINT work")?;
    let result = work(connection);
    if result.is_err() {
        execute(connection, "ROLLBACK TO work")?;
    }
    execute(connection, "RELEASE work")?;
    result
}

fn execute(connection: &Connection, statement: &str) -> Result<()> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)")
            .unwrap();
        connection
    }

    fn insert(x: i64) -> impl FnOnce(&Connection) -> Result<i64> + Send + 'static {
        move |connection| {
            connection.execute("INSERT INTO t VALUES (?)", [x])?;
            Ok(x)
        }
    }

    #[tokio::test]
    async fn one_failure_in_a_batch_takes_back_its_own_changes_only() {
        let (tasks, _failures) = Tasks::new();
        let writer = Writer::start(table(), Reading::nobody(), &tasks).unwrap();
        let bad = |connection: &Connection| -> Result<()> {
            connection.execute("INSERT INTO t VALUES (5)", [])?;
            Err(StoreError::Precondition("no".to_owned()))
        };
        let (one, refused, two) = tokio::join!(
            writer.run(insert(1)),
            writer.run(bad),
            writer.run(insert(2))
        );
        assert_eq!((one, two), (Ok(1), Ok(2)));
        assert_eq!(refused, Err(StoreError::Precondition("no".to_owned())));
        let rows = writer
            .run(|connection| {
                let mut statement = connection.prepare("SELECT x FROM t ORDER BY x")?;
                let rows = statement.query_map([], |row| row.get(0))?;
                Ok(rows.collect::<rusqlite::Result<Vec<i64>>>()?)
            })
            .await;
        assert_eq!(rows, Ok(vec![1, 2]));
    }

    #[tokio::test]
    async fn a_commit_that_fails_is_never_answered_with_success() {
        let connection = table();
        // Deferred constraints are checked at the commit, and only there.
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON;
                 CREATE TABLE child (x INTEGER REFERENCES t (x) DEFERRABLE INITIALLY DEFERRED);",
            )
            .unwrap();
        let (tasks, _failures) = Tasks::new();
        let writer = Writer::start(connection, Reading::nobody(), &tasks).unwrap();
        let orphan = |connection: &Connection| {
            connection.execute("INSERT INTO child VALUES (9)", [])?;
            Ok(())
        };
        assert!(writer.run(orphan).await.is_err());
        assert_eq!(writer.run(insert(3)).await, Ok(3), "the next batch works");
    }
}
