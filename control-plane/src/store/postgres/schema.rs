//! The tables, and how they change from version to version.
//!
//! A version is reached by the steps after the one that is there, each in one transaction, under the lock
//! that writing holds: of several control planes that start at once, one makes them. Each step says the
//! oldest version whose binaries can still serve beside it, so that control planes can be replaced one by
//! one; a binary that is older than that does not start.

use super::session::{Row, Session, column};
use crate::store::{Result, StoreError};

/// One step.
struct Step {
    /// What it runs.
    statements: &'static str,
    /// The oldest version that can serve beside this one.
    beside: i64,
}

/// Version 1 and on.
const STEPS: &[Step] = &[
    Step {
        statements: include_str!("schema.sql"),
        beside: 1,
    },
    // Older binaries write to what they know, and that is as it was but for how it is kept.
    Step {
        statements: include_str!("partitions.sql"),
        beside: 1,
    },
];

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
pub(super) fn server_version(session: &Session) -> Result<String> {
    let query = "SELECT current_setting('server_version')";
    let version = one(session, query, |row| column(row, 0))?;
    Ok(version.unwrap_or_default())
}

/// What is there; `None` in a database without a store.
pub(super) fn version(session: &Session) -> Result<Option<Version>> {
    let query = "SELECT to_regclass('countersign.schema_version') IS NOT NULL";
    if one(session, query, |row| column(row, 0))? != Some(true) {
        return Ok(None);
    }
    let query = "SELECT version, beside FROM countersign.schema_version";
    one(session, query, |row| {
        Ok(Version {
            version: column(row, 0)?,
            beside: column(row, 1)?,
        })
    })
}

fn one<T>(
    session: &Session,
    query: &str,
    read: impl FnOnce(&Row) -> Result<T>,
) -> Result<Option<T>> {
    let rows = session.query_with(&session.prepare(query)?, &[])?;
    rows.first().map(read).transpose()
}

/// Brings the tables to this binary's version; leaves newer ones that it can serve beside as they are.
/// Answers with what was there before.
pub(super) fn migrate(session: &Session) -> Result<Option<Version>> {
    session.ready()?;
    let before = version(session)?;
    check(before)?;
    if before.is_none_or(|before| before.version < newest().version) {
        session.begin_unmarked()?;
        match migrate_alone(session) {
            Ok(()) => session.commit()?,
            Err(error) => {
                session.roll_back();
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

fn migrate_alone(session: &Session) -> Result<()> {
    // Somebody else may have been faster.
    let found = version(session)?;
    check(found)?;
    if found.is_none() {
        session.batch(
            "CREATE SCHEMA IF NOT EXISTS countersign;
             CREATE TABLE countersign.schema_version (
                 version BIGINT NOT NULL, beside BIGINT NOT NULL);
             INSERT INTO countersign.schema_version VALUES (0, 0)",
        )?;
    }
    let reached = found.map_or(0, |found| found.version);
    for (version, step) in (1..).zip(STEPS).filter(|(version, _)| *version > reached) {
        tracing::info!(version, "the store's tables are brought to this version");
        session.batch(step.statements)?;
        session.batch(&format!(
            "UPDATE countersign.schema_version SET version = {version}, beside = {}",
            step.beside
        ))?;
    }
    Ok(())
}
