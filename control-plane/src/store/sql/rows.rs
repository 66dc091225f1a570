//! Between rows and the model: how each thing is written in a column, and read back.

use std::time::Duration;

use countersign_shared::{
    address_range::{AddressRange, AddressRangeError},
    bundle::{MinimumTls, MtlsEnforcement},
    class::FailureClass,
    digest::{hex, unhex},
    name::{AccountName, AgentName, DeliveryId, DestinationName, Id, NameError},
    probe::ProbePresentation,
    time::Timestamp,
};
use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

pub(super) use super::connection::Statement;
use super::connection::{Connection, Parameters, Row};

use crate::{
    model::{
        AlertCause, AlertSeverity, AuthorityOwner, AuthorityState, Backoff, BundleStatus,
        ClientCertificateState, DeliveryState, DestinationState, HeldUp, KeyAlgorithm,
        OrderingFailure, Page, RevocationReason, Serial, SignatureSchemes, TrustModel, TrustState,
        Waits,
    },
    store::{Result, StoreError},
};

/// A value that is written as one column.
pub(in crate::store) struct Column<T>(pub(in crate::store) T);

/// Defines how an enum is written as text.
macro_rules! text_columns {
    ($($type:ident { $($variant:ident = $text:literal),* $(,)? })*) => {$(
        impl ToSql for Column<$type> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(match self.0 { $($type::$variant => $text,)* }))
            }
        }
        impl FromSql for Column<$type> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                match value.as_str()? {
                    $($text => Ok(Self($type::$variant)),)*
                    _ => Err(FromSqlError::InvalidType),
                }
            }
        }
    )*};
}

text_columns! {
    MinimumTls { Tls12 = "1.2", Tls13 = "1.3" }
    MtlsEnforcement { Deliver = "DELIVER", Refuse = "REFUSE" }
    TrustModel { Dedicated = "DEDICATED", Shared = "SHARED", Customer = "CUSTOMER" }
    KeyAlgorithm {
        EcdsaP256 = "ECDSA_P256", EcdsaP384 = "ECDSA_P384", Rsa2048 = "RSA_2048",
        Rsa3072 = "RSA_3072",
    }
    AuthorityState {
        Prepared = "PREPARED", Active = "ACTIVE", Superseded = "SUPERSEDED",
        Retiring = "RETIRING", Retired = "RETIRED", Aborted = "ABORTED", Revoked = "REVOKED",
    }
    SignatureSchemes { V1 = "v1", V1a = "v1a", Both = "v1 v1a" }
    OrderingFailure { Hold = "HOLD", Skip = "SKIP" }
    DestinationState { Enabled = "ENABLED", Disabled = "DISABLED" }
    ClientCertificateState {
        Pending = "PENDING", Distributed = "DISTRIBUTED", Active = "ACTIVE",
        Retiring = "RETIRING", Retired = "RETIRED", Revoked = "REVOKED", Expired = "EXPIRED",
    }
    RevocationReason {
        Unspecified = "UNSPECIFIED", KeyCompromise = "KEY_COMPROMISE",
        CaCompromise = "CA_COMPROMISE", AffiliationChanged = "AFFILIATION_CHANGED",
        Superseded = "SUPERSEDED", CessationOfOperation = "CESSATION_OF_OPERATION",
        PrivilegeWithdrawn = "PRIVILEGE_WITHDRAWN",
    }
    AlertSeverity { Warning = "WARNING", Critical = "CRITICAL" }
    ProbePresentation { Chain = "CHAIN", LeafOnly = "LEAF_ONLY", Nothing = "NOTHING" }
    TrustState {
        Unknown = "UNKNOWN", ProbedOk = "PROBED_OK", ProbedRefused = "PROBED_REFUSED",
        Acknowledged = "ACKNOWLEDGED", Exempt = "EXEMPT",
    }
    BundleStatus {
        Received = "RECEIVED", Durable = "DURABLE", Active = "ACTIVE", Refused = "REFUSED",
    }
}

impl ToSql for Column<HeldUp> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(match self.0 {
            HeldUp::NoAgent => "NO_AGENT".to_owned(),
            HeldUp::NotDurable => "NOT_DURABLE".to_owned(),
            HeldUp::UploadNeeded => "UPLOAD_NEEDED".to_owned(),
            HeldUp::NotIssued => "NOT_ISSUED".to_owned(),
            HeldUp::NotConfirmed => "NOT_CONFIRMED".to_owned(),
            HeldUp::Refused(class) => format!("REFUSED {class}"),
            HeldUp::Unreachable(class) => format!("UNREACHABLE {class}"),
        }))
    }
}

impl FromSql for Column<HeldUp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let class = text.split_once(' ').map(|(_, class)| class);
        let class = class.and_then(FailureClass::parse);
        Ok(Self(match (text.split(' ').next(), class) {
            (Some("NO_AGENT"), _) => HeldUp::NoAgent,
            (Some("NOT_DURABLE"), _) => HeldUp::NotDurable,
            (Some("UPLOAD_NEEDED"), _) => HeldUp::UploadNeeded,
            (Some("NOT_ISSUED"), _) => HeldUp::NotIssued,
            (Some("NOT_CONFIRMED"), _) => HeldUp::NotConfirmed,
            (Some("REFUSED"), Some(class)) => HeldUp::Refused(class),
            (Some("UNREACHABLE"), Some(class)) => HeldUp::Unreachable(class),
            _ => return Err(FromSqlError::InvalidType),
        }))
    }
}

/// A number: this column is written several times in a delivery's life.
impl ToSql for Column<DeliveryState> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(match self.0 {
            DeliveryState::Pending => 1,
            DeliveryState::Leased => 2,
            DeliveryState::Delivered => 3,
            DeliveryState::DeadLetter => 4,
            DeliveryState::Cancelled => 5,
        }))
    }
}

impl FromSql for Column<DeliveryState> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(match value.as_i64()? {
            1 => DeliveryState::Pending,
            2 => DeliveryState::Leased,
            3 => DeliveryState::Delivered,
            4 => DeliveryState::DeadLetter,
            5 => DeliveryState::Cancelled,
            other => return Err(FromSqlError::OutOfRange(other)),
        }))
    }
}

impl ToSql for Column<FailureClass> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_str()))
    }
}

impl FromSql for Column<FailureClass> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        FailureClass::parse(value.as_str()?)
            .map(Self)
            .ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Column<AlertCause> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_str()))
    }
}

impl FromSql for Column<AlertCause> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        AlertCause::parse(value.as_str()?)
            .map(Self)
            .ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Column<Timestamp> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_unix_micros()))
    }
}

impl FromSql for Column<Timestamp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(Timestamp::from_unix_micros(value.as_i64()?)))
    }
}

impl ToSql for Column<DeliveryId> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_bytes().as_slice()))
    }
}

impl FromSql for Column<DeliveryId> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        DeliveryId::from_slice(value.as_blob()?)
            .map(Self)
            .ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for Column<AuthorityOwner> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(match value.as_str()? {
            "root" => AuthorityOwner::Root,
            "agents" => AuthorityOwner::Agents,
            "server" => AuthorityOwner::Server,
            "shared" => AuthorityOwner::Shared,
            account => AuthorityOwner::Account(
                account
                    .parse()
                    .map_err(|error: NameError| FromSqlError::Other(Box::new(error)))?,
            ),
        }))
    }
}

impl ToSql for Column<Serial> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.0.as_slice()))
    }
}

/// Certificates, each in DER, as hexadecimal with spaces between.
impl ToSql for Column<&[Vec<u8>]> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let texts: Vec<String> = self.0.iter().map(|der| hex(der)).collect();
        Ok(ToSqlOutput::from(texts.join(" ")))
    }
}

impl FromSql for Column<Vec<Vec<u8>>> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = value.as_str()?.split_ascii_whitespace();
        let all: Option<Vec<_>> = all.map(unhex).collect();
        all.map(Self).ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for Column<Id> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Id::existing(value.as_str()?)
            .map(Self)
            .map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// As text, with spaces between.
impl ToSql for Column<&[AddressRange]> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        Ok(ToSqlOutput::from(texts.join(" ")))
    }
}

impl FromSql for Column<Vec<AddressRange>> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let ranges = value.as_str()?.split_ascii_whitespace();
        let ranges: std::result::Result<_, _> = ranges.map(str::parse).collect();
        ranges
            .map(Self)
            .map_err(|error: AddressRangeError| FromSqlError::Other(Box::new(error)))
    }
}

/// As words: what kind it is, and its times in microseconds.
impl ToSql for Column<&Waits> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(match self.0 {
            Waits::Standard => "standard".to_owned(),
            Waits::Schedule(waits) => waits.iter().fold("schedule".to_owned(), |text, wait| {
                format!("{text} {}", wait.as_micros())
            }),
            Waits::Backoff(backoff) => format!(
                "backoff {} {} {} {}",
                backoff.first.as_micros(),
                backoff.factor,
                backoff.longest.as_micros(),
                backoff.retries
            ),
        }))
    }
}

impl FromSql for Column<Waits> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let mut words = value.as_str()?.split(' ');
        let kind = words.next();
        let numbers: std::result::Result<Vec<u64>, _> = words.map(str::parse).collect();
        let numbers = numbers.map_err(|error| FromSqlError::Other(Box::new(error)))?;
        let unreadable = |_| FromSqlError::InvalidType;
        Ok(Self(match (kind, numbers.as_slice()) {
            (Some("standard"), []) => Waits::Standard,
            (Some("schedule"), waits) => {
                Waits::Schedule(waits.iter().copied().map(Duration::from_micros).collect())
            }
            (Some("backoff"), &[first, factor, longest, retries]) => Waits::Backoff(Backoff {
                first: Duration::from_micros(first),
                factor: u32::try_from(factor).map_err(unreadable)?,
                longest: Duration::from_micros(longest),
                retries: usize::try_from(retries).map_err(unreadable)?,
            }),
            _ => return Err(FromSqlError::InvalidType),
        }))
    }
}

/// Reads a column that was written by [`Column`].
pub(super) fn get<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    Column<T>: FromSql,
{
    Ok(row.get::<_, Column<T>>(column)?.0)
}

/// As [`get`], for a column that may be null.
pub(super) fn get_optional<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    Column<T>: FromSql,
{
    Ok(row
        .get::<_, Option<Column<T>>>(column)?
        .map(|value| value.0))
}

/// Runs a query for one row; `None` when there is none.
pub(super) fn one<T>(
    connection: &Connection,
    query: &str,
    params: impl Parameters,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    Statement::new(connection, query)?.one(params, read)
}

/// Runs a query for all rows.
pub(super) fn all<T>(
    connection: &Connection,
    query: &str,
    params: impl Parameters,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    Statement::new(connection, query)?.all(params, read)
}

/// Runs a query that asks for `size + 1` rows.
pub(super) fn page<T>(
    connection: &Connection,
    query: &str,
    params: impl Parameters,
    size: usize,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Page<T>> {
    Ok(Page::cut(all(connection, query, params, read)?, size))
}

/// Runs a statement; answers with how many rows it changed.
pub(super) fn execute(
    connection: &Connection,
    statement: &str,
    params: impl Parameters,
) -> Result<usize> {
    Statement::new(connection, statement)?.execute(params)
}

/// The store's handle of an account.
pub(super) fn account_key(connection: &Connection, name: &AccountName) -> Result<i64> {
    let query = "SELECT key FROM accounts WHERE id = ?";
    one(connection, query, [name.id().as_str()], |row| row.get(0))?
        .ok_or_else(|| StoreError::NotFound(name.to_string()))
}

/// The store's handles of a destination and of its account.
pub(super) fn destination_keys(
    connection: &Connection,
    name: &DestinationName,
) -> Result<(i64, i64)> {
    destination_keys_with(&mut Statement::new(connection, DESTINATION_KEYS)?, name)
}

/// What [`destination_keys_with`] runs.
pub(super) const DESTINATION_KEYS: &str = "SELECT d.key, d.account
    FROM destinations d JOIN accounts a ON a.key = d.account WHERE a.id = ? AND d.id = ?";

/// As [`destination_keys`].
pub(super) fn destination_keys_with(
    statement: &mut Statement<'_>,
    name: &DestinationName,
) -> Result<(i64, i64)> {
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let found = statement.one([name.account(), name.destination()], read)?;
    found.ok_or_else(|| StoreError::NotFound(name.to_string()))
}

/// The store's handle of an agent.
pub(super) fn agent_key(connection: &Connection, name: &AgentName) -> Result<i64> {
    let query = "SELECT key FROM agents WHERE id = ?";
    one(connection, query, [name.id().as_str()], |row| row.get(0))?
        .ok_or_else(|| StoreError::NotFound(name.to_string()))
}

/// `size + 1` as a LIMIT.
pub(super) fn limit(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1)
}

/// Numbers that SQLite keeps signed; ours are never negative and never that large.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
