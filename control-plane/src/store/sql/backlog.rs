//! Counting what is accepted and not settled: each has arrived, or has a row in `due`, in `leases`, or behind another
//! in `ordered`.

use countersign_shared::name::{DestinationName, Id};

use super::{
    arrivals,
    connection::Connection,
    rows::{all, get, one},
};
use crate::{
    model::{DestinationKey, Load},
    store::Result,
};

pub(super) fn backlogged(
    connection: &Connection,
) -> Result<Vec<(DestinationKey, DestinationName)>> {
    let query = "SELECT d.key, d.id, a.id AS account_id,
                 EXISTS (SELECT 1 FROM due WHERE destination = d.key)
                 OR d.key IN (SELECT destination FROM leases)
                 OR EXISTS (SELECT 1 FROM ordered WHERE destination = d.key) AS has_rows
                 FROM destinations d JOIN accounts a ON a.key = d.account";
    let every = all(connection, query, [], |row| {
        let account: Id = get(row, "account_id")?;
        let name = DestinationName::new(&account, &get(row, "id")?);
        let has_rows: bool = row.get("has_rows")?;
        Ok((has_rows, (DestinationKey(row.get("key")?), name)))
    })?;
    let mut found = Vec::new();
    for (has_rows, it) in every {
        if has_rows || arrivals::any(connection, it.0)? {
            found.push(it);
        }
    }
    Ok(found)
}

/// But for what has arrived.
pub(super) fn of(connection: &Connection, destination: DestinationKey) -> Result<Load> {
    let query = "SELECT count(*), CAST(coalesce(sum(v.payload_size), 0) AS BIGINT)
                 FROM (SELECT id FROM due WHERE destination = ?1
                       UNION ALL SELECT id FROM leases WHERE destination = ?1
                       UNION ALL SELECT id FROM ordered WHERE destination = ?1 AND place = 1) u
                 JOIN deliveries v ON v.id = u.id";
    let found = one(connection, query, [destination.0], |row| {
        Ok(Load {
            deliveries: row.get(0)?,
            bytes: row.get(1)?,
        })
    })?;
    Ok(found.unwrap_or_default())
}
