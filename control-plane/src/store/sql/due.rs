//! Rows in `due`: every delivery that waits for a time, by when it can next be leased; but for those that arrived and
//! have their place in memory.

use countersign_shared::{name::DeliveryId, time::Timestamp};
use rusqlite::params;

use super::{
    arrivals,
    connection::Connection,
    rows::{Column, execute},
};
use crate::{model::DestinationKey, store::Result};

pub(super) fn insert_due(
    connection: &Connection,
    destination: i64,
    at: Timestamp,
    id: DeliveryId,
) -> Result<()> {
    let insert = "INSERT INTO due (destination, due_at, id) VALUES (?, ?, ?)";
    execute(
        connection,
        insert,
        params![destination, Column(at), Column(id)],
    )?;
    Ok(())
}

/// Wherever it waits.
pub(super) fn delete_due(
    connection: &Connection,
    destination: i64,
    at: Timestamp,
    id: DeliveryId,
) -> Result<()> {
    if arrivals::remove(connection, DestinationKey(destination), (at, id))? {
        return Ok(());
    }
    let delete = "DELETE FROM due WHERE destination = ? AND due_at = ? AND id = ?";
    execute(
        connection,
        delete,
        params![destination, Column(at), Column(id)],
    )?;
    Ok(())
}
