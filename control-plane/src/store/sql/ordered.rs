//! The order of deliveries with an ordering key: `ordered` has a queue for each destination and key, in
//! the order of acceptance. The first in it is due or leased; those behind it have no row in `due`, so
//! that nobody looks at them until the one ahead leaves. A dead letter that holds its key stays first.

use countersign_shared::{name::DeliveryId, time::Timestamp};
use rusqlite::params;

use super::{
    connection::Connection,
    due::insert_due,
    rows::{Column, all, execute, get, get_optional, one},
};
use crate::{
    model::{DestinationKey, Followers, OrderingFailure},
    store::Result,
};

/// It is first: due, leased, or waiting for its next attempt.
const FIRST: i64 = 0;
/// It is behind another.
const BEHIND: i64 = 1;
/// It is first and a dead letter.
const BLOCKING: i64 = 2;

/// Puts a delivery at the end of its key's queue. Answers with the first in the queue, behind which it
/// waits; `None` when it is first itself, and then it has to be made due.
pub(super) fn join(
    connection: &Connection,
    destination: i64,
    key: &str,
    id: DeliveryId,
) -> Result<Option<DeliveryId>> {
    let query = "SELECT max(sequence) AS last,
                 (SELECT id FROM ordered WHERE destination = ?1 AND ordering_key = ?2
                  ORDER BY sequence LIMIT 1) AS first
                 FROM ordered WHERE destination = ?1 AND ordering_key = ?2";
    let found = one(connection, query, params![destination, key], |row| {
        Ok((
            row.get::<_, Option<i64>>("last")?,
            get_optional(row, "first")?,
        ))
    })?;
    let (last, first) = found.unwrap_or_default();
    let insert = "INSERT INTO ordered (destination, ordering_key, sequence, id, place)
                  VALUES (?, ?, ?, ?, ?)";
    let place = if first.is_some() { BEHIND } else { FIRST };
    let sequence = last.unwrap_or_default() + 1;
    let joined = params![destination, key, sequence, Column(id), place];
    execute(connection, insert, joined)?;
    Ok(first)
}

/// What becomes of a key's queue when its first delivery is settled at `now`.
pub(super) fn settled(
    connection: &Connection,
    destination: i64,
    key: &str,
    id: DeliveryId,
    delivered: bool,
    now: Timestamp,
) -> Result<Followers> {
    if !delivered && on_failure(connection, destination)? == OrderingFailure::Hold {
        let update = "UPDATE ordered SET place = ? WHERE id = ?";
        execute(connection, update, params![BLOCKING, Column(id)])?;
        return Ok(Followers::Blocked);
    }
    leave(connection, destination, key, id, now)
}

/// Takes a delivery out of its key's queue, wherever in it it is. The next is due at `now`.
pub(super) fn leave(
    connection: &Connection,
    destination: i64,
    key: &str,
    id: DeliveryId,
    now: Timestamp,
) -> Result<Followers> {
    execute(connection, "DELETE FROM ordered WHERE id = ?", [Column(id)])?;
    let query = "SELECT id, place FROM ordered WHERE destination = ? AND ordering_key = ?
                 ORDER BY sequence LIMIT 1";
    let first = one(connection, query, params![destination, key], |row| {
        Ok((get::<DeliveryId>(row, "id")?, row.get::<_, i64>("place")?))
    })?;
    let Some((next, BEHIND)) = first else {
        return Ok(Followers::None);
    };
    let update = "UPDATE ordered SET place = ? WHERE id = ?";
    execute(connection, update, params![FIRST, Column(next)])?;
    let update = "UPDATE deliveries SET due_at = ? WHERE id = ?";
    execute(connection, update, params![Column(now), Column(next)])?;
    insert_due(connection, destination, now, next)?;
    Ok(Followers::Due)
}

/// A dead letter is sent again: in its old place if it has held its key, or else at the end of the
/// queue. Answers whether it is first, and has to be made due.
pub(super) fn revived(
    connection: &Connection,
    destination: i64,
    key: &str,
    id: DeliveryId,
) -> Result<bool> {
    let update = "UPDATE ordered SET place = ? WHERE id = ?";
    if execute(connection, update, params![FIRST, Column(id)])? > 0 {
        return Ok(true);
    }
    Ok(join(connection, destination, key, id)?.is_none())
}

/// Whether a dead letter holds its key.
pub(super) fn is_blocking(connection: &Connection, id: DeliveryId) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM ordered WHERE id = ? AND place = ?)";
    let wanted = params![Column(id), BLOCKING];
    Ok(one(connection, query, wanted, |row| row.get(0))?.unwrap_or(false))
}

/// Dead letters hold no keys of a destination any more.
pub(super) fn release_blocked(
    connection: &Connection,
    destination: i64,
    now: Timestamp,
) -> Result<()> {
    // The place as a number, so that the index of blocked keys is used.
    let query = "SELECT ordering_key, id FROM ordered WHERE destination = ? AND place = 2";
    let blocked = all(connection, query, [destination], |row| {
        Ok((row.get::<_, String>(0)?, get::<DeliveryId>(row, "id")?))
    })?;
    for (key, id) in blocked {
        leave(connection, destination, &key, id, now)?;
    }
    Ok(())
}

/// Every destination with keys that dead letters hold.
pub(super) fn blocked(connection: &Connection) -> Result<Vec<DestinationKey>> {
    let query = "SELECT DISTINCT destination FROM ordered WHERE place = 2";
    all(connection, query, [], |row| Ok(DestinationKey(row.get(0)?)))
}

fn on_failure(connection: &Connection, destination: i64) -> Result<OrderingFailure> {
    let query = "SELECT ordering_failure FROM destinations WHERE key = ?";
    let found = one(connection, query, [destination], |row| {
        get(row, "ordering_failure")
    })?;
    Ok(found.unwrap_or_default())
}

#[cfg(test)]
mod tests;
