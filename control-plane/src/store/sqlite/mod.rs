//! The embedded store: SQLite in WAL mode with synchronous=FULL, one writer with group commit, a few
//! readers. Each has a thread and a connection of its own.

mod connection;

use std::{path::Path, sync::Arc};

use countersign_shared::tasks::Tasks;

use super::{
    InstallationFacts, Result, StoreError,
    sql::{
        self, Database, FirstEnd,
        arrivals::{self, Arrivals},
        connection::Connection,
        readers::Readers,
        writer::{Lane, Writer},
    },
};

/// How many threads read.
const READERS: usize = 2;

/// The embedded store. Its threads end when it is dropped.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
    first_end: Arc<FirstEnd>,
}

impl SqliteStore {
    /// Opens the database at `path`, making it if there is none.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be opened, is not a store of ours, or is of a newer version.
    pub fn open(path: &Path, tasks: &Tasks) -> Result<Self> {
        Self::open_with(Arrivals::default(), path, tasks)
    }

    /// As [`SqliteStore::open`], with so much room for what has arrived.
    pub(super) fn open_with(arrivals: Arrivals, path: &Path, tasks: &Tasks) -> Result<Self> {
        let writing = Connection::Sqlite(connection::open(path)?, Some(Box::new(arrivals)));
        writing.begin()?;
        arrivals::load(&writing)?;
        writing.commit()?;
        let reader = || Ok(Connection::Sqlite(connection::open_reader(path)?, None));
        let (readers, reading) = Readers::start(READERS, reader, tasks)?;
        Ok(Self {
            writer: Writer::start(writing, reading, tasks)?,
            readers,
            first_end: Arc::default(),
        })
    }

    /// What is known of the installation at `path` before it is opened; `None` when there is none yet.
    /// Leaves the database as it is, byte for byte, whether it was closed or its process killed.
    /// Nobody else may have it open for writing.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn look(path: &Path) -> Result<Option<InstallationFacts>> {
        match connection::open_for_a_look(path)? {
            Some(connection) => sql::facts(&Connection::Sqlite(connection, None)),
            None => Ok(None),
        }
    }
}

impl Database for SqliteStore {
    const HAS_PIECES: bool = false;
    const HAS_ARRIVALS: bool = true;

    async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.run(lane, work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.run(work).await
    }

    fn first_end(&self) -> &Arc<FirstEnd> {
        &self.first_end
    }
}

/// Opens the file for a look that leaves it as it is; `None` when there is no store in it. Nobody may have
/// it open for writing.
pub(super) fn look_into(path: &Path) -> Result<Option<rusqlite::Connection>> {
    connection::open_for_a_look(path)
}

/// SQLite's errors in ours: what can pass (full disk, busy) is unavailable, what can't is corrupt.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        match &error {
            Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch => Self::Corrupt(error.to_string()),
                _ => Self::Unavailable(error.to_string()),
            },
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::tasks::Tasks;

    use super::*;
    use crate::store::{conformance, sql::connection::Statement};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        conformance::run(async || {
            let (tasks, failures) = Tasks::new();
            let store = SqliteStore::open(&path, &tasks).unwrap();
            (store, (tasks, failures))
        })
        .await;
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        let other = rusqlite::Connection::open(&path).unwrap();
        other
            .execute_batch("CREATE TABLE mine (x); PRAGMA user_version = 7;")
            .unwrap();
        drop(other);
        let before = std::fs::read(&path).unwrap();
        let (tasks, _failures) = Tasks::new();
        let error = SqliteStore::open(&path, &tasks).unwrap_err().to_string();
        assert!(error.contains("not a Countersign store"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[tokio::test]
    async fn a_copy_made_while_it_is_open_is_a_store_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("one"), folder.path().join("two"));
        let (tasks, _failures) = Tasks::new();
        let store = SqliteStore::open(&path, &tasks).unwrap();
        let answered = store
            .write(|connection| connection.batch("INSERT INTO data_keys VALUES ('x', x'01', 'k')"));
        answered.await.unwrap();
        // As docs/operations.md tells operators to.
        let operators = rusqlite::Connection::open(&path).unwrap();
        let statement = format!("VACUUM INTO '{}'", copy.display());
        operators.execute_batch(&statement).unwrap();

        let copied = SqliteStore::open(&copy, &tasks).unwrap();
        let key = crate::store::InstallationStore::data_key(&copied, "x").await;
        assert_eq!(key.unwrap().wrapped, [1]);
        for (pragma, expected) in [("journal_mode", "wal"), ("page_size", "8192")] {
            let read = move |connection: &Connection| {
                let query = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
                let found: Option<String> =
                    Statement::new(connection, &query)?.one([], |row| row.get(0))?;
                Ok(found.unwrap())
            };
            assert_eq!(copied.read(read).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_store_of_an_older_version_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        drop(connection::open(&path).unwrap());
        let older = rusqlite::Connection::open(&path).unwrap();
        older
            .execute_batch("DROP TABLE arrivals; PRAGMA user_version = 1;")
            .unwrap();
        drop(older);
        let (tasks, _failures) = Tasks::new();
        for _ in 0..2 {
            let store = SqliteStore::open(&path, &tasks).unwrap();
            let version =
                "SELECT user_version + (SELECT count(*) FROM arrivals) FROM pragma_user_version";
            let read = |connection: &Connection| {
                Statement::new(connection, version)?.one([], |row| row.get::<_, i64>(0))
            };
            assert_eq!(store.read(read).await.unwrap(), Some(2));
        }
    }

    #[test]
    fn a_store_of_a_newer_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        drop(connection::open(&path).unwrap());
        let newer = rusqlite::Connection::open(&path).unwrap();
        newer.execute_batch("PRAGMA user_version = 99;").unwrap();
        drop(newer);
        let error = connection::open(&path).unwrap_err().to_string();
        assert!(error.contains("newer version"), "{error}");
    }
}
