//! The installation, its keys, and idempotent requests.

use async_trait::async_trait;
use countersign_shared::{digest::hex, time::Timestamp};
use rusqlite::params;

use super::{
    Database, access, certificates,
    connection::{Connection, Row},
    rows::{Column, all, execute, limit, one, page},
};
use crate::{
    model::{Page, RequestKey},
    store::{DataKey, Installation, InstallationFacts, InstallationStore, Result, StoreError},
};

#[async_trait]
impl<D: Database> InstallationStore for D {
    async fn installation(&self) -> Result<Option<InstallationFacts>> {
        self.read(facts).await
    }

    async fn install(&self, new: Installation) -> Result<()> {
        self.write(move |connection| {
            let insert = "INSERT INTO installation (id, kek_id, created_at)
                          SELECT ?, ?, CAST(? AS BIGINT) WHERE NOT EXISTS (SELECT 1 FROM installation)";
            let made = params![new.id, new.kek_id, Column(new.created_at)];
            if execute(connection, insert, made)? == 0 {
                return Err(StoreError::AlreadyExists("the installation".to_owned()));
            }
            insert_data_key(connection, &new.data_key)?;
            for authority in &new.authorities {
                certificates::insert_authority(connection, authority)?;
            }
            access::insert(connection, &new.api_key)?;
            Ok(())
        })
        .await
    }

    async fn data_key(&self, scope: &str) -> Result<DataKey> {
        let scope = scope.to_owned();
        self.read(move |connection| {
            let query = "SELECT * FROM data_keys WHERE scope = ?";
            one(connection, query, [&scope], data_key)?
                .ok_or_else(|| StoreError::NotFound(format!("the data key of {scope}")))
        })
        .await
    }

    async fn data_keys(&self, after: &str, size: usize) -> Result<Page<DataKey>> {
        let after = after.to_owned();
        self.read(move |connection| {
            let query = "SELECT * FROM data_keys WHERE scope > ? ORDER BY scope LIMIT ?";
            page(
                connection,
                query,
                params![after, limit(size)],
                size,
                data_key,
            )
        })
        .await
    }

    async fn data_key_counts(&self) -> Result<Vec<(String, u64)>> {
        self.read(move |connection| {
            let query =
                "SELECT kek_id, count(*) AS count FROM data_keys GROUP BY kek_id ORDER BY kek_id";
            all(connection, query, params![], |row| {
                let count: i64 = row.get("count")?;
                Ok((row.get("kek_id")?, count.unsigned_abs()))
            })
        })
        .await
    }

    async fn data_keys_of_other_keks(&self, kek_id: &str, size: usize) -> Result<Page<DataKey>> {
        let kek_id = kek_id.to_owned();
        self.read(move |connection| {
            let query = "SELECT * FROM data_keys WHERE kek_id != ? ORDER BY scope LIMIT ?";
            page(
                connection,
                query,
                params![kek_id, limit(size)],
                size,
                data_key,
            )
        })
        .await
    }

    async fn replace_data_key(&self, old: DataKey, new: DataKey) -> Result<()> {
        self.write(move |connection| {
            let update =
                "UPDATE data_keys SET wrapped = ?, kek_id = ? WHERE scope = ? AND wrapped = ?";
            let values = params![new.wrapped, new.kek_id, old.scope, old.wrapped];
            execute(connection, update, values)?;
            Ok(())
        })
        .await
    }

    async fn set_kek(&self, kek_id: &str) -> Result<()> {
        let kek_id = kek_id.to_owned();
        self.write(move |connection| {
            let query = "SELECT count(*) FROM data_keys WHERE kek_id != ?";
            let others = one(connection, query, [&kek_id], |row| row.get::<_, i64>(0))?;
            if others != Some(0) {
                let problem = "some data keys are wrapped by another KEK".to_owned();
                return Err(StoreError::Precondition(problem));
            }
            let update = "UPDATE installation SET kek_id = ?1 WHERE kek_id != ?1";
            execute(connection, update, [&kek_id])?;
            Ok(())
        })
        .await
    }

    async fn check(&self) -> Result<()> {
        let count = "SELECT count(*) FROM installation";
        self.read(move |connection| {
            one(connection, count, [], |row| row.get::<_, i64>(0))?;
            Ok(())
        })
        .await?;
        // An empty transaction: shows that the writer lives and can begin one.
        self.write(|_| Ok(())).await
    }
}

fn data_key(row: &Row<'_>) -> rusqlite::Result<DataKey> {
    Ok(DataKey {
        scope: row.get("scope")?,
        wrapped: row.get("wrapped")?,
        kek_id: row.get("kek_id")?,
    })
}

pub(in crate::store) fn facts(connection: &Connection) -> Result<Option<InstallationFacts>> {
    let query = "SELECT id, kek_id FROM installation";
    one(connection, query, [], |row| {
        Ok(InstallationFacts {
            id: row.get("id")?,
            kek_id: row.get("kek_id")?,
        })
    })
}

pub(super) fn insert_data_key(connection: &Connection, key: &DataKey) -> Result<()> {
    let insert = "INSERT INTO data_keys (scope, wrapped, kek_id) VALUES (?, ?, ?)";
    execute(
        connection,
        insert,
        params![key.scope, key.wrapped, key.kek_id],
    )?;
    Ok(())
}

/// The resource that an earlier call under the same request id made; `None` for a first call.
///
/// Fails with [`StoreError::RequestIdReused`] when that call asked for something else.
pub(super) fn replayed(
    connection: &Connection,
    request: Option<&RequestKey>,
) -> Result<Option<String>> {
    let Some(request) = request else {
        return Ok(None);
    };
    let query = "SELECT content_sha256, resource FROM requests WHERE scope = ? AND request_id = ?";
    let found: Option<([u8; 32], String)> = one(
        connection,
        query,
        [&request.scope, &request.request_id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    match found {
        Some((first, _)) if first != request.content_sha256 => Err(StoreError::RequestIdReused {
            request_id: request.request_id.clone(),
            first: hex(&first),
            second: hex(&request.content_sha256),
        }),
        found => Ok(found.map(|(_, resource)| resource)),
    }
}

/// Lets a request id be used again: what it made is gone.
pub(super) fn forget(connection: &Connection, request: Option<&RequestKey>) -> Result<()> {
    if let Some(request) = request {
        let delete = "DELETE FROM requests WHERE scope = ? AND request_id = ?";
        execute(connection, delete, [&request.scope, &request.request_id])?;
    }
    Ok(())
}

/// Remembers what a call under a request id made.
pub(super) fn remember(
    connection: &Connection,
    request: Option<&RequestKey>,
    resource: &str,
    now: Timestamp,
) -> Result<()> {
    if let Some(request) = request {
        let insert =
            "INSERT INTO requests (scope, request_id, content_sha256, resource, created_at)
                      VALUES (?, ?, ?, ?, ?)";
        let made = params![
            request.scope,
            request.request_id,
            request.content_sha256,
            resource,
            Column(now)
        ];
        execute(connection, insert, made)?;
    }
    Ok(())
}
