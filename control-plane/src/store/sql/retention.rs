//! Removing what is no longer needed, so that it is gone from the file too: what is deleted here is
//! overwritten with zeros.
//!
//! Ids are UUIDs of version 7 and begin with the time of acceptance, so what is old is at the start of
//! the tables, and no index by time has to be kept.

use countersign_shared::{name::DeliveryId, time::Timestamp};
use rusqlite::params;

use super::{
    connection::{Connection, Dialect},
    rows::{Column, all, execute, get, one},
};
use crate::{
    config::Keep,
    model::DeliveryState,
    store::{RemoveBefore, Result, postgres::partitions},
};

pub(in crate::store) use super::leases::first_id;

/// Removes what is old in one piece, where the database keeps it in pieces.
pub(super) fn remove_pieces(
    connection: &Connection,
    keep: Keep,
    before: RemoveBefore,
    now: Timestamp,
) -> Result<RemoveBefore> {
    let Connection::Postgres(session) = connection else {
        return Ok(before);
    };
    let keep = [keep.deliveries, keep.payloads];
    let before = [before.deliveries, before.payloads];
    let [deliveries, payloads] = partitions::turn(session, keep, before, now)?;
    Ok(RemoveBefore {
        deliveries,
        payloads,
    })
}

/// A slice of old deliveries.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// Those that are settled, and hold no ordering key.
    pub(super) settled: Vec<DeliveryId>,
    /// The last that was looked at, settled or not.
    pub(super) last: Option<DeliveryId>,
}

pub(super) fn with_payload(
    connection: &Connection,
    before: Timestamp,
    after: Option<DeliveryId>,
    size: usize,
) -> Result<Slice> {
    let query = "SELECT p.id, v.state, o.id IS NOT NULL AS holds FROM payloads p
                 JOIN deliveries v ON v.id = p.id LEFT JOIN ordered o ON o.id = p.id
                 WHERE p.id > ? AND p.id < ? ORDER BY p.id LIMIT ?";
    slice(connection, query, before, after, size)
}

pub(super) fn all_of(
    connection: &Connection,
    before: Timestamp,
    after: Option<DeliveryId>,
    size: usize,
) -> Result<Slice> {
    let query = "SELECT v.id, v.state, o.id IS NOT NULL AS holds FROM deliveries v
                 LEFT JOIN ordered o ON o.id = v.id
                 WHERE v.id > ? AND v.id < ? ORDER BY v.id LIMIT ?";
    slice(connection, query, before, after, size)
}

fn slice(
    connection: &Connection,
    query: &str,
    before: Timestamp,
    after: Option<DeliveryId>,
    size: usize,
) -> Result<Slice> {
    let from = after.map_or([0; 16], |after| *after.as_bytes());
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let until = first_id(before);
    let wanted = params![from.as_slice(), Column(until), size];
    let found = all(connection, query, wanted, |row| {
        // A dead letter that holds its ordering key is kept: others wait for what becomes of it.
        let over = get::<DeliveryState>(row, "state")?.is_settled() && !row.get("holds")?;
        Ok((get::<DeliveryId>(row, "id")?, over))
    })?;
    let settled = found.iter().filter(|(_, over)| *over);
    Ok(Slice {
        settled: settled.map(|(id, _)| *id).collect(),
        last: found.last().map(|(id, _)| *id),
    })
}

pub(super) fn erase(connection: &Connection, ids: &[DeliveryId]) -> Result<()> {
    overwriting(connection, || {
        for id in ids {
            execute(
                connection,
                "DELETE FROM payloads WHERE id = ?",
                [Column(*id)],
            )?;
        }
        Ok(())
    })
}

pub(super) fn remove(connection: &Connection, ids: &[DeliveryId]) -> Result<()> {
    overwriting(connection, || {
        for id in ids {
            execute(
                connection,
                "DELETE FROM payloads WHERE id = ?",
                [Column(*id)],
            )?;
            execute(
                connection,
                "DELETE FROM attempts WHERE delivery = ?",
                [Column(*id)],
            )?;
            execute(
                connection,
                "DELETE FROM deliveries WHERE id = ?",
                [Column(*id)],
            )?;
        }
        Ok(())
    })
}

/// Deletes with zeros written over what was there, where the database can do that; elsewhere it would
/// cost more than it is worth.
fn overwriting(connection: &Connection, delete: impl FnOnce() -> Result<()>) -> Result<()> {
    match connection.dialect() {
        Dialect::Sqlite => {
            let set = |on| connection.batch(&format!("PRAGMA secure_delete = {on}"));
            set("ON")?;
            let deleted = delete();
            set("OFF")?;
            deleted
        }
        Dialect::Postgres => delete(),
    }
}

pub(super) fn any_request(connection: &Connection, before: Timestamp) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM requests WHERE created_at < ?)";
    let found = one(connection, query, [Column(before)], |row| row.get(0))?;
    Ok(found.unwrap_or(false))
}

pub(super) fn forget_requests(
    connection: &Connection,
    before: Timestamp,
    size: usize,
) -> Result<bool> {
    let delete = "DELETE FROM requests WHERE (scope, request_id) IN (
                  SELECT scope, request_id FROM requests WHERE created_at < ? LIMIT ?)";
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    execute(connection, delete, params![Column(before), size])?;
    any_request(connection, before)
}

#[cfg(test)]
mod tests {
    use countersign_shared::random;

    use super::*;

    #[test]
    fn ids_are_split_by_the_millisecond_of_acceptance() {
        let at = Timestamp::from_unix_seconds(1_700_000_000);
        let earlier = random::uuid_v7(Timestamp::from_unix_micros(at.as_unix_micros() - 1000));
        let (earlier, then): (DeliveryId, _) = (earlier.into(), random::uuid_v7(at).into());
        assert!(earlier < first_id(at) && first_id(at) <= then);
    }
}
