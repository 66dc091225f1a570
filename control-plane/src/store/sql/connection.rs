//! A connection to whichever database the store is in, and what it answers.
//!
//! Values are those that both databases have: whole numbers, text, bytes, and nothing. Statements are
//! written in the SQL that both understand, with SQLite's placeholders (`?`, or `?1`); the few that they
//! say differently ask [`Connection::dialect`].

use rusqlite::{CachedStatement, OptionalExtension as _, ToSql, types::FromSql};

use super::arrivals::Arrivals;
use crate::store::{
    Result,
    postgres::session::{self, Session},
};

/// How a database says what the other says differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Dialect {
    Sqlite,
    Postgres,
}

/// A connection, which belongs to one thread.
pub(in crate::store) enum Connection {
    /// To the embedded database; with what has arrived, if it is the one that writes.
    Sqlite(rusqlite::Connection, Option<Box<Arrivals>>),
    /// To a server.
    Postgres(Box<Session>),
}

impl Connection {
    /// How it says what the other says differently.
    pub(in crate::store) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(..) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// How many rows were changed over it since it was opened.
    pub(in crate::store) fn total_changes(&self) -> u64 {
        match self {
            Self::Sqlite(connection, _) => connection.total_changes(),
            Self::Postgres(session) => session.total_changes(),
        }
    }

    /// Runs reads that must all see the same state.
    pub(in crate::store) fn snapshot<T>(&self, read: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        match self {
            Self::Sqlite(connection, _) => {
                // Taken back when it is dropped: nothing was written.
                let _snapshot = connection.unchecked_transaction()?;
                read(self)
            }
            Self::Postgres(session) => session.snapshot(|| read(self)),
        }
    }

    /// Makes it usable for reads if it is not.
    pub(in crate::store) fn ready(&self) -> Result<()> {
        match self {
            Self::Sqlite(..) => Ok(()),
            Self::Postgres(session) => session.ready(),
        }
    }

    /// Begins a transaction that writes, beside no other.
    pub(in crate::store) fn begin(&self) -> Result<()> {
        match self {
            Self::Sqlite(connection, _) => Ok(connection.execute_batch("BEGIN IMMEDIATE")?),
            Self::Postgres(session) => session.begin(),
        }
    }

    /// Commits. After success all of it is durable, after an error none of it is, but for what the error
    /// says.
    pub(in crate::store) fn commit(&self) -> Result<()> {
        match self {
            Self::Sqlite(connection, arrivals) => {
                connection.execute_batch("COMMIT")?;
                if let Some(arrivals) = arrivals {
                    arrivals.committed();
                }
                Ok(())
            }
            Self::Postgres(session) => session.commit(),
        }
    }

    /// Takes back what is not committed, if a transaction is open.
    pub(in crate::store) fn roll_back(&self) {
        match self {
            Self::Sqlite(connection, arrivals) => {
                if let Some(arrivals) = arrivals {
                    arrivals.taken_back(0);
                }
                if !connection.is_autocommit() {
                    let _ = connection.execute_batch("ROLLBACK");
                }
            }
            Self::Postgres(session) => session.roll_back(),
        }
    }

    /// What was done up to now, beside what the database knows.
    pub(in crate::store) fn mark(&self) -> usize {
        match self {
            Self::Sqlite(_, Some(arrivals)) => arrivals.mark(),
            Self::Sqlite(_, None) | Self::Postgres(_) => 0,
        }
    }

    /// What was done since `mark` was taken back to a savepoint: the transaction is as good as before.
    pub(in crate::store) fn mended(&self, mark: usize) {
        match self {
            Self::Sqlite(_, Some(arrivals)) => arrivals.taken_back(mark),
            Self::Sqlite(_, None) => {}
            Self::Postgres(session) => session.mended(),
        }
    }

    /// Runs statements without values.
    pub(in crate::store) fn batch(&self, statements: &str) -> Result<()> {
        match self {
            Self::Sqlite(connection, _) => Ok(connection.execute_batch(statements)?),
            Self::Postgres(session) => session.batch(statements),
        }
    }
}

/// The values that take the place of a statement's placeholders.
pub(in crate::store) trait Parameters {
    /// Calls `run` with them.
    fn with<T>(&self, run: impl FnOnce(&[&dyn ToSql]) -> T) -> T;
}

impl Parameters for &[&dyn ToSql] {
    fn with<T>(&self, run: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
        run(self)
    }
}

/// None.
impl Parameters for [&dyn ToSql; 0] {
    fn with<T>(&self, run: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
        run(&[])
    }
}

/// Defines so many values of one type.
macro_rules! arrays_of_parameters {
    ($($size:literal)*) => {$(
        impl<V: ToSql> Parameters for [V; $size] {
            fn with<T>(&self, run: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
                run(&self.each_ref().map(|value| value as &dyn ToSql))
            }
        }
    )*};
}

arrays_of_parameters! { 1 2 }

/// What a column is found by: its place, from 0, or its name.
pub(in crate::store) trait Index: rusqlite::RowIndex + session::Index {}

impl Index for usize {}
impl Index for &str {}

/// A row of an answer.
pub(in crate::store) enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a session::Row),
}

impl Row<'_> {
    /// How many columns it has.
    pub(in crate::store) fn columns(&self) -> usize {
        match self {
            Self::Sqlite(row) => row.as_ref().column_count(),
            Self::Postgres(row) => row.len(),
        }
    }

    /// Reads a column.
    pub(in crate::store) fn get<I: Index, T: FromSql>(&self, index: I) -> rusqlite::Result<T> {
        match self {
            Self::Sqlite(row) => row.get(index),
            Self::Postgres(row) => session::get(row, index),
        }
    }
}

/// A statement that is run several times in a row: taking it from the cache and putting it back costs a
/// good part of what a small one does.
pub(in crate::store) enum Statement<'a> {
    Sqlite(CachedStatement<'a>),
    Postgres(&'a Session, session::Prepared),
}

impl<'a> Statement<'a> {
    pub(in crate::store) fn new(connection: &'a Connection, statement: &str) -> Result<Self> {
        Ok(match connection {
            Connection::Sqlite(connection, _) => {
                Self::Sqlite(connection.prepare_cached(statement)?)
            }
            Connection::Postgres(session) => Self::Postgres(session, session.prepare(statement)?),
        })
    }

    /// Runs a query for one row; `None` when there is none.
    pub(in crate::store) fn one<T>(
        &mut self,
        params: impl Parameters,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        params.with(|values| match self {
            Self::Sqlite(statement) => {
                let found = statement.query_row(values, |row| read(&Row::Sqlite(row)));
                Ok(found.optional()?)
            }
            Self::Postgres(session, statement) => {
                let rows = session.query(statement, values)?;
                let first = rows.first().map(|row| read(&Row::Postgres(row)));
                Ok(first.transpose()?)
            }
        })
    }

    /// Runs a query for all rows.
    pub(in crate::store) fn all<T>(
        &mut self,
        params: impl Parameters,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        params.with(|values| match self {
            Self::Sqlite(statement) => {
                let rows = statement.query_map(values, |row| read(&Row::Sqlite(row)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            }
            Self::Postgres(session, statement) => {
                let rows = session.query(statement, values)?;
                let rows = rows.iter().map(|row| read(&Row::Postgres(row)));
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            }
        })
    }

    /// Runs a statement; answers with how many rows it changed.
    pub(in crate::store) fn execute(&mut self, params: impl Parameters) -> Result<usize> {
        params.with(|values| match self {
            Self::Sqlite(statement) => Ok(statement.execute(values)?),
            Self::Postgres(session, statement) => session.execute(statement, values),
        })
    }
}
