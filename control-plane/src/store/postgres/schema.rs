//! The tables, and how they change from version to version.
//!
//! A version is reached by the steps after the one that is there, each in one transaction, under the lock
//! that writing holds: of several control planes that start at once, one makes them. Each step says the
//! oldest version whose binaries can still serve beside it, so that control planes can be replaced one by
//! one; a binary that is older than that does not start.

use crate::store::{
    Result, StoreError,
    sql::connection::{Connection, Statement},
};

/// One step.
struct Step {
    /// What it runs.
    statements: &'static str,
    /// The oldest version that can serve beside this one.
    beside: i64,
}

/// Version 1 and on.
const STEPS: &[Step] = &[Step {
    statements: include_str!("schema.sql"),
    beside: 1,
}];

/// What is in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    /// Its version.
    pub(super) version: i64,
    /// The oldest that can serve beside it.
    pub(super) beside: i64,
}

/// What this binary makes.
pub(super) fn newest() -> Version {
    Version {
        version: STEPS.len() as i64,
        beside: STEPS.last().map_or(1, |step| step.beside),
    }
}

/// What the server says that it is.
pub(super) fn server_version(connection: &Connection) -> Result<String> {
    let query = "SELECT current_setting('server_version')";
    let version: Option<String> = one(connection, query, |row| row.get(0))?;
    Ok(version.unwrap_or_default())
}

/// What is there; `None` in a database without a store.
pub(super) fn version(connection: &Connection) -> Result<Option<Version>> {
    let query = "SELECT to_regclass('countersign.schema_version') IS NOT NULL";
    let there: Option<bool> = one(connection, query, |row| row.get(0))?;
    if there != Some(true) {
        return Ok(None);
    }
    let query = "SELECT version, beside FROM countersign.schema_version";
    let read = |row: &crate::store::sql::connection::Row<'_>| {
        Ok(Version {
            version: row.get("version")?,
            beside: row.get("beside")?,
        })
    };
    one(connection, query, read)
}

fn one<T>(
    connection: &Connection,
    query: &str,
    read: impl FnOnce(&crate::store::sql::connection::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    Statement::new(connection, query)?.one([], read)
}

/// Brings the tables to this binary's version; leaves newer ones that it can serve beside as they are.
/// Answers with what was there before.
pub(super) fn migrate(connection: &Connection) -> Result<Option<Version>> {
    connection.ready()?;
    let before = version(connection)?;
    check(before)?;
    if before.is_none_or(|before| before.version < newest().version) {
        connection.begin()?;
        let migrated = migrate_alone(connection);
        match migrated {
            Ok(()) => connection.commit()?,
            Err(error) => {
                connection.roll_back();
                return Err(error);
            }
        }
    }
    Ok(before)
}

fn check(found: Option<Version>) -> Result<()> {
    match found {
        Some(found) if found.beside > newest().version => Err(StoreError::Corrupt(format!(
            "it was written by a newer version of Countersign (schema {}, which versions from schema {} on \
             serve; this one knows {}): run that version or a later one",
            found.version,
            found.beside,
            newest().version
        ))),
        _ => Ok(()),
    }
}

fn migrate_alone(connection: &Connection) -> Result<()> {
    // Somebody else may have been faster.
    let found = version(connection)?;
    check(found)?;
    if found.is_none() {
        connection.batch(
            "CREATE SCHEMA IF NOT EXISTS countersign;
             CREATE TABLE countersign.schema_version (
                 version BIGINT NOT NULL, beside BIGINT NOT NULL);
             INSERT INTO countersign.schema_version VALUES (0, 0)",
        )?;
    }
    let reached = found.map_or(0, |found| found.version);
    for (version, step) in (1..).zip(STEPS).filter(|(version, _)| *version > reached) {
        tracing::info!(version, "the store's tables are brought to this version");
        connection.batch(step.statements)?;
        connection.batch(&format!(
            "UPDATE countersign.schema_version SET version = {version}, beside = {}",
            step.beside
        ))?;
    }
    Ok(())
}
