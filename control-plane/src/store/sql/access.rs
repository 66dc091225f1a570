//! API keys.

use async_trait::async_trait;
use countersign_shared::{name::ApiKeyName, time::Timestamp};
use rusqlite::{params, types::Type};

use super::{
    Database,
    connection::{Connection, Row},
    rows::{Column, all, execute, get, get_optional, limit, one, page},
};
use crate::{
    audit,
    model::{ApiKey, Page, Role, Scope},
    store::{AccessStore, Result, StoreError},
};

#[async_trait]
impl<D: Database> AccessStore for D {
    async fn create_api_key(&self, key: ApiKey, most: usize, now: Timestamp) -> Result<()> {
        audit::about(&ApiKeyName::from(key.id.clone()));
        self.write(move |connection| {
            let query = "SELECT 1 FROM api_keys WHERE id = ?";
            if one(connection, query, [key.id.as_str()], |_| Ok(()))?.is_some() {
                let name = ApiKeyName::from(key.id);
                return Err(StoreError::AlreadyExists(name.to_string()));
            }
            let query = format!("SELECT count(*) FROM api_keys WHERE {VALID}");
            let valid = one(connection, &query, [Column(now)], |row| {
                row.get::<_, i64>(0)
            })?;
            if valid.unwrap_or_default() >= limit(most) - 1 {
                let problem = format!("{most} API keys are valid already: revoke some first");
                return Err(StoreError::Precondition(problem));
            }
            insert(connection, &key)
        })
        .await
    }

    async fn api_key(&self, name: &ApiKeyName) -> Result<ApiKey> {
        let name = name.clone();
        self.read(move |connection| read(connection, &name)).await
    }

    async fn api_keys(&self, after: &str, size: usize) -> Result<Page<ApiKey>> {
        let after = after.to_owned();
        self.read(move |connection| {
            let query = "SELECT * FROM api_keys WHERE id > ? ORDER BY id LIMIT ?";
            page(
                connection,
                query,
                params![after, limit(size)],
                size,
                api_key,
            )
        })
        .await
    }

    async fn valid_api_keys(&self, now: Timestamp) -> Result<Vec<ApiKey>> {
        self.read(move |connection| {
            let query = format!("SELECT * FROM api_keys WHERE {VALID}");
            all(connection, &query, [Column(now)], api_key)
        })
        .await
    }

    async fn revoke_api_key(&self, name: &ApiKeyName, now: Timestamp) -> Result<ApiKey> {
        let name = name.clone();
        self.write(move |connection| {
            let update = "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL";
            let revoked = params![Column(now), name.id().as_str()];
            execute(connection, update, revoked)?;
            read(connection, &name)
        })
        .await
    }

    async fn note_api_key_use(&self, used: Vec<(ApiKeyName, Timestamp)>) -> Result<()> {
        self.write(move |connection| {
            for (name, at) in &used {
                let update = "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, 0), ?)
                              WHERE id = ?";
                execute(connection, update, params![Column(*at), name.id().as_str()])?;
            }
            Ok(())
        })
        .await
    }
}

/// At the one time that it takes.
const VALID: &str = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)";

pub(super) fn insert(connection: &Connection, key: &ApiKey) -> Result<()> {
    let insert = "INSERT INTO api_keys (id, secret_sha256, display_name, roles, accounts,
                  calls_per_second, created_at, expires_at, last_used_at, revoked_at)
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let roles: Vec<&str> = key.roles.iter().map(|role| role.as_str()).collect();
    let accounts = match &key.scope {
        Scope::All => None,
        Scope::Accounts(accounts) => {
            let names: Vec<String> = accounts.iter().map(ToString::to_string).collect();
            Some(names.join(" "))
        }
    };
    let made = params![
        key.id.as_str(),
        key.secret_sha256,
        key.display_name,
        roles.join(" "),
        accounts,
        key.calls_per_second,
        Column(key.created_at),
        key.expires_at.map(Column),
        key.last_used_at.map(Column),
        key.revoked_at.map(Column),
    ];
    execute(connection, insert, made)?;
    Ok(())
}

fn read(connection: &Connection, name: &ApiKeyName) -> Result<ApiKey> {
    let query = "SELECT * FROM api_keys WHERE id = ?";
    one(connection, query, [name.id().as_str()], api_key)?
        .ok_or_else(|| StoreError::NotFound(name.to_string()))
}

fn api_key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        id: get(row, "id")?,
        secret_sha256: row.get("secret_sha256")?,
        display_name: row.get("display_name")?,
        roles: roles(&row.get::<_, String>("roles")?)?,
        scope: scope(row.get::<_, Option<String>>("accounts")?)?,
        calls_per_second: row.get("calls_per_second")?,
        created_at: get(row, "created_at")?,
        expires_at: get_optional(row, "expires_at")?,
        last_used_at: get_optional(row, "last_used_at")?,
        revoked_at: get_optional(row, "revoked_at")?,
    })
}

/// An unknown word is an error, never left out: what is left may allow more.
fn roles(words: &str) -> rusqlite::Result<Vec<Role>> {
    let role = |word| Role::parse(word).ok_or_else(|| unreadable("a role"));
    words.split_whitespace().map(role).collect()
}

fn scope(words: Option<String>) -> rusqlite::Result<Scope> {
    let Some(words) = words else {
        return Ok(Scope::All);
    };
    let account = |word: &str| word.parse().map_err(|_| unreadable("an account"));
    let accounts = words.split_whitespace().map(account);
    Ok(Scope::Accounts(accounts.collect::<rusqlite::Result<_>>()?))
}

fn unreadable(what: &str) -> rusqlite::Error {
    let problem = format!("an API key's row holds what is not {what}");
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, problem.into())
}
