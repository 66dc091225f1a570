//! Signing secrets: several may be in use while a receiver changes over.

use countersign_shared::{
    name::{DestinationName, Id},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    connection::Connection,
    rows::{Column, all, destination_keys, execute, get, get_optional, one},
};
use crate::{
    model::{Sealed, SigningSecret},
    store::{MAX_SECRETS, Result, StoreError},
};

/// The secrets of a destination, newest first.
pub(super) fn all_of(connection: &Connection, destination: i64) -> Result<Vec<SigningSecret>> {
    let query = "SELECT * FROM signing_secrets WHERE destination = ? ORDER BY version DESC";
    all(connection, query, [destination], |row| {
        Ok(SigningSecret {
            version: row.get("version")?,
            sealed: Sealed(row.get("sealed")?),
            public_key: row.get("public_key")?,
            created_at: get(row, "created_at")?,
            expires_at: get_optional(row, "expires_at")?,
        })
    })
}

pub(super) fn insert(connection: &Connection, destination: i64, new: &SigningSecret) -> Result<()> {
    let insert =
        "INSERT INTO signing_secrets (destination, version, sealed, public_key, created_at, expires_at)
                  VALUES (?, ?, ?, ?, ?, ?)";
    let made = params![
        destination,
        new.version,
        new.sealed.0,
        new.public_key,
        Column(new.created_at),
        new.expires_at.map(Column)
    ];
    execute(connection, insert, made)?;
    Ok(())
}

pub(super) fn add(
    connection: &Connection,
    name: &DestinationName,
    new: &SigningSecret,
    older_expire_at: Timestamp,
) -> Result<()> {
    let (key, _) = destination_keys(connection, name)?;
    let present = all_of(connection, key)?;
    if present.len() >= MAX_SECRETS {
        return Err(StoreError::Precondition(format!(
            "{name} has {MAX_SECRETS} signing secrets in use: wait until the grace period of one is \
             over"
        )));
    }
    if present.first().map_or(0, |newest| newest.version) + 1 != new.version {
        return Err(StoreError::Changed(name.to_string()));
    }
    // A grace period never grows: what was to end sooner does.
    let update = "UPDATE signing_secrets SET expires_at = min(coalesce(expires_at, ?1), ?1)
                  WHERE destination = ?2";
    execute(connection, update, params![Column(older_expire_at), key])?;
    insert(connection, key, new)?;
    grow_generation(connection, key)
}

pub(super) fn any_expired(connection: &Connection, now: Timestamp) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM signing_secrets WHERE expires_at <= ?)";
    let found = one(connection, query, [Column(now)], |row| row.get(0))?;
    Ok(found.unwrap_or(false))
}

pub(super) fn remove_expired(
    connection: &Connection,
    now: Timestamp,
) -> Result<Vec<DestinationName>> {
    let query = "SELECT DISTINCT d.key, d.id, a.id AS account_id FROM signing_secrets s
                 JOIN destinations d ON d.key = s.destination JOIN accounts a ON a.key = d.account
                 WHERE s.expires_at <= ?";
    let found = all(connection, query, [Column(now)], |row| {
        let account: Id = get(row, "account_id")?;
        let name = DestinationName::new(&account, &get(row, "id")?);
        Ok((row.get::<_, i64>("key")?, name))
    })?;
    execute(
        connection,
        "DELETE FROM signing_secrets WHERE expires_at <= ?",
        [Column(now)],
    )?;
    for (key, _) in &found {
        grow_generation(connection, *key)?;
    }
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

fn grow_generation(connection: &Connection, key: i64) -> Result<()> {
    let update = "UPDATE destinations SET generation = generation + 1 WHERE key = ?";
    execute(connection, update, [key])?;
    Ok(())
}
