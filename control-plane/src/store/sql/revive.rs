//! Retrying, replaying and cancelling by hand, and releasing what is held.

use countersign_shared::{
    name::{AccountName, DeliveryId},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    connection::Connection,
    due::{delete_due, insert_due},
    leases::delete_lease,
    ordered,
    rows::{Column, account_key, all, destination_keys, execute, get, limit, one, page},
};
use crate::{
    model::{DeadLetter, Delivery, DeliveryState, DestinationKey, Page, ReplayFilter},
    store::{Result, StoreError},
};

pub(super) fn retry(connection: &Connection, delivery: &Delivery, now: Timestamp) -> Result<()> {
    match (delivery.state, delivery.due_at) {
        (DeliveryState::DeadLetter, _) if !has_payload(connection, delivery.id)? => refuse(
            delivery,
            "has no payload any more: its time was over (retention.payload_days)",
        ),
        (DeliveryState::DeadLetter, _) => {
            let (destination, key) = (delivery.destination_key.0, delivery.ordering_key.as_deref());
            revive(connection, delivery.id, destination, key, now)
        }
        (DeliveryState::Pending, Some(due_at)) => {
            let destination = delivery.destination_key;
            move_due(
                connection,
                destination,
                delivery.id,
                due_at,
                due_at.min(now),
            )
        }
        (DeliveryState::Pending, None) => refuse(
            delivery,
            "waits behind another delivery of its ordering_key: it goes when that one is settled",
        ),
        (DeliveryState::Leased, _) => refuse(delivery, "is being attempted: wait for its outcome"),
        _ => refuse(delivery, "is settled: submit it anew to send it again"),
    }
}

pub(super) fn cancel(connection: &Connection, delivery: &Delivery, now: Timestamp) -> Result<()> {
    match (delivery.state, delivery.due_at) {
        (DeliveryState::Leased, _) => delete_lease(connection, delivery.id)?,
        (DeliveryState::Pending, Some(due_at)) => {
            delete_due(connection, delivery.destination_key.0, due_at, delivery.id)?;
        }
        // Behind another of its ordering key.
        (DeliveryState::Pending, None) => {}
        (DeliveryState::DeadLetter, _) if ordered::is_blocking(connection, delivery.id)? => {}
        _ => return refuse(delivery, "is settled already"),
    }
    let update = "UPDATE deliveries SET state = ?, due_at = NULL, settled_at = ?,
                  held_since = NULL WHERE id = ?";
    let cancelled = params![
        Column(DeliveryState::Cancelled),
        Column(now),
        Column(delivery.id)
    ];
    execute(connection, update, cancelled)?;
    if let Some(key) = &delivery.ordering_key {
        let destination = delivery.destination_key.0;
        ordered::leave(connection, destination, key, delivery.id, now)?;
    }
    Ok(())
}

fn refuse(delivery: &Delivery, why: &str) -> Result<()> {
    let (account, id) = (delivery.destination.account(), delivery.id);
    Err(StoreError::Precondition(format!(
        "accounts/{account}/deliveries/{id} {why}"
    )))
}

fn has_payload(connection: &Connection, id: DeliveryId) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM payloads WHERE id = ?)";
    Ok(one(connection, query, [Column(id)], |row| row.get(0))?.unwrap_or(false))
}

/// A dead letter begins its schedule anew.
fn revive(
    connection: &Connection,
    id: DeliveryId,
    destination: i64,
    key: Option<&str>,
    now: Timestamp,
) -> Result<()> {
    let first = match key {
        Some(key) => ordered::revived(connection, destination, key, id)?,
        None => true,
    };
    let due_at = first.then_some(now);
    let update = "UPDATE deliveries SET state = ?, due_at = ?, settled_at = NULL,
                  earlier_count = attempt_count, held_since = NULL WHERE id = ?";
    let pending = params![
        Column(DeliveryState::Pending),
        due_at.map(Column),
        Column(id)
    ];
    execute(connection, update, pending)?;
    match due_at {
        Some(at) => insert_due(connection, destination, at, id),
        None => Ok(()),
    }
}

/// Dead letters with their ordering keys.
type Found = Page<(DeliveryId, Option<String>, DeadLetter)>;

pub(super) fn dead_letters(
    connection: &Connection,
    account: &AccountName,
    filter: &ReplayFilter,
    size: usize,
) -> Result<Found> {
    let account = account_key(connection, account)?;
    let destination = match &filter.destination {
        Some(name) => Some(destination_keys(connection, name)?.0),
        None => None,
    };
    // The state as a number, so that the index of dead letters is used.
    let query = "SELECT id, destination, payload_size, ordering_key FROM deliveries
                 WHERE account = ?1 AND state = 4 AND (CAST(?2 AS BIGINT) IS NULL OR destination = ?2)
                 AND (CAST(?3 AS BIGINT) IS NULL OR accepted_at >= ?3) AND (CAST(?4 AS BIGINT) IS NULL OR accepted_at < ?4)
                 AND (CAST(?5 AS TEXT) IS NULL OR last_class = ?5)
                 AND EXISTS (SELECT 1 FROM payloads p WHERE p.id = deliveries.id)
                 ORDER BY id LIMIT ?6";
    let wanted = params![
        account,
        destination,
        filter.accepted_from.map(Column),
        filter.accepted_until.map(Column),
        filter.last_class.map(Column),
        limit(size)
    ];
    page(connection, query, wanted, size, |row| {
        let found = DeadLetter {
            destination: DestinationKey(row.get("destination")?),
            payload_size: row.get("payload_size")?,
        };
        Ok((get(row, "id")?, row.get("ordering_key")?, found))
    })
}

/// Whether a destination has any that can be sent again.
pub(super) fn any_dead_letter(connection: &Connection, key: DestinationKey) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM deliveries
                 WHERE account = (SELECT account FROM destinations WHERE key = ?1)
                 AND state = 4 AND destination = ?1
                 AND EXISTS (SELECT 1 FROM payloads p WHERE p.id = deliveries.id))";
    Ok(one(connection, query, [key.0], |row| row.get(0))?.unwrap_or(false))
}

pub(super) fn without_ids(found: &Found) -> Page<DeadLetter> {
    Page {
        items: found
            .items
            .iter()
            .map(|(_, _, dead_letter)| *dead_letter)
            .collect(),
        more: found.more,
    }
}

pub(super) fn replay(
    connection: &Connection,
    account: &AccountName,
    filter: &ReplayFilter,
    size: usize,
    now: Timestamp,
) -> Result<Page<DeadLetter>> {
    let found = dead_letters(connection, account, filter, size)?;
    for (id, key, found) in &found.items {
        revive(connection, *id, found.destination.0, key.as_deref(), now)?;
    }
    Ok(without_ids(&found))
}

/// Deliveries of a destination that are held until after `now`, and until when, soonest first.
pub(super) fn held(
    connection: &Connection,
    destination: DestinationKey,
    now: Timestamp,
    size: usize,
) -> Result<Vec<(DeliveryId, Timestamp)>> {
    let query = "SELECT id, due_at FROM deliveries
                 WHERE destination = ? AND held_since IS NOT NULL AND due_at > ?
                 AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.id = deliveries.id)
                 ORDER BY due_at LIMIT ?";
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let wanted = params![destination.0, Column(now), size];
    all(connection, query, wanted, |row| {
        Ok((get(row, "id")?, get(row, "due_at")?))
    })
}

pub(super) fn release_held(
    connection: &Connection,
    destination: DestinationKey,
    now: Timestamp,
    size: usize,
) -> Result<usize> {
    let found = held(connection, destination, now, size)?;
    for (id, due_at) in &found {
        move_due(connection, destination, *id, *due_at, now)?;
    }
    Ok(found.len())
}

/// Makes a waiting delivery due at another time.
fn move_due(
    connection: &Connection,
    destination: DestinationKey,
    id: DeliveryId,
    from: Timestamp,
    to: Timestamp,
) -> Result<()> {
    delete_due(connection, destination.0, from, id)?;
    insert_due(connection, destination.0, to, id)?;
    let update = "UPDATE deliveries SET due_at = ? WHERE id = ?";
    execute(connection, update, params![Column(to), Column(id)])?;
    Ok(())
}
