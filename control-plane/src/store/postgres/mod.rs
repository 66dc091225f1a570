//! The store on a PostgreSQL server (15 or later), for several control planes. The SQL is the embedded
//! store's (`../sql`); here is how the server is connected to.
//!
//! As in the embedded store one thread writes, in batches, and a few read. The writers of several control
//! planes take turns (see the module `session`).

pub(super) mod bulk;
mod channel;
mod copy;
mod dollars;
mod heads;
mod known;
mod options;
pub(super) mod partitions;
mod programs;
mod schema;
pub(super) mod session;
mod tls;
mod unknown;

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use countersign_shared::tasks::{self, Tasks};

pub use self::channel::{Ahead, Channel, Heard};
pub use self::copy::Copied;
pub use self::options::{Options, OptionsError};
pub use self::programs::Programs;
use self::session::Session;
use super::{
    InstallationFacts, Result, StoreError,
    sql::{
        self, Database, FirstEnd,
        connection::Connection,
        readers::Readers,
        writer::{Lane, Writer},
    },
};

/// How long callers wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many threads read.
const READERS: usize = 4;
/// Each start has a writer of its own. Nobody asks for a commit that is so old.
const FORGET_WRITERS: &str = "DELETE FROM writers WHERE at < now() - interval '1 day'";
/// How often to look for leases that other control planes gave and that have ended.
const LOOK: Duration = Duration::from_secs(1);

/// The store on a server. Its threads end when it is dropped.
#[derive(Debug)]
pub struct PostgresStore {
    writer: Writer,
    readers: Readers,
    first_end: Arc<FirstEnd>,
}

impl PostgresStore {
    /// Connects, and makes the tables if there are none.
    ///
    /// # Errors
    /// [`StoreError`] when the server can't be reached or does not let us in, and when its store is of a
    /// newer version.
    pub async fn open(options: Arc<Options>, tasks: &Tasks) -> Result<Self> {
        let migrating = Arc::clone(&options);
        blocking(move || {
            let session = Session::new(migrating);
            schema::migrate(&session)?;
            session.batch(FORGET_WRITERS)
        })
        .await?;
        let connect = || Connection::Postgres(Box::new(Session::new(Arc::clone(&options))));
        let (readers, reading) = Readers::start(READERS, || Ok(connect()), tasks)?;
        Ok(Self {
            writer: Writer::start(connect(), reading, tasks)?,
            readers,
            first_end: Arc::new(FirstEnd::shared(LOOK)),
        })
    }

    /// Brings the tables to this version. Answers with the version that was there and the one that is.
    ///
    /// # Errors
    /// As [`PostgresStore::open`]; nothing has changed then.
    pub async fn migrate(options: Arc<Options>) -> Result<(Option<i64>, i64)> {
        let migrated = blocking(move || schema::migrate(&Session::new(options))).await?;
        let before = migrated.map(|before| before.version);
        let newest = schema::newest().version;
        Ok((before, newest.max(before.unwrap_or_default())))
    }

    /// Looks at a server and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it can't be reached, does not let us in, or takes no writes.
    pub async fn inspect(options: Arc<Options>) -> Result<Inspection> {
        let facts = Self::look(Arc::clone(&options)).await?;
        let ahead = Self::clock_ahead(Arc::clone(&options)).await?;
        blocking(move || {
            let session = Session::new(options);
            session.ready()?;
            Ok(Inspection {
                server: schema::server_version(&session)?,
                clock_ahead_micros: ahead,
                version: schema::version(&session)?.map(|version| version.version),
                newest: schema::newest().version,
                installation: facts,
            })
        })
        .await
    }

    /// Moves the embedded store in the file `path`, which nobody may have open, to a server without one.
    /// `progress` hears the table, how many of its rows are there, and how many there will be.
    ///
    /// # Errors
    /// [`StoreError`]; the server has no installation then.
    pub async fn copy(
        path: PathBuf,
        options: Arc<Options>,
        mut progress: impl FnMut(&str, u64, u64) + Send + 'static,
    ) -> Result<Vec<Copied>> {
        blocking(move || copy::copy(&path, &options, &mut progress)).await
    }

    /// Speaks to the other control planes of this store, and hears them.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn channel(options: &Arc<Options>, tasks: &Tasks) -> Result<Channel> {
        Channel::open(options, tasks)
    }

    /// How far the server's clock is ahead of this host's, in microseconds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn clock_ahead(options: Arc<Options>) -> Result<i64> {
        let measured = blocking(move || channel::clock_ahead(&mut options.connect()?)).await?;
        Ok(measured.micros)
    }

    /// What is known of the installation before anything is changed; `None` when there is none yet.
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub async fn look(options: Arc<Options>) -> Result<Option<InstallationFacts>> {
        blocking(move || {
            let session = Session::new(options);
            session.ready()?;
            match schema::version(&session)? {
                Some(_) => sql::facts(&Connection::Postgres(Box::new(session))),
                None => Ok(None),
            }
        })
        .await
    }
}

/// What a look at a server found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its version.
    pub server: String,
    /// How far its clock is ahead of this host's, in microseconds.
    pub clock_ahead_micros: i64,
    /// The version of its tables; `None` without any.
    pub version: Option<i64>,
    /// The version that this binary makes.
    pub newest: i64,
    /// The installation, if there is one.
    pub installation: Option<InstallationFacts>,
}

/// Waits for the server, but not for ever.
async fn in_time<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!(
            "no answer within {} s; what was asked for may still be done",
            PATIENCE.as_secs()
        )))
    })
}

/// Runs what blocks beside the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tasks::blocking(work).await;
    done.map_err(|error| StoreError::Unavailable(error.to_string()))?
}

impl Database for PostgresStore {
    const HAS_PIECES: bool = true;
    const HAS_ARRIVALS: bool = false;

    async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let running = self.writer.run(lane, work);
        match lane {
            // Who submits can ask again, under the same request_id, and should not wait for a server that
            // hangs.
            Lane::Checked(_) => in_time(running).await,
            Lane::Savepoint | Lane::Urgent(_) => running.await,
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        in_time(self.readers.run(work)).await
    }

    fn first_end(&self) -> &Arc<FirstEnd> {
        &self.first_end
    }
}
