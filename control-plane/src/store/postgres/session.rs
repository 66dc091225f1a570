//! One connection to the server: prepared statements, values both ways, transactions, and what becomes of
//! a commit whose answer got lost.
//!
//! Every transaction that writes holds one advisory lock until it ends, so that whatever several control
//! planes do, their changes happen one after the other, as they do in the embedded store: what a change
//! read is still so when it commits, and the audit log is one chain. Batches make that cheap.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    error::Error as _,
    fmt,
    sync::Arc,
};

use bytes::{BufMut as _, BytesMut};
use postgres::{
    Client,
    error::SqlState,
    types::{FromSql as FromPostgres, IsNull, ToSql as ToPostgres, Type, to_sql_checked},
};
use rusqlite::{
    ToSql,
    types::{FromSql, ToSqlOutput, ValueRef},
};

use countersign_shared::random;

use super::{
    dollars::with_dollars,
    heads::Heads,
    known::Known,
    options::Options,
    unknown::{self, Turn},
};
use crate::store::{Result, StoreError};

pub(in crate::store) use postgres::Row;

/// What a column is found by.
pub(in crate::store) trait Index: postgres::row::RowIndex + fmt::Display {}

impl Index for usize {}
impl Index for &str {}

/// "Csgn" and a number: what writing holds. A lock of the database, so that several stores on one server
/// do not know of each other.
pub(super) const WRITING: i64 = 0x4373_676e_0000_0001;

/// A statement that the server knows.
#[derive(Clone)]
pub(in crate::store) struct Prepared {
    statement: postgres::Statement,
    /// It changes the rows that it answers with.
    returns_changed: bool,
}

/// A connection that is made when it is needed, and again after it broke.
pub(in crate::store) struct Session {
    options: Arc<Options>,
    client: RefCell<Option<Client>>,
    statements: RefCell<HashMap<String, Prepared>>,
    known: Known,
    heads: Heads,
    changes: Cell<u64>,
    /// The transaction that is under way has failed: the server takes nothing more in it.
    failed: Cell<bool>,
    /// Its newest transaction that leaves a mark.
    turn: Cell<Turn>,
    /// The transaction that is under way is that one.
    marked: Cell<bool>,
}

impl Session {
    pub(super) fn new(options: Arc<Options>) -> Self {
        Self {
            options,
            client: RefCell::default(),
            statements: RefCell::default(),
            known: Known::default(),
            heads: Heads::default(),
            changes: Cell::default(),
            failed: Cell::default(),
            turn: Cell::new(Turn {
                writer: random::bytes(),
                turn: 0,
            }),
            marked: Cell::default(),
        }
    }

    pub(in crate::store) fn total_changes(&self) -> u64 {
        self.changes.get()
    }

    /// Its newest transaction that leaves a mark.
    #[cfg(test)]
    pub(super) fn turn(&self) -> Turn {
        self.turn.get()
    }

    /// Connects, unless it is connected.
    pub(in crate::store) fn ready(&self) -> Result<()> {
        let mut client = self.client.borrow_mut();
        if client.as_ref().is_none_or(Client::is_closed) {
            self.statements.borrow_mut().clear();
            self.known.forget();
            self.heads.forget();
            *client = None;
            *client = Some(self.options.connect()?);
        }
        Ok(())
    }

    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    pub(super) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Runs `work` on the connection. An error spoils the transaction that is under way.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut Client) -> std::result::Result<T, postgres::Error>,
    ) -> Result<T> {
        let mut client = self.client.borrow_mut();
        let Some(client) = client.as_mut() else {
            return Err(StoreError::Unavailable("it is not connected".to_owned()));
        };
        work(client).map_err(|error| {
            self.failed.set(true);
            if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) {
                // A newer version beside this one has changed a table: what is prepared for the old one is
                // worth nothing ("cached plan must not change result type").
                self.statements.borrow_mut().clear();
            }
            store_error(&error)
        })
    }

    /// Runs statements without values.
    pub(in crate::store) fn batch(&self, statements: &str) -> Result<()> {
        self.with(|client| client.batch_execute(statements))
    }

    pub(in crate::store) fn prepare(&self, statement: &str) -> Result<Prepared> {
        if let Some(prepared) = self.statements.borrow().get(statement) {
            return Ok(prepared.clone());
        }
        let prepared = Prepared {
            statement: self.with(|client| client.prepare(&with_dollars(statement)))?,
            returns_changed: statement.contains(" RETURNING "),
        };
        let mut statements = self.statements.borrow_mut();
        statements.insert(statement.to_owned(), prepared.clone());
        Ok(prepared)
    }

    pub(in crate::store) fn query(
        &self,
        prepared: &Prepared,
        values: &[&dyn ToSql],
    ) -> Result<Vec<Row>> {
        let values = parameters(values)?;
        let query = |client: &mut Client| client.query(&prepared.statement, &references(&values));
        let rows = self.with(query)?;
        if prepared.returns_changed {
            self.changes.set(self.changes.get() + rows.len() as u64);
        }
        Ok(rows)
    }

    pub(in crate::store) fn execute(
        &self,
        prepared: &Prepared,
        values: &[&dyn ToSql],
    ) -> Result<usize> {
        let values = parameters(values)?;
        let run = |client: &mut Client| client.execute(&prepared.statement, &references(&values));
        let rows = self.with(run)?;
        self.changes.set(self.changes.get() + rows);
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }

    /// As [`Session::query`], with values of the server's own types.
    pub(super) fn query_with(
        &self,
        prepared: &Prepared,
        values: &[&(dyn ToPostgres + Sync)],
    ) -> Result<Vec<Row>> {
        self.with(|client| client.query(&prepared.statement, values))
    }

    /// As [`Session::execute`], with values of the server's own types.
    pub(super) fn execute_with(
        &self,
        prepared: &Prepared,
        values: &[&(dyn ToPostgres + Sync)],
    ) -> Result<()> {
        let rows = self.with(|client| client.execute(&prepared.statement, values))?;
        self.changes.set(self.changes.get() + rows);
        Ok(())
    }

    /// Begins a transaction that writes, when no other does, and leaves its mark, so that it can be asked
    /// for.
    pub(in crate::store) fn begin(&self) -> Result<()> {
        let last = self.turn.get();
        let turn = Turn {
            turn: last.turn + 1,
            ..last
        };
        self.begin_with(&turn.mark())?;
        self.turn.set(turn);
        self.marked.set(true);
        Ok(())
    }

    /// As [`Session::begin`], before there is a table for the mark.
    pub(super) fn begin_unmarked(&self) -> Result<()> {
        self.begin_with("")
    }

    fn begin_with(&self, statement: &str) -> Result<()> {
        self.ready()?;
        self.failed.set(false);
        self.marked.set(false);
        let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({WRITING}); {statement}");
        self.batch(&begin).inspect_err(|_| self.roll_back())
    }

    /// What failed was taken back to a savepoint: the transaction goes on.
    pub(in crate::store) fn mended(&self) {
        self.failed.set(false);
    }

    /// Commits. An answer that got lost is asked for.
    pub(in crate::store) fn commit(&self) -> Result<()> {
        // The server would take such a transaction back, and call that a success.
        if self.failed.get() {
            return Err(StoreError::Unavailable(
                "a statement failed, so its transaction was taken back".to_owned(),
            ));
        }
        let committed = {
            let mut client = self.client.borrow_mut();
            let Some(client) = client.as_mut() else {
                return Err(StoreError::Unavailable("it is not connected".to_owned()));
            };
            client.batch_execute("COMMIT")
        };
        match committed {
            Err(error) if self.marked.get() && is_unknown(&error) => {
                unknown::resolve(&self.options, self.turn.get(), &store_error(&error))
            }
            committed => committed.map_err(|error| store_error(&error)),
        }
    }

    /// Takes back what is not committed.
    pub(in crate::store) fn roll_back(&self) {
        self.heads.forget();
        // What is connected no more has been taken back by the server.
        let _ = self.batch("ROLLBACK");
    }

    /// Runs reads that must all see the same state.
    pub(in crate::store) fn snapshot<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        self.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        let result = read();
        // Nothing was written: how it ends does not matter, as long as it does.
        self.batch("ROLLBACK")?;
        result
    }
}

/// Whether a commit may have happened although it was answered with this.
fn is_unknown(error: &postgres::Error) -> bool {
    match error.as_db_error() {
        // The server ends the connection (class 57): before or after.
        Some(error) => error.severity() != "ERROR",
        None => true,
    }
}

/// What the server says, in ours: what can pass is unavailable, what can't is corrupt.
pub(super) fn store_error(error: &postgres::Error) -> StoreError {
    let Some(said) = error.as_db_error() else {
        // The cause says what happened, the error itself only where.
        let cause = error.source().map(ToString::to_string);
        return StoreError::Unavailable(cause.unwrap_or_else(|| error.to_string()));
    };
    let text = format!("{} (SQLSTATE {})", said.message(), said.code().code());
    match said.code() {
        // The same mistake will be made again: a constraint, a type, a name that is not there.
        code if ["22", "23", "42"]
            .iter()
            .any(|class| code.code().starts_with(class))
            && *code != SqlState::INSUFFICIENT_PRIVILEGE =>
        {
            StoreError::Corrupt(text)
        }
        _ => StoreError::Unavailable(text),
    }
}

/// A value on its way to the server.
pub(super) struct Parameter<'a>(ToSqlOutput<'a>);

impl fmt::Debug for Parameter<'_> {
    /// Values may be secrets, if sealed ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parameter")
    }
}

impl<'a> From<ValueRef<'a>> for Parameter<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        Self(ToSqlOutput::Borrowed(value))
    }
}

fn parameters<'a>(values: &'a [&dyn ToSql]) -> Result<Vec<Parameter<'a>>> {
    let values = values.iter().map(|value| Ok(Parameter(value.to_sql()?)));
    values.collect()
}

fn references<'a>(values: &'a [Parameter<'_>]) -> Vec<&'a (dyn ToPostgres + Sync)> {
    let values = values.iter().map(|value| value as &(dyn ToPostgres + Sync));
    values.collect()
}

type Converted<T> = std::result::Result<T, Box<dyn std::error::Error + Sync + Send>>;

impl ToPostgres for Parameter<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        let value = match &self.0 {
            ToSqlOutput::Borrowed(value) => *value,
            ToSqlOutput::Owned(value) => value.into(),
            _ => return Err("a value that only the embedded store knows".into()),
        };
        match (value, kind) {
            (ValueRef::Null, _) => return Ok(IsNull::Yes),
            (ValueRef::Integer(number), &Type::INT8) => out.put_i64(number),
            (ValueRef::Integer(number), &Type::INT4) => out.put_i32(number.try_into()?),
            (ValueRef::Integer(number), &Type::BOOL) => out.put_u8((number != 0).into()),
            (ValueRef::Text(text), &Type::TEXT | &Type::VARCHAR) => out.put_slice(text),
            (ValueRef::Blob(bytes), &Type::BYTEA) => out.put_slice(bytes),
            (value, kind) => {
                return Err(format!("{:?} for a column of {kind}", value.data_type()).into());
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value that came from the server.
struct Value<'a>(ValueRef<'a>);

impl<'a> FromPostgres<'a> for Value<'a> {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Converted<Self> {
        Ok(Self(match *kind {
            Type::INT8 => ValueRef::Integer(i64::from_be_bytes(raw.try_into()?)),
            Type::INT4 => ValueRef::Integer(i32::from_be_bytes(raw.try_into()?).into()),
            Type::BOOL => ValueRef::Integer((raw != [0]).into()),
            Type::TEXT | Type::VARCHAR => ValueRef::Text(raw),
            Type::BYTEA => ValueRef::Blob(raw),
            _ => return Err(format!("a column of {kind}").into()),
        }))
    }

    fn from_sql_null(_: &Type) -> Converted<Self> {
        Ok(Self(ValueRef::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A column's value.
pub(super) fn value(row: &Row, index: usize) -> std::result::Result<ValueRef<'_>, postgres::Error> {
    Ok(row.try_get::<_, Value<'_>>(index)?.0)
}

/// Reads a column of a type that the server has too.
pub(super) fn column<'a, T: FromPostgres<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|error| store_error(&error))
}

/// Reads a column.
pub(in crate::store) fn get<I: Index, T: FromSql>(row: &Row, index: I) -> rusqlite::Result<T> {
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Null, error)
    };
    let cell: Value<'_> = row
        .try_get(index)
        .map_err(|error| unreadable(Box::new(error)))?;
    T::column_result(cell.0).map_err(|error| unreadable(Box::new(error)))
}
