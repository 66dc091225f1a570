//! The installation, its keys, and idempotent requests.

use async_trait::async_trait;
use countersign_shared::{digest::hex, time::Timestamp};
use rusqlite::{Connection, params};

use super::{
    SqliteStore, access, certificates,
    rows::{Column, execute, one},
};
use crate::{
    model::RequestKey,
    store::{DataKey, Installation, InstallationFacts, InstallationStore, Result, StoreError},
};

#[async_trait]
impl InstallationStore for SqliteStore {
    async fn installation(&self) -> Result<Option<InstallationFacts>> {
        self.read(facts).await
    }

    async fn install(&self, new: Installation) -> Result<()> {
        self.write(move |connection| {
            let insert = "INSERT INTO installation (id, kek_id, created_at)
                          SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM installation)";
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
            let query = "SELECT wrapped FROM data_keys WHERE scope = ?";
            let wrapped = one(connection, query, [&scope], |row| row.get("wrapped"))?
                .ok_or_else(|| StoreError::NotFound(format!("the data key of {scope}")))?;
            Ok(DataKey { scope, wrapped })
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

pub(super) fn facts(connection: &Connection) -> Result<Option<InstallationFacts>> {
    let query = "SELECT id, kek_id FROM installation";
    one(connection, query, [], |row| {
        Ok(InstallationFacts {
            id: row.get("id")?,
            kek_id: row.get("kek_id")?,
        })
    })
}

pub(super) fn insert_data_key(connection: &Connection, key: &DataKey) -> Result<()> {
    let insert = "INSERT INTO data_keys (scope, wrapped) VALUES (?, ?)";
    execute(connection, insert, params![key.scope, key.wrapped])?;
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
