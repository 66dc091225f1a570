//! Opening the database file: its settings, and the schema of a new one.

use std::{fmt::Write as _, os::unix::ffi::OsStrExt as _, path::Path};

use countersign_shared::files;
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::store::{Result, StoreError};

/// "Csgn": marks the file as ours (SQLite's `application_id`).
const APPLICATION_ID: i64 = 0x4373_676e;
/// Grows with every change of the schema.
const SCHEMA_VERSION: i64 = 2;
const SCHEMA: &str = include_str!("schema.sql");
/// How many prepared statements a connection keeps.
const STATEMENT_CACHE: usize = 128;

/// Opens the file for writing; makes and fills it when there is none.
pub(super) fn open(path: &Path) -> Result<Connection> {
    if !path.exists() {
        // Private from the start; SQLite gives its other files the mode of this one.
        files::create_private(path, b"").map_err(|error| unavailable(path, error))?;
    }
    let connection = Connection::open(path).map_err(|error| unavailable(path, error))?;
    match has_schema(&connection, path)? {
        true => migrate(&connection)?,
        false => create(&connection)?,
    }
    settle_in(&connection)?;
    // Kept in the file; a copy that VACUUM INTO made has lost it.
    set_wal(&connection)?;
    // FULL syncs the log at every commit: an answer that was given is on disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    // Statement journals stay in memory: they are small, and a file for each costs more than they do.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // 64 MiB between checkpoints: each page is then written back once for many changes.
    connection.pragma_update(None, "wal_autocheckpoint", 8192)?;
    Ok(connection)
}

/// Opens the file for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).map_err(|error| unavailable(path, error))?;
    settle_in(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens the file for a look that leaves it and its log as they are, byte for byte; `None` when there
/// is no file, or nothing in it. Nobody else may have it open for writing.
pub(super) fn open_for_a_look(path: &Path) -> Result<Option<Connection>> {
    let size = |path: &Path| path.metadata().map(|file| file.len()).unwrap_or_default();
    if size(path) == 0 {
        return Ok(None);
    }
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // Without a log the file alone is all there is, and SQLite need not make its other files. With
    // one, as a killed process leaves it, SQLite reads both, and makes only its shared memory anew.
    let connection = match size(Path::new(&log)) {
        0 => immutable(path)?,
        _ => Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(|error| unavailable(path, error))?,
    };
    // Else the last to close writes the log into the file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(has_schema(&connection, path)?.then_some(connection))
}

fn immutable(path: &Path) -> Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        // Writing to a string never fails.
        let _ = write!(uri, "%{byte:02X}");
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).map_err(|error| unavailable(path, error))
}

/// Whether the file has been filled.
///
/// Fails when it is not ours, or of a newer version.
fn has_schema(connection: &Connection, path: &Path) -> Result<bool> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(false);
    }
    if application != APPLICATION_ID {
        return Err(StoreError::Corrupt(format!(
            "{} is not a Countersign store",
            path.display()
        )));
    }
    if version > SCHEMA_VERSION {
        return Err(StoreError::Corrupt(format!(
            "{} was written by a newer version of Countersign (schema {version}, this one knows \
             {SCHEMA_VERSION}): run that version or a later one",
            path.display()
        )));
    }
    Ok(true)
}

fn settle_in(connection: &Connection) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // Plans do not depend on bound values, so that a prepared statement is never prepared again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(())
}

/// Page size and auto-vacuum can be chosen only while the file is empty.
fn create(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    set_wal(connection)?;
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {SCHEMA_VERSION};
         {SCHEMA}
         COMMIT;"
    ))?;
    Ok(())
}

/// Brings the schema of an older version up to date. What is due has a row in `due` there, and keeps it.
fn migrate(connection: &Connection) -> Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < 2 {
        connection.execute_batch(
            "BEGIN IMMEDIATE;
             CREATE TABLE arrivals (batch INTEGER PRIMARY KEY, ids BLOB NOT NULL) STRICT;
             PRAGMA user_version = 2;
             COMMIT;",
        )?;
    }
    Ok(())
}

fn set_wal(connection: &Connection) -> Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    Ok(())
}

fn unavailable(path: &Path, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}
