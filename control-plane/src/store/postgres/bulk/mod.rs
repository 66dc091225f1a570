//! What happens to every delivery, for many at once in a few statements: on a server each statement costs
//! a way there and back, and its own part of work. What is rare (a failure, an ordering key, a request id)
//! is done one by one by the SQL that both stores share.

mod lease;
mod place;
mod settle;
mod submit;

use countersign_shared::{name::DeliveryId, time::Timestamp};

use super::session::{Row, Session, column};
use crate::store::{Result, StoreError};

pub(in crate::store) use self::{
    lease::{Given, lease, waiting},
    settle::{Found, Settled, deliver, find, settle},
    submit::submit,
};

fn time(row: &Row, index: usize) -> Result<Timestamp> {
    Ok(Timestamp::from_unix_micros(column(row, index)?))
}

fn id(row: &Row, index: usize) -> Result<DeliveryId> {
    DeliveryId::from_slice(column(row, index)?)
        .ok_or_else(|| StoreError::Corrupt("a delivery's id".to_owned()))
}

/// Which of those that were asked for a row answers: its first column counts from one.
fn placed(row: &Row) -> Result<usize> {
    let place: i64 = column(row, 0)?;
    Ok(usize::try_from(place - 1).unwrap_or(usize::MAX))
}

/// Ids as an array.
fn ids<'a>(ids: impl IntoIterator<Item = &'a DeliveryId>) -> Vec<&'a [u8]> {
    ids.into_iter().map(|id| id.as_bytes().as_slice()).collect()
}

/// Runs a statement that changes rows.
fn change(
    session: &Session,
    statement: &str,
    values: &[&(dyn postgres::types::ToSql + Sync)],
) -> Result<()> {
    let prepared = session.prepare(statement)?;
    session.execute_with(&prepared, values)?;
    Ok(())
}
