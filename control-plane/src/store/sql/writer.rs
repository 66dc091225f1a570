//! The one writer: collects what is waiting, runs it in one transaction, and answers everybody after
//! the commit. While a commit syncs the disk the next batch gathers, so the batch grows with the
//! load by itself, and a lone write waits for nobody.
//!
//! Leases and outcomes go ahead of everything else: when more is submitted than can be delivered, the
//! submissions wait for each other and the deliveries do not wait for them.
//!
//! A piece of work runs in a savepoint, so that one that fails takes back its own changes and no
//! other's; or it is *checked*: it looks before it writes, fails only before its first change, and
//! needs none (a savepoint copies every page that is touched in it). Should a checked piece break
//! its word (the disk is full), the whole batch is taken back.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{audit::on_record, connection::Connection, readers::Reading, rows::execute};
use crate::{
    audit,
    store::{Result, StoreError},
};

/// How much work one commit takes before it takes no more, by weight: a delivery that is submitted, leased or
/// settled weighs one, or more if it is large. A page that many of them change is written once for all.
const BATCH: usize = 1024;
/// What a piece in a savepoint weighs: it may do anything.
const SAVEPOINT: usize = 4;
/// How many pieces may wait; beyond that, callers wait to enter.
const QUEUE: usize = 1024;

/// Runs inside the transaction, or hears why there is none; gives back what to do once the commit's
/// result is known, and why the whole batch must be taken back, if it must.
type Run = Box<dyn FnOnce(Result<&Connection>) -> (Answer, Option<StoreError>) + Send>;
type Answer = Box<dyn FnOnce(&Result<()>) + Send>;

/// A piece of work.
struct Work {
    run: Run,
    /// How much of a batch it makes up.
    weight: usize,
}

/// What is waiting to be written.
#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Work>,
    ordinary: VecDeque<(Work, OwnedSemaphorePermit)>,
    closed: bool,
}

impl Waiting {
    fn next(&mut self) -> Option<Work> {
        let ordinary = || self.ordinary.pop_front().map(|(work, _place)| work);
        self.urgent.pop_front().or_else(ordinary)
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Queue {
    /// Pieces of work are whole or not there; a panic elsewhere leaves none half in the queue.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work; `None` when there will be no more.
    fn wait(&self) -> Option<Work> {
        let mut waiting = self.lock();
        loop {
            match waiting.next() {
                Some(work) => return Some(work),
                None if waiting.closed => return None,
                None => {
                    let woken = self.arrived.wait(waiting);
                    waiting = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// How a piece of work is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Lane {
    /// In its turn, in a savepoint.
    Savepoint,
    /// In its turn; fails only before its first change. Of this weight.
    Checked(usize),
    /// Ahead of the others; fails only before its first change. Bounded by the number of sessions, so
    /// it never waits to enter. Of this weight.
    Urgent(usize),
}

/// Hands work to the writer's thread, which ends when this is dropped.
pub(in crate::store) struct Writer {
    queue: Arc<Queue>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.arrived.notify_all();
    }
}

impl Writer {
    /// Starts the thread.
    pub(in crate::store) fn start(
        connection: Connection,
        reading: Reading,
        tasks: &Tasks,
    ) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let served = Arc::clone(&queue);
        tasks
            .spawn_thread("store writer", OnFailure::StopProcess, move || {
                write_until_closed(&connection, &served);
                reading.wait();
                Ok::<_, StoreError>(())
            })
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self {
            queue,
            places: Arc::new(Semaphore::new(QUEUE)),
        })
    }

    /// Runs `work` in the next transaction and answers when that is on disk. What it changes is put on
    /// record in the same transaction, if it is known who is at work.
    pub(in crate::store) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, replied) = oneshot::channel();
        let call = audit::current();
        let work = move |connection: &Connection| match call {
            Some(call) => on_record(connection, &call, work),
            None => work(connection),
        };
        let run: Run = Box::new(move |begun| {
            let (result, fatal) = match (begun, lane) {
                (Err(error), _) => (Err(error), None),
                (Ok(connection), Lane::Savepoint) => (in_savepoint(connection, work), None),
                (Ok(connection), Lane::Checked(_) | Lane::Urgent(_)) => checked(connection, work),
            };
            let answer: Answer = Box::new(move |committed| {
                // A caller that went away no longer needs the answer.
                let _ = reply.send(match committed {
                    Ok(()) => result,
                    Err(error) => result.and(Err(error.clone())),
                });
            });
            (answer, fatal)
        });
        let weight = match lane {
            Lane::Checked(weight) | Lane::Urgent(weight) => weight.max(1),
            Lane::Savepoint => SAVEPOINT,
        };
        self.enter(lane, Work { run, weight }).await?;
        replied.await.map_err(|_| stopped())?
    }

    async fn enter(&self, lane: Lane, work: Work) -> Result<()> {
        if matches!(lane, Lane::Urgent(_)) {
            self.queue.lock().urgent.push_back(work);
        } else {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.map_err(|_| stopped())?;
            self.queue.lock().ordinary.push_back((work, place));
        }
        self.queue.arrived.notify_one();
        Ok(())
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("it has been stopped".to_owned())
}

fn write_until_closed(connection: &Connection, queue: &Queue) {
    while let Some(first) = queue.wait() {
        let begun = connection.begin();
        let mut answers = Vec::new();
        let committed = match begun {
            Ok(()) => {
                let fatal = run_batch(connection, queue, first, &mut answers);
                end(connection, fatal)
            }
            Err(error) => {
                answers.push((first.run)(Err(error.clone())).0);
                Err(error)
            }
        };
        if let Err(error) = &committed {
            tracing::error!(%error, "the store could not write");
        }
        for answer in answers {
            answer(&committed);
        }
    }
}

/// Runs what is waiting, `first` first; answers why all of it must be taken back, if it must.
fn run_batch(
    connection: &Connection,
    queue: &Queue,
    first: Work,
    answers: &mut Vec<Answer>,
) -> Option<StoreError> {
    let (mut next, mut done) = (Some(first), 0);
    while let Some(work) = next {
        done += work.weight;
        let (answer, fatal) = (work.run)(Ok(connection));
        answers.push(answer);
        if fatal.is_some() {
            return fatal;
        }
        next = match done < BATCH {
            true => queue.lock().next(),
            false => None,
        };
    }
    None
}

fn end(connection: &Connection, fatal: Option<StoreError>) -> Result<()> {
    let ended = match fatal {
        None => connection.commit(),
        Some(error) => Err(error),
    };
    // A failed commit (disk full) can leave the transaction open; the next one needs it gone.
    if ended.is_err() {
        connection.roll_back();
    }
    ended
}

/// Runs work that fails only before its first change. Any other failure is one of the database, and
/// what was changed by then is unknown.
fn checked<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> (Result<T>, Option<StoreError>) {
    let result = work(connection);
    let fatal = match &result {
        Err(error @ (StoreError::Unavailable(_) | StoreError::Corrupt(_))) => Some(error.clone()),
        _ => None,
    };
    (result, fatal)
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    let mark = connection.mark();
    execute(connection, "SAVEPOINT work", [])?;
    let result = work(connection);
    if result.is_err() {
        execute(connection, "ROLLBACK TO work", [])?;
        connection.mended(mark);
    }
    execute(connection, "RELEASE work", [])?;
    result
}

#[cfg(test)]
mod tests {
    use super::{super::rows::all, *};

    fn table() -> Connection {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)")
            .unwrap();
        Connection::Sqlite(connection, None)
    }

    fn start(connection: Connection) -> (Writer, Tasks) {
        let (tasks, _failures) = Tasks::new();
        (
            Writer::start(connection, Reading::nobody(), &tasks).unwrap(),
            tasks,
        )
    }

    fn insert(x: i64) -> impl FnOnce(&Connection) -> Result<i64> + Send + 'static {
        move |connection| {
            execute(connection, "INSERT INTO t VALUES (?)", [x])?;
            Ok(x)
        }
    }

    async fn rows(writer: &Writer) -> Vec<i64> {
        let read = |connection: &Connection| {
            all(connection, "SELECT x FROM t ORDER BY x", [], |row| {
                row.get(0)
            })
        };
        writer.run(Lane::Savepoint, read).await.unwrap()
    }

    #[tokio::test]
    async fn one_failure_in_a_batch_takes_back_its_own_changes_only() {
        let (writer, _tasks) = start(table());
        let bad = |connection: &Connection| -> Result<()> {
            execute(connection, "INSERT INTO t VALUES (5)", [])?;
            Err(StoreError::Precondition("no".to_owned()))
        };
        let (one, refused, two) = tokio::join!(
            writer.run(Lane::Savepoint, insert(1)),
            writer.run(Lane::Savepoint, bad),
            writer.run(Lane::Checked(1), insert(2)),
        );
        assert_eq!((one, two), (Ok(1), Ok(2)));
        assert_eq!(refused, Err(StoreError::Precondition("no".to_owned())));
        assert_eq!(rows(&writer).await, [1, 2]);
    }

    #[tokio::test]
    async fn checked_work_that_breaks_halfway_takes_the_batch_with_it_and_no_more() {
        let (writer, _tasks) = start(table());
        let breaks = |connection: &Connection| -> Result<()> {
            execute(connection, "INSERT INTO t VALUES (5)", [])?;
            Err(StoreError::Unavailable("disk full".to_owned()))
        };
        let refuses = |_: &Connection| -> Result<()> { Err(StoreError::NotFound("x".to_owned())) };
        let (one, broken) = tokio::join!(
            writer.run(Lane::Savepoint, insert(1)),
            writer.run(Lane::Urgent(1), breaks),
        );
        assert!(broken.is_err());
        let kept = rows(&writer).await;
        // In one batch with the broken one it was taken back, and its caller was told.
        assert_eq!(kept, one.map_or_else(|_| vec![], |x| vec![x]));
        let (refused, two) = tokio::join!(
            writer.run(Lane::Checked(1), refuses),
            writer.run(Lane::Checked(1), insert(2)),
        );
        assert_eq!(
            (refused.is_err(), two),
            (true, Ok(2)),
            "a refusal harms nobody"
        );
        assert!(rows(&writer).await.contains(&2));
    }

    #[tokio::test]
    async fn a_commit_that_fails_is_never_answered_with_success() {
        let connection = table();
        // Deferred constraints are checked at the commit, and only there.
        connection
            .batch(
                "PRAGMA foreign_keys = ON;
                 CREATE TABLE child (x INTEGER REFERENCES t (x) DEFERRABLE INITIALLY DEFERRED);",
            )
            .unwrap();
        let (writer, _tasks) = start(connection);
        let orphan = |connection: &Connection| {
            execute(connection, "INSERT INTO child VALUES (9)", [])?;
            Ok(())
        };
        assert!(writer.run(Lane::Checked(1), orphan).await.is_err());
        let next = writer.run(Lane::Savepoint, insert(3)).await;
        assert_eq!(next, Ok(3), "the next batch works");
    }

    #[tokio::test]
    async fn whoever_waits_hears_why_nothing_could_begin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        let other = rusqlite::Connection::open(&path).unwrap();
        other
            .execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY); BEGIN IMMEDIATE")
            .unwrap();
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let (writer, _tasks) = start(Connection::Sqlite(connection, None));
        for lane in [Lane::Savepoint, Lane::Checked(1), Lane::Urgent(1)] {
            let error = writer.run(lane, insert(1)).await.unwrap_err();
            assert!(error.to_string().contains("locked"), "{error}");
        }
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(writer.run(Lane::Checked(1), insert(1)).await, Ok(1));
    }

    #[test]
    fn what_is_urgent_goes_first() {
        let mut waiting = Waiting::default();
        let places = Arc::new(Semaphore::new(1));
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| -> Work {
            let order = Arc::clone(&order);
            let run: Run = Box::new(move |_| {
                order.lock().unwrap().push(name);
                (Box::new(|_| ()), None)
            });
            Work { run, weight: 1 }
        };
        let place = places.try_acquire_owned().unwrap();
        waiting.ordinary.push_back((note("submission"), place));
        waiting.urgent.push_back(note("lease"));
        let connection = table();
        while let Some(work) = waiting.next() {
            drop((work.run)(Ok(&connection)));
        }
        assert_eq!(*order.lock().unwrap(), ["lease", "submission"]);
    }
}
