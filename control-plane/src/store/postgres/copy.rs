//! Moves an embedded store to a server: every table, row by row, in one transaction, and then compares
//! what is there with what was there by counts and hashes. Either all of it is there afterwards, or
//! nothing.

use std::{path::Path, sync::Arc};

use postgres::{Client, binary_copy::BinaryCopyInWriter, fallible_iterator::FallibleIterator as _};
use rusqlite::types::{Value, ValueRef};
use sha2::{Digest as _, Sha256};

use super::{
    options::Options,
    schema,
    session::{self, Parameter, Session},
};
use crate::store::{Result, StoreError, sqlite};

/// How many rows go at once.
const BATCH: usize = 2000;

/// A table that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
}

/// A table as both stores have it.
struct Table {
    name: String,
    columns: Vec<String>,
    /// What its rows are sorted by, in both stores alike.
    order: String,
}

/// Copies the embedded store at `path`, which nobody may have open, to a server without one. `progress`
/// hears the table, how many of its rows are there, and how many there will be.
///
/// # Errors
/// [`StoreError`]; the server is as it was then, but for empty tables.
pub(super) fn copy(
    path: &Path,
    options: &Arc<Options>,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Vec<Copied>> {
    let source = sqlite::look_into(path)?
        .ok_or_else(|| StoreError::NotFound(format!("a store at {}", path.display())))?;
    let session = Session::new(Arc::clone(options));
    schema::migrate(&session)?;
    // Should the commit's answer get lost, a second try says whether it is there.
    session.begin_unmarked()?;
    match copy_all(&source, &session, progress) {
        Ok(copied) => session.commit().map(|()| copied),
        Err(error) => {
            session.roll_back();
            Err(error)
        }
    }
}

fn copy_all(
    source: &rusqlite::Connection,
    session: &Session,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Vec<Copied>> {
    // A large table is read in one statement.
    session.batch("SET LOCAL statement_timeout = 0")?;
    let there: i64 = session.with(|client| {
        let row = client.query_one("SELECT count(*) FROM installation", &[])?;
        row.try_get(0)
    })?;
    if there > 0 {
        return Err(StoreError::Precondition(
            "the server has an installation already: use an empty database".to_owned(),
        ));
    }
    let mut copied = Vec::new();
    for table in tables(source)? {
        let rows = copy_table(source, session, &table, progress)?;
        if hash_of_source(source, &table)? != hash_of_target(session, &table)? {
            return Err(StoreError::Corrupt(format!(
                "the copy of {} is not the same; nothing was kept of it",
                table.name
            )));
        }
        go_on_numbering(session, &table)?;
        copied.push(Copied {
            table: table.name,
            rows,
        });
    }
    put_in_due(session)?;
    Ok(copied)
}

/// What the embedded store lists in `arrivals` is due, and neither in `due` nor leased.
fn put_in_due(session: &Session) -> Result<()> {
    let insert = "INSERT INTO due (destination, due_at, id)
                  SELECT v.destination, v.due_at, v.id FROM deliveries v
                  WHERE v.state = 1 AND v.due_at IS NOT NULL
                  AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.id = v.id)
                  AND NOT EXISTS (SELECT 1 FROM due d WHERE d.destination = v.destination
                                  AND d.due_at = v.due_at AND d.id = v.id)";
    session.batch(insert)
}

/// In the order in which the schema makes them: none refers to a later one.
fn tables(source: &rusqlite::Connection) -> Result<Vec<Table>> {
    let query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
                 AND name <> 'arrivals'
                 ORDER BY rowid";
    let mut statement = source.prepare(query)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let names: Vec<String> = names.collect::<rusqlite::Result<_>>()?;
    let tables = names.into_iter().map(|name| {
        let query = "SELECT name, pk FROM pragma_table_info(?) ORDER BY cid";
        let mut statement = source.prepare(query)?;
        let columns = statement.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let columns: Vec<(String, i64)> = columns.collect::<rusqlite::Result<_>>()?;
        let mut key: Vec<_> = columns.iter().filter(|(_, place)| *place > 0).collect();
        key.sort_by_key(|(_, place)| *place);
        let key: Vec<&str> = key.into_iter().map(|(column, _)| &**column).collect();
        let columns: Vec<String> = columns.iter().map(|(column, _)| column.clone()).collect();
        Ok(Table {
            order: match key.is_empty() {
                true => columns.join(", "),
                false => key.join(", "),
            },
            columns,
            name,
        })
    });
    tables.collect()
}

fn copy_table(
    source: &rusqlite::Connection,
    session: &Session,
    table: &Table,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<u64> {
    let count = format!("SELECT count(*) FROM {}", table.name);
    let all: i64 = source.query_row(&count, [], |row| row.get(0))?;
    let (all, mut done) = (all.unsigned_abs(), 0);
    progress(&table.name, done, all);
    let mut statement = source.prepare(&select(table))?;
    let mut rows = statement.query([])?;
    let mut batch: Vec<Vec<Value>> = Vec::with_capacity(BATCH);
    loop {
        let next = rows.next()?;
        let more = next.is_some();
        if let Some(row) = next {
            let values = (0..table.columns.len()).map(|index| row.get(index));
            batch.push(values.collect::<rusqlite::Result<_>>()?);
        }
        if batch.len() == BATCH || !more && !batch.is_empty() {
            session.with(|client| put(client, table, &batch))?;
            done += batch.len() as u64;
            batch.clear();
            progress(&table.name, done, all);
        }
        if !more {
            return Ok(done);
        }
    }
}

fn select(table: &Table) -> String {
    let columns = table.columns.join(", ");
    format!(
        "SELECT {columns} FROM {} ORDER BY {}",
        table.name, table.order
    )
}

fn put(
    client: &mut Client,
    table: &Table,
    rows: &[Vec<Value>],
) -> std::result::Result<(), postgres::Error> {
    let columns = table.columns.join(", ");
    let empty = format!("SELECT {columns} FROM {} LIMIT 0", table.name);
    let types = client.prepare(&empty)?;
    let types: Vec<_> = types
        .columns()
        .iter()
        .map(|it| it.type_().clone())
        .collect();
    let copy = format!("COPY {} ({columns}) FROM STDIN BINARY", table.name);
    let mut writer = BinaryCopyInWriter::new(client.copy_in(&copy)?, &types);
    for row in rows {
        let values = row
            .iter()
            .map(|value| Parameter::from(ValueRef::from(value)));
        writer.write_raw(values.collect::<Vec<_>>())?;
    }
    writer.finish()?;
    Ok(())
}

fn hash_of_source(source: &rusqlite::Connection, table: &Table) -> Result<[u8; 32]> {
    let mut statement = source.prepare(&select(table))?;
    let mut rows = statement.query([])?;
    let mut hash = Sha256::new();
    while let Some(row) = rows.next()? {
        for index in 0..table.columns.len() {
            add(&mut hash, row.get_ref(index)?);
        }
    }
    Ok(hash.finalize().into())
}

fn hash_of_target(session: &Session, table: &Table) -> Result<[u8; 32]> {
    session.with(|client| {
        let mut rows = client.query_raw(&select(table), Vec::<i64>::new())?;
        let mut hash = Sha256::new();
        while let Some(row) = rows.next()? {
            for index in 0..row.len() {
                add(&mut hash, session::value(&row, index)?);
            }
        }
        Ok(hash.finalize().into())
    })
}

/// What it is, how long it is, and its bytes: no two rows look the same that are not.
fn add(hash: &mut Sha256, value: ValueRef<'_>) {
    let (kind, bytes): (u8, &[u8]) = match &value {
        ValueRef::Null => (0, &[]),
        ValueRef::Integer(number) => (1, &number.to_be_bytes()),
        ValueRef::Text(text) => (2, text),
        ValueRef::Blob(bytes) => (3, bytes),
        // No column of ours has any.
        ValueRef::Real(number) => (4, &number.to_be_bytes()),
    };
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// Numbers that the store gives go on after the highest there is.
fn go_on_numbering(session: &Session, table: &Table) -> Result<()> {
    let name = &table.name;
    for column in ["key", "sequence"] {
        if table.columns.iter().any(|it| it == column) {
            session.batch(&format!(
                "SELECT setval(s, greatest((SELECT max({column}) FROM {name}), 1),
                               EXISTS (SELECT 1 FROM {name}))
                 FROM pg_get_serial_sequence('{name}', '{column}') s WHERE s IS NOT NULL"
            ))?;
        }
    }
    Ok(())
}
