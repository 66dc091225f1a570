//! The audit log.

use async_trait::async_trait;
use countersign_shared::digest::hex;
use rusqlite::params;

use super::{
    Database,
    connection::{Connection, Dialect, Row},
    fingerprint::{self, Fingerprints},
    rows::{Column, execute, get, limit, one, page},
};
use crate::{
    audit::{self, Call, Chain},
    model::{
        AuditCheckpoint, AuditEntry, AuditFilter, AuditKind, AuditRecord, Page, ResourceChange,
    },
    store::{AuditStore, Result, StoreError},
};

#[async_trait]
impl<D: Database> AuditStore for D {
    async fn record(&self, records: Vec<AuditRecord>) -> Result<()> {
        let append = self.write(move |connection| append(connection, records));
        audit::off_record(append).await
    }

    async fn audit_entries(
        &self,
        filter: AuditFilter,
        after: u64,
        size: usize,
    ) -> Result<Page<AuditEntry>> {
        self.read(move |connection| entries(connection, &filter, after, size))
            .await
    }

    async fn last_audit_entry(&self) -> Result<Option<AuditEntry>> {
        self.read(last).await
    }

    async fn add_audit_checkpoint(&self, checkpoint: AuditCheckpoint) -> Result<()> {
        self.write(move |connection| {
            let insert = "INSERT INTO audit_checkpoints VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
            let AuditCheckpoint {
                sequence,
                hash,
                signed_at,
                signature,
            } = checkpoint;
            let sequence = to_row(sequence);
            let values = params![sequence, hash, Column(signed_at), signature];
            execute(connection, insert, values)?;
            Ok(())
        })
        .await
    }

    async fn audit_checkpoints(&self, after: u64, size: usize) -> Result<Page<AuditCheckpoint>> {
        self.read(move |connection| {
            let query =
                "SELECT * FROM audit_checkpoints WHERE sequence > ? ORDER BY sequence LIMIT ?";
            let values = params![to_row(after), limit(size)];
            page(connection, query, values, size, checkpoint)
        })
        .await
    }
}

/// Runs `work`, and puts on record what it has changed.
pub(super) fn on_record<T>(
    connection: &Connection,
    call: &Call,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    let resources = call.resources();
    let states = fingerprint::of(connection, &resources)?;
    let before = connection.total_changes();
    let done = work(connection)?;
    let rows = connection.total_changes() - before;
    if rows > 0 {
        let record = AuditRecord {
            changes: changes(states, fingerprint::of(connection, &resources)?),
            ..call.record(AuditKind::Change, rows)
        };
        append(connection, vec![record])?;
    }
    Ok(done)
}

/// What differs.
fn changes(before: Fingerprints, after: Fingerprints) -> Vec<ResourceChange> {
    let text = |hash: Option<[u8; 32]>| hash.map_or_else(String::new, |hash| hex(&hash));
    let both = before.into_iter().zip(after);
    let differing = both.filter(|((_, before), (_, after))| before != after);
    let told = differing.map(|((resource, before), (_, after))| ResourceChange {
        resource,
        before_sha256: text(before),
        after_sha256: text(after),
    });
    told.collect()
}

fn append(connection: &Connection, records: Vec<AuditRecord>) -> Result<()> {
    let mut chain = match last(connection)? {
        Some(AuditEntry { sequence, hash, .. }) => Chain { sequence, hash },
        None => Chain::default(),
    };
    for record in records {
        let entry = chain.append(record);
        let entry = entry.ok_or_else(|| StoreError::Corrupt("a record without JSON".to_owned()))?;
        let insert = "INSERT INTO audit_log VALUES (?, ?, ?)";
        let values = params![to_row(entry.sequence), entry.line, entry.hash];
        execute(connection, insert, values)?;
    }
    Ok(())
}

fn last(connection: &Connection) -> Result<Option<AuditEntry>> {
    let query = "SELECT * FROM audit_log ORDER BY sequence DESC LIMIT 1";
    one(connection, query, [], entry)
}

fn entries(
    connection: &Connection,
    filter: &AuditFilter,
    after: u64,
    size: usize,
) -> Result<Page<AuditEntry>> {
    // What is asked for is read from the record itself: columns beside it would not be in the chain.
    let (record, resources) = match connection.dialect() {
        Dialect::Sqlite => ("line", "json_each(line, '$.resources')"),
        Dialect::Postgres => (
            "CAST(line AS JSON)",
            "json_array_elements_text(CAST(line AS JSON) -> 'resources') AS each (value)",
        ),
    };
    let query = format!(
        "SELECT * FROM audit_log WHERE sequence > ?1
         AND (?2 = '' OR {record} ->> 'principal' = ?2)
         AND (?3 = '' OR {record} ->> 'method' = ?3)
         AND (?4 = '' OR {record} ->> 'kind' = ?4)
         AND (CAST(?5 AS BIGINT) IS NULL OR CAST({record} ->> 'unix_micros' AS BIGINT) >= ?5)
         AND (CAST(?6 AS BIGINT) IS NULL OR CAST({record} ->> 'unix_micros' AS BIGINT) < ?6)
         AND (?7 = '' OR EXISTS (SELECT 1 FROM {resources}
              WHERE value = ?7 OR substr(value, 1, length(?8)) = ?8))
         ORDER BY sequence LIMIT ?9"
    );
    let values = params![
        to_row(after),
        filter.principal,
        filter.method,
        filter.kind.map_or("", AuditKind::as_str),
        filter.from.map(Column),
        filter.until.map(Column),
        filter.resource,
        format!("{}/", filter.resource),
        limit(size),
    ];
    page(connection, &query, values, size, entry)
}

/// SQLite's numbers have a sign.
fn to_row(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<u64> {
    // What is below zero was put there by others; verification finds it.
    Ok(u64::try_from(row.get::<_, i64>("sequence")?).unwrap_or_default())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        sequence: from_row(row)?,
        line: row.get("line")?,
        hash: row.get("hash")?,
    })
}

fn checkpoint(row: &Row<'_>) -> rusqlite::Result<AuditCheckpoint> {
    Ok(AuditCheckpoint {
        sequence: from_row(row)?,
        hash: row.get("hash")?,
        signed_at: get(row, "signed_at")?,
        signature: row.get("signature")?,
    })
}
