//! Deliveries from their acceptance to their first lease, in the embedded database: their order waits in memory, and
//! on disk there is only a list of their ids, one row for those that were accepted together. A row for each in
//! `due`, which is sorted by destination, would have every commit write a page for every destination there is,
//! twice: most are leased soon, and never need one.
//!
//! What is pending, due, not leased and not in `due` is here. Who opens the database finds it by the lists, which
//! name some that have gone on since; a list goes when all that it names have. There is a bound: what comes beyond
//! it has a row in `due` as everything else that waits.
//!
//! Only the writer's connection has this: everybody else would see what is not committed, or miss what is.

mod queues;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use countersign_shared::{name::DeliveryId, time::Timestamp};
use rusqlite::{ToSql, params};

use self::queues::Queues;
pub(super) use self::queues::{Arrived, Place};
use super::{
    connection::Connection,
    many::{groups, insert, placeholders},
    rows::{Column, Statement, all, execute, get},
};
use crate::{
    model::{DestinationKey, Load},
    store::{Result, StoreError},
};

/// How many may wait in memory, at some 40 bytes each.
const BOUND: usize = 1 << 18;

/// What arrived and was not leased since.
#[derive(Debug)]
pub(in crate::store) struct Arrivals {
    queues: RefCell<Queues>,
    /// How many may wait.
    bound: usize,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self::bounded(BOUND)
    }
}

impl Arrivals {
    /// Takes so many.
    pub(in crate::store) fn bounded(bound: usize) -> Self {
        Self {
            queues: RefCell::default(),
            bound,
        }
    }

    /// What was done up to now.
    pub(super) fn mark(&self) -> usize {
        self.queues.borrow().mark()
    }

    /// What was done since `mark` was taken back.
    pub(super) fn taken_back(&self, mark: usize) {
        self.queues.borrow_mut().undo(mark);
    }

    /// What was done is on disk.
    pub(super) fn committed(&self) {
        self.queues.borrow_mut().keep();
    }
}

/// Nothing of it is in memory elsewhere than with the embedded database's writer.
fn of(connection: &Connection) -> Result<Option<&Arrivals>> {
    match connection {
        Connection::Sqlite(_, Some(arrivals)) => Ok(Some(arrivals)),
        Connection::Sqlite(_, None) => Err(StoreError::Corrupt(
            "what has arrived was asked for where it is not known".to_owned(),
        )),
        Connection::Postgres(_) => Ok(None),
    }
}

/// Finds what the lists name and has not gone on. Once, when the database is opened for writing.
pub(in crate::store) fn load(connection: &Connection) -> Result<()> {
    let Some(Arrivals { queues, .. }) = of(connection)? else {
        return Ok(());
    };
    let lists = all(connection, "SELECT batch, ids FROM arrivals", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
    })?;
    for (batch, ids) in lists {
        let found = waiting_of(connection, &ids)?;
        if found.is_empty() {
            forget(connection, &[batch])?;
        }
        let mut queues = queues.borrow_mut();
        for arrived in found {
            queues.add(arrived, batch);
        }
    }
    queues.borrow_mut().keep();
    Ok(())
}

/// Those of a list that still wait for their first lease.
fn waiting_of(connection: &Connection, ids: &[u8]) -> Result<Vec<Arrived>> {
    let (ids, []) = ids.as_chunks::<16>() else {
        return Err(StoreError::Corrupt(
            "a list of arrivals that ends within an id".to_owned(),
        ));
    };
    let mut found = Vec::with_capacity(ids.len());
    for group in groups(ids) {
        let query = format!(
            "SELECT v.id, v.destination, v.due_at, v.payload_size FROM deliveries v
             WHERE v.id IN {} AND v.state = 1 AND v.due_at IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.id = v.id)
             AND NOT EXISTS (SELECT 1 FROM due d WHERE d.destination = v.destination
                             AND d.due_at = v.due_at AND d.id = v.id)",
            placeholders(group.len())
        );
        let ids: Vec<&[u8]> = group.iter().map(<[u8; 16]>::as_slice).collect();
        let ids: Vec<_> = ids.iter().map(|id| id as &dyn ToSql).collect();
        found.extend(
            Statement::new(connection, &query)?.all(ids.as_slice(), |row| {
                Ok(Arrived {
                    destination: DestinationKey(row.get("destination")?),
                    due_at: get(row, "due_at")?,
                    id: get(row, "id")?,
                    payload_size: row.get("payload_size")?,
                })
            })?,
        );
    }
    Ok(found)
}

/// Takes in what was accepted just now.
pub(super) fn accept(connection: &Connection, new: &[Arrived]) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    match of(connection)? {
        Some(Arrivals { queues, bound }) if queues.borrow().len() + new.len() <= *bound => {
            let ids: Vec<u8> = new.iter().flat_map(|it| *it.id.as_bytes()).collect();
            let list = "INSERT INTO arrivals (ids) VALUES (?) RETURNING batch";
            let batch = Statement::new(connection, list)?.one([ids], |row| row.get(0))?;
            let batch = batch.ok_or_else(|| {
                StoreError::Corrupt("a list of arrivals without a key".to_owned())
            })?;
            let mut queues = queues.borrow_mut();
            for arrived in new {
                queues.add(*arrived, batch);
            }
            Ok(())
        }
        _ => {
            let rows = new.iter().map(|it| {
                let (at, id) = (Column(it.due_at), Column(it.id));
                (it.destination.0, at, id)
            });
            let rows: Vec<_> = rows.collect();
            let rows = rows
                .iter()
                .map(|(destination, at, id)| -> [&dyn ToSql; 3] { [destination, at, id] });
            let rows: Vec<_> = rows.collect();
            insert(connection, "due (destination, due_at, id)", &rows)
        }
    }
}

/// The first that wait at a destination, in order; at most so many.
pub(super) fn first(
    connection: &Connection,
    destination: DestinationKey,
    count: usize,
) -> Result<Vec<Place>> {
    Ok(match of(connection)? {
        Some(Arrivals { queues, .. }) => queues.borrow().first(destination).take(count).collect(),
        None => Vec::new(),
    })
}

/// Since when the first waits at a destination.
pub(super) fn first_at(
    connection: &Connection,
    destination: DestinationKey,
) -> Result<Option<Timestamp>> {
    let first = first(connection, destination, 1)?;
    Ok(first.first().map(|(at, _)| *at))
}

/// Whether any waits at a destination.
pub(super) fn any(connection: &Connection, destination: DestinationKey) -> Result<bool> {
    Ok(of(connection)?.is_some_and(|it| it.queues.borrow().any(destination)))
}

/// What waits at a destination.
pub(super) fn backlog(connection: &Connection, destination: DestinationKey) -> Result<Load> {
    let load = of(connection)?.map(|it| it.queues.borrow().load(destination));
    Ok(load.unwrap_or_default())
}

/// Takes out the first of a destination, in order, up to `last`.
pub(super) fn take(
    connection: &Connection,
    destination: DestinationKey,
    last: Place,
) -> Result<Vec<DeliveryId>> {
    let Some(Arrivals { queues, .. }) = of(connection)? else {
        return Ok(Vec::new());
    };
    let (ids, over) = queues.borrow_mut().take(destination, last);
    forget(connection, &over)?;
    Ok(ids)
}

/// Takes out one; whether it was there.
pub(super) fn remove(
    connection: &Connection,
    destination: DestinationKey,
    place: Place,
) -> Result<bool> {
    let removed = of(connection)?.and_then(|it| it.queues.borrow_mut().remove(destination, place));
    if let Some(Some(over)) = removed {
        forget(connection, &[over])?;
    }
    Ok(removed.is_some())
}

/// Takes out all of a destination.
pub(super) fn clear(connection: &Connection, destination: DestinationKey) -> Result<()> {
    match of(connection)? {
        Some(Arrivals { queues, .. }) => {
            let over = queues.borrow_mut().clear(destination);
            forget(connection, &over)
        }
        None => Ok(()),
    }
}

/// Removes lists of which all have gone on.
fn forget(connection: &Connection, batches: &[i64]) -> Result<()> {
    for batch in batches {
        let delete = "DELETE FROM arrivals WHERE batch = ?";
        execute(connection, delete, params![batch])?;
    }
    Ok(())
}
