//! Accounts and destinations.

use std::time::Duration;

use async_trait::async_trait;
use countersign_shared::{
    name::{AccountName, DestinationName, Id},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    Database, arrivals, certificates,
    connection::{Connection, Row},
    installation, ordered, rotations,
    rows::{
        Column, account_key, all, destination_keys, execute, get, get_optional, limit, one, page,
        signed,
    },
    secrets,
};
use crate::{
    audit,
    model::{
        Account, DeliveryPolicy, Destination, DestinationConfig, DestinationKey, DestinationState,
        OrderingFailure, Page, RetryPolicy, SigningSecret,
    },
    store::{BundleSource, NewAccount, NewDestination, Result, StoreError, TenantStore},
};

#[async_trait]
impl<D: Database> TenantStore for D {
    async fn create_account(&self, new: NewAccount) -> Result<Account> {
        audit::about(&new.account.name);
        self.write(move |connection| create_account(connection, &new))
            .await
    }

    async fn account(&self, name: &AccountName) -> Result<Account> {
        let name = name.clone();
        self.read(move |connection| read_account(connection, &name))
            .await
    }

    async fn accounts(&self, after: &str, size: usize) -> Result<Page<Account>> {
        let after = after.to_owned();
        self.read(move |connection| {
            let query = "SELECT * FROM accounts WHERE id > ? ORDER BY id LIMIT ?";
            page(
                connection,
                query,
                params![after, limit(size)],
                size,
                account,
            )
        })
        .await
    }

    async fn update_account(
        &self,
        name: &AccountName,
        display_name: String,
        revision: Option<u64>,
        now: Timestamp,
    ) -> Result<Account> {
        let name = name.clone();
        self.write(move |connection| {
            check_revision(read_account(connection, &name)?.revision, revision, &name)?;
            let update = "UPDATE accounts SET display_name = ?, updated_at = ?,
                          revision = revision + 1 WHERE id = ?";
            execute(
                connection,
                update,
                params![display_name, Column(now), name.id().as_str()],
            )?;
            read_account(connection, &name)
        })
        .await
    }

    async fn delete_account(
        &self,
        name: &AccountName,
        revision: Option<u64>,
        force: bool,
        now: Timestamp,
    ) -> Result<()> {
        let name = name.clone();
        self.write(move |connection| delete_account(connection, &name, revision, force, now))
            .await
    }

    async fn create_destination(&self, new: NewDestination) -> Result<Destination> {
        audit::about(&new.name);
        self.write(move |connection| create_destination(connection, &new))
            .await
    }

    async fn destination(&self, name: &DestinationName) -> Result<Destination> {
        let name = name.clone();
        self.read(move |connection| read_destination(connection, &name))
            .await
    }

    async fn destination_by_key(&self, key: DestinationKey) -> Result<Destination> {
        self.read(move |connection| {
            one(
                connection,
                &destinations_where("d.key = ?"),
                [key.0],
                destination,
            )?
            .ok_or_else(|| StoreError::NotFound("the destination".to_owned()))
        })
        .await
    }

    async fn destinations(
        &self,
        account: &AccountName,
        after: &str,
        size: usize,
    ) -> Result<Page<Destination>> {
        let (account, after) = (account.clone(), after.to_owned());
        self.read(move |connection| {
            let key = account_key(connection, &account)?;
            let query = destinations_where("d.account = ? AND d.id > ? ORDER BY d.id LIMIT ?");
            page(
                connection,
                &query,
                params![key, after, limit(size)],
                size,
                destination,
            )
        })
        .await
    }

    async fn update_destination(
        &self,
        name: &DestinationName,
        config: DestinationConfig,
        revision: Option<u64>,
        now: Timestamp,
    ) -> Result<Destination> {
        let name = name.clone();
        self.write(move |connection| {
            let old = read_destination(connection, &name)?;
            check_revision(old.revision, revision, &name)?;
            update_config(connection, &old, &config, now)?;
            read_destination(connection, &name)
        })
        .await
    }

    async fn set_destination_state(
        &self,
        name: &DestinationName,
        state: DestinationState,
        now: Timestamp,
    ) -> Result<Destination> {
        let name = name.clone();
        self.write(move |connection| {
            let (key, _) = destination_keys(connection, &name)?;
            // One that is tried again begins its time anew.
            let update = "UPDATE destinations SET state = ?1, updated_at = ?2,
                          failing_since = CASE WHEN failing_since IS NOT NULL THEN CAST(?2 AS BIGINT) END,
                          revision = revision + 1 WHERE key = ?3 AND state <> ?1";
            execute(connection, update, params![Column(state), Column(now), key])?;
            read_destination(connection, &name)
        })
        .await
    }

    async fn set_failing(&self, key: DestinationKey, since: Option<Timestamp>) -> Result<()> {
        self.write(move |connection| {
            let update = "UPDATE destinations SET failing_since = ?1
                          WHERE key = ?2 AND (failing_since IS NULL) = (CAST(?1 AS BIGINT) IS NOT NULL)";
            execute(connection, update, params![since.map(Column), key.0])?;
            Ok(())
        })
        .await
    }

    async fn failing(
        &self,
        until: Timestamp,
        after: Option<DestinationKey>,
        size: usize,
    ) -> Result<Page<Destination>> {
        self.read(move |connection| {
            let query = destinations_where(
                "d.failing_since <= ? AND d.state = ? AND d.key > ? ORDER BY d.key LIMIT ?",
            );
            let after = after.map_or(i64::MIN, |after| after.0);
            let wanted = params![
                Column(until),
                Column(DestinationState::Enabled),
                after,
                limit(size)
            ];
            page(connection, &query, wanted, size, destination)
        })
        .await
    }

    async fn delete_destination(
        &self,
        name: &DestinationName,
        revision: Option<u64>,
        force: bool,
        now: Timestamp,
    ) -> Result<()> {
        let name = name.clone();
        self.write(move |connection| {
            let old = read_destination(connection, &name)?;
            check_revision(old.revision, revision, &name)?;
            let query = "SELECT EXISTS (SELECT 1 FROM due WHERE destination = ?1)
                         OR EXISTS (SELECT 1 FROM leases WHERE destination = ?1)
                         OR EXISTS (SELECT 1 FROM ordered WHERE destination = ?1)";
            let unsettled: Option<bool> = one(connection, query, [old.key.0], |row| row.get(0))?;
            let waits = unsettled != Some(false) || arrivals::any(connection, old.key)?;
            if waits && !force {
                return Err(StoreError::Precondition(format!(
                    "{name} has deliveries that are not settled: wait for them, or set force to \
                     drop them"
                )));
            }
            delete_destination(connection, old.key.0, now)
        })
        .await
    }

    async fn signing_secret(
        &self,
        destination: &DestinationName,
        version: Option<u32>,
    ) -> Result<SigningSecret> {
        let name = destination.clone();
        self.read(move |connection| {
            let (key, _) = destination_keys(connection, &name)?;
            secrets::all_of(connection, key)?
                .into_iter()
                .find(|secret| version.is_none_or(|version| version == secret.version))
                .ok_or_else(|| {
                    let version = version.unwrap_or_default();
                    StoreError::NotFound(format!("{name}/signingSecrets/{version}"))
                })
        })
        .await
    }

    async fn signing_secrets(&self, destination: &DestinationName) -> Result<Vec<SigningSecret>> {
        let name = destination.clone();
        self.read(move |connection| {
            let (key, _) = destination_keys(connection, &name)?;
            secrets::all_of(connection, key)
        })
        .await
    }

    async fn add_signing_secret(
        &self,
        destination: &DestinationName,
        secret: SigningSecret,
        older_expire_at: Timestamp,
    ) -> Result<()> {
        let name = destination.clone();
        self.write(move |connection| secrets::add(connection, &name, &secret, older_expire_at))
            .await
    }

    async fn remove_expired_secrets(&self, now: Timestamp) -> Result<Vec<DestinationName>> {
        // Most looks find nothing: they cost no commit.
        let any = self.read(move |connection| secrets::any_expired(connection, now));
        if !any.await? {
            return Ok(Vec::new());
        }
        self.write(move |connection| secrets::remove_expired(connection, now))
            .await
    }

    async fn bundle_source(&self, destination: &DestinationName) -> Result<BundleSource> {
        let name = destination.clone();
        self.read(move |connection| {
            // Certificate and generation belong together.
            connection.snapshot(|connection| bundle_source(connection, &name))
        })
        .await
    }
}

fn bundle_source(connection: &Connection, name: &DestinationName) -> Result<BundleSource> {
    let destination = read_destination(connection, name)?;
    let key = destination.key.0;
    let active = certificates::read_certificate(connection, key, destination.active_certificate)?;
    let missing = || StoreError::NotFound(format!("an active client certificate of {name}"));
    let (candidate, fallback) = certificates::standby(connection, key)?;
    Ok(BundleSource {
        destination,
        active: active.ok_or_else(missing)?,
        candidate,
        fallback,
        secrets: secrets::all_of(connection, key)?,
    })
}

fn check_revision(current: u64, expected: Option<u64>, name: &impl ToString) -> Result<()> {
    match expected {
        Some(expected) if expected != current => Err(StoreError::Changed(name.to_string())),
        _ => Ok(()),
    }
}

fn create_account(connection: &Connection, new: &NewAccount) -> Result<Account> {
    let account = &new.account;
    if installation::replayed(connection, new.request.as_ref())?.is_some() {
        match read_account(connection, &account.name) {
            // Deleted since: the name is free again, and so is the request id.
            Err(StoreError::NotFound(_)) => {
                installation::forget(connection, new.request.as_ref())?;
            }
            made => return made,
        }
    }
    let insert = "INSERT INTO accounts
                  (id, display_name, created_at, updated_at, revision) VALUES (?, ?, ?, ?, ?)
                  ON CONFLICT DO NOTHING";
    let made = params![
        account.name.id().as_str(),
        account.display_name,
        Column(account.created_at),
        Column(account.updated_at),
        signed(account.revision)
    ];
    if execute(connection, insert, made)? == 0 {
        return Err(StoreError::AlreadyExists(account.name.to_string()));
    }
    installation::insert_data_key(connection, &new.data_key)?;
    certificates::insert_authority(connection, &new.authority)?;
    let name = account.name.to_string();
    installation::remember(connection, new.request.as_ref(), &name, account.created_at)?;
    read_account(connection, &account.name)
}

fn read_account(connection: &Connection, name: &AccountName) -> Result<Account> {
    let query = "SELECT * FROM accounts WHERE id = ?";
    one(connection, query, [name.id().as_str()], account)?
        .ok_or_else(|| StoreError::NotFound(name.to_string()))
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        name: AccountName::from(get::<Id>(row, "id")?),
        display_name: row.get("display_name")?,
        created_at: get(row, "created_at")?,
        updated_at: get(row, "updated_at")?,
        revision: row.get::<_, i64>("revision")?.unsigned_abs(),
    })
}

fn delete_account(
    connection: &Connection,
    name: &AccountName,
    revision: Option<u64>,
    force: bool,
    now: Timestamp,
) -> Result<()> {
    check_revision(read_account(connection, name)?.revision, revision, name)?;
    let key = account_key(connection, name)?;
    let query = "SELECT key FROM destinations WHERE account = ?";
    let destinations: Vec<i64> = all(connection, query, [key], |row| row.get(0))?;
    if !destinations.is_empty() && !force {
        return Err(StoreError::Precondition(format!(
            "{name} has {} destinations: delete them first, or set force",
            destinations.len()
        )));
    }
    for destination in destinations {
        delete_destination(connection, destination, now)?;
    }
    // Without its data key nothing that was sealed for the account can be opened, backups included.
    for delete in [
        "DELETE FROM data_keys WHERE scope = ?",
        "DELETE FROM authorities WHERE owner = ?",
        "DELETE FROM crls WHERE owner = ?",
        "DELETE FROM revocations WHERE owner = ?",
    ] {
        execute(connection, delete, [name.to_string()])?;
    }
    execute(connection, "DELETE FROM accounts WHERE key = ?", [key])?;
    Ok(())
}

fn create_destination(connection: &Connection, new: &NewDestination) -> Result<Destination> {
    if let Some(name) = installation::replayed(connection, new.request.as_ref())? {
        let name = name
            .parse()
            .map_err(|_| StoreError::Corrupt(format!("request of {name}")))?;
        match read_destination(connection, &name) {
            // Deleted since: the name is free again, and so is the request id.
            Err(StoreError::NotFound(_)) => {
                installation::forget(connection, new.request.as_ref())?;
            }
            made => return made,
        }
    }
    let account = account_key(connection, &new.name.account_name())?;
    let config = &new.config;
    let insert = "INSERT INTO destinations
                  (account, id, display_name, url, trust_model, key_algorithm, region, server_ca_pem,
                   minimum_tls, mtls_enforcement, attempt_timeout, concurrency_limit, allowed_ranges,
                   signatures, retry_waits, retry_deadline, rate_limit, max_offline, ordering_failure,
                   delivery_receipts, state,
                   active_certificate, generation, created_at, updated_at, revision)
                  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, 1)
                  ON CONFLICT DO NOTHING RETURNING key";
    let made = params![
        account,
        new.name.destination(),
        config.display_name,
        config.url,
        Column(config.trust_model),
        Column(config.key_algorithm),
        config.region.as_ref().map(Id::as_str),
        config.server_ca_pem,
        Column(config.minimum_tls),
        Column(config.mtls_enforcement),
        micros(config.attempt_timeout),
        config.concurrency_limit,
        Column(config.allowed_ranges.as_slice()),
        Column(config.signatures),
        Column(&config.policy.retry.waits),
        config.policy.retry.deadline.map(micros),
        config.policy.rate_limit,
        config.policy.max_offline.map(micros),
        Column(config.ordering_failure),
        i64::from(config.delivery_receipts),
        Column(DestinationState::Enabled),
        new.certificate
            .as_ref()
            .map_or(0, |certificate| certificate.version),
        Column(new.created_at),
        Column(new.created_at)
    ];
    let key: Option<i64> = one(connection, insert, made, |row| row.get(0))?;
    let key = key.ok_or_else(|| StoreError::AlreadyExists(new.name.to_string()))?;
    if let Some(certificate) = &new.certificate {
        certificates::insert_certificate(connection, key, certificate)?;
    }
    secrets::insert(connection, key, &new.secret)?;
    rotations::begin(connection, key, new.look_at)?;
    let name = new.name.to_string();
    installation::remember(connection, new.request.as_ref(), &name, new.created_at)?;
    read_destination(connection, &new.name)
}

fn update_config(
    connection: &Connection,
    old: &Destination,
    config: &DestinationConfig,
    now: Timestamp,
) -> Result<()> {
    let update = "UPDATE destinations SET
                  display_name = ?, url = ?, trust_model = ?, key_algorithm = ?, region = ?,
                  server_ca_pem = ?, minimum_tls = ?, mtls_enforcement = ?, attempt_timeout = ?, concurrency_limit = ?,
                  allowed_ranges = ?, signatures = ?, retry_waits = ?, retry_deadline = ?, rate_limit = ?, max_offline = ?, ordering_failure = ?,
                  delivery_receipts = ?, updated_at = ?, generation = generation + 1,
                  revision = revision + 1
                  WHERE key = ?";
    let made = params![
        config.display_name,
        config.url,
        Column(config.trust_model),
        Column(config.key_algorithm),
        config.region.as_ref().map(Id::as_str),
        config.server_ca_pem,
        Column(config.minimum_tls),
        Column(config.mtls_enforcement),
        micros(config.attempt_timeout),
        config.concurrency_limit,
        Column(config.allowed_ranges.as_slice()),
        Column(config.signatures),
        Column(&config.policy.retry.waits),
        config.policy.retry.deadline.map(micros),
        config.policy.rate_limit,
        config.policy.max_offline.map(micros),
        Column(config.ordering_failure),
        i64::from(config.delivery_receipts),
        Column(now),
        old.key.0
    ];
    execute(connection, update, made)?;
    if config.ordering_failure == OrderingFailure::Skip {
        ordered::release_blocked(connection, old.key.0, now)?;
    }
    // Another trust model or key algorithm begins a rotation.
    let moved = config.url != old.config.url;
    rotations::reconsider(connection, old.key.0, moved, now)
}

fn delete_destination(connection: &Connection, key: i64, now: Timestamp) -> Result<()> {
    rotations::end(connection, key, now)?;
    arrivals::clear(connection, DestinationKey(key))?;
    for statement in [
        "DELETE FROM attempts WHERE delivery IN (SELECT id FROM deliveries WHERE destination = ?)",
        "DELETE FROM payloads WHERE id IN (SELECT id FROM deliveries WHERE destination = ?)",
        "DELETE FROM deliveries WHERE destination = ?",
        "DELETE FROM due WHERE destination = ?",
        "DELETE FROM leases WHERE destination = ?",
        "DELETE FROM ordered WHERE destination = ?",
        "DELETE FROM bundle_acknowledgements WHERE destination = ?",
        "DELETE FROM signing_secrets WHERE destination = ?",
        "DELETE FROM client_certificates WHERE destination = ?",
        "DELETE FROM destinations WHERE key = ?",
    ] {
        execute(connection, statement, [key])?;
    }
    Ok(())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn destinations_where(condition: &str) -> String {
    format!(
        "SELECT d.*, a.id AS account_id FROM destinations d JOIN accounts a ON a.key = d.account
         WHERE {condition}"
    )
}

pub(super) fn read_destination(
    connection: &Connection,
    name: &DestinationName,
) -> Result<Destination> {
    let query = destinations_where("a.id = ? AND d.id = ?");
    one(
        connection,
        &query,
        [name.account(), name.destination()],
        destination,
    )?
    .ok_or_else(|| StoreError::NotFound(name.to_string()))
}

/// The columns `retry_waits` and `retry_deadline`.
pub(super) fn retry_policy(row: &Row<'_>) -> rusqlite::Result<RetryPolicy> {
    let deadline: Option<i64> = row.get("retry_deadline")?;
    Ok(RetryPolicy {
        waits: get(row, "retry_waits")?,
        deadline: deadline.map(|micros| Duration::from_micros(micros.unsigned_abs())),
    })
}

pub(super) fn destination(row: &Row<'_>) -> rusqlite::Result<Destination> {
    let account: Id = get(row, "account_id")?;
    let timeout = row.get::<_, i64>("attempt_timeout")?.unsigned_abs();
    let max_offline: Option<i64> = row.get("max_offline")?;
    Ok(Destination {
        key: DestinationKey(row.get("key")?),
        name: DestinationName::new(&account, &get(row, "id")?),
        config: DestinationConfig {
            display_name: row.get("display_name")?,
            url: row.get("url")?,
            trust_model: get(row, "trust_model")?,
            key_algorithm: get(row, "key_algorithm")?,
            region: get_optional(row, "region")?,
            server_ca_pem: row.get("server_ca_pem")?,
            minimum_tls: get(row, "minimum_tls")?,
            mtls_enforcement: get(row, "mtls_enforcement")?,
            attempt_timeout: Duration::from_micros(timeout),
            concurrency_limit: row.get("concurrency_limit")?,
            signatures: get(row, "signatures")?,
            policy: DeliveryPolicy {
                retry: retry_policy(row)?,
                rate_limit: row.get("rate_limit")?,
                max_offline: max_offline.map(|micros| Duration::from_micros(micros.unsigned_abs())),
            },
            allowed_ranges: get(row, "allowed_ranges")?,
            ordering_failure: get(row, "ordering_failure")?,
            delivery_receipts: row.get::<_, i64>("delivery_receipts")? != 0,
        },
        state: get(row, "state")?,
        failing_since: get_optional(row, "failing_since")?,
        active_certificate: row.get("active_certificate")?,
        generation: row.get::<_, i64>("generation")?.unsigned_abs(),
        created_at: get(row, "created_at")?,
        updated_at: get(row, "updated_at")?,
        revision: row.get::<_, i64>("revision")?.unsigned_abs(),
    })
}
