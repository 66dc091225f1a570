//! Leases: who may attempt what, until when. `due` holds every unsettled delivery by when it can next
//! be leased; for a leased one that is the lease's end.

use std::collections::HashSet;

use countersign_shared::{
    job::LeaseId,
    name::{AgentName, DeliveryId},
    time::Timestamp,
};
use rusqlite::{Connection, Row, params};

use super::rows::{Column, agent_key, all, execute, get, one, signed};
use crate::{
    model::{DeliveryState, DestinationKey, DestinationState, Due, Grant, SealedJob},
    store::{Result, StoreError},
};

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

pub(super) fn delete_due(
    connection: &Connection,
    destination: i64,
    at: Timestamp,
    id: DeliveryId,
) -> Result<()> {
    let delete = "DELETE FROM due WHERE destination = ? AND due_at = ? AND id = ?";
    execute(
        connection,
        delete,
        params![destination, Column(at), Column(id)],
    )?;
    Ok(())
}

/// Every destination with unsettled deliveries that is enabled and has a client certificate.
pub(super) fn due(connection: &Connection) -> Result<Vec<Due>> {
    let query = "SELECT key, (SELECT min(due_at) FROM due WHERE destination = key) AS at
                 FROM destinations WHERE state = ? AND active_certificate > 0";
    let found = all(
        connection,
        query,
        [Column(DestinationState::Enabled)],
        |row| {
            let at: Option<Column<Timestamp>> = row.get("at")?;
            Ok(at.map(|at| Due {
                destination: DestinationKey(row.get("key").unwrap_or_default()),
                at: at.0,
            }))
        },
    )?;
    Ok(found.into_iter().flatten().collect())
}

/// When the first delivery of a destination is due that is enabled and has a client certificate.
pub(super) fn due_of(
    connection: &Connection,
    destination: DestinationKey,
) -> Result<Option<Timestamp>> {
    let query = "SELECT min(due_at) AS at FROM due WHERE destination = ?1
                 AND EXISTS (SELECT 1 FROM destinations
                             WHERE key = ?1 AND state = ?2 AND active_certificate > 0)";
    let wanted = params![destination.0, Column(DestinationState::Enabled)];
    let at: Option<Option<Column<Timestamp>>> =
        one(connection, query, wanted, |row| row.get("at"))?;
    Ok(at.flatten().map(|at| at.0))
}

pub(super) fn lease(
    connection: &Connection,
    grants: &[Grant],
    now: Timestamp,
    until: Timestamp,
) -> Result<(Vec<SealedJob>, Vec<Due>)> {
    let mut jobs = Vec::new();
    let mut next = Vec::new();
    let mut granted = Vec::with_capacity(grants.len());
    for grant in grants {
        granted.push((grant, agent_key(connection, &grant.agent)?));
    }
    for (grant, agent) in granted {
        // Disabled or gone since the grant was planned: nothing to lease, nothing due.
        if due_of(connection, grant.destination)?.is_none() {
            continue;
        }
        let query = "SELECT due_at, id FROM due WHERE destination = ? AND due_at <= ?
                     ORDER BY due_at, id LIMIT ?";
        let size = i64::try_from(grant.limit).unwrap_or(i64::MAX);
        let wanted = params![grant.destination.0, Column(now), size];
        let found = all(connection, query, wanted, |row| {
            Ok((
                get::<Timestamp>(row, "due_at")?,
                get::<DeliveryId>(row, "id")?,
            ))
        })?;
        for (due_at, id) in found {
            jobs.extend(lease_one(connection, grant, agent, (due_at, id), until)?);
        }
        if let Some(at) = due_of(connection, grant.destination)? {
            next.push(Due {
                destination: grant.destination,
                at,
            });
        }
    }
    Ok((jobs, next))
}

fn lease_one(
    connection: &Connection,
    grant: &Grant,
    agent: i64,
    (due_at, id): (Timestamp, DeliveryId),
    until: Timestamp,
) -> Result<Option<SealedJob>> {
    let query = "SELECT sealed FROM payloads WHERE id = ?";
    let Some(sealed_payload) = one(connection, query, [Column(id)], |row| row.get(0))? else {
        // A row that should not be there must not hold up the others for ever.
        tracing::error!(delivery = %id, "due without a payload; it is left out");
        delete_due(connection, grant.destination.0, due_at, id)?;
        return Ok(None);
    };
    let update = "UPDATE deliveries SET state = ?, epoch = epoch + 1, agent = ?, due_at = ?
                  WHERE id = ? RETURNING epoch, content_type, attempt_count";
    let leased = params![
        Column(DeliveryState::Leased),
        agent,
        Column(until),
        Column(id)
    ];
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, u32>(2)?));
    let missing = || StoreError::Corrupt(format!("delivery {id} is due but not there"));
    let (epoch, content_type, attempt_count) =
        one(connection, update, leased, read)?.ok_or_else(missing)?;
    delete_due(connection, grant.destination.0, due_at, id)?;
    insert_due(connection, grant.destination.0, until, id)?;
    Ok(Some(SealedJob {
        lease: LeaseId {
            delivery: id,
            epoch: epoch.unsigned_abs(),
        },
        destination: grant.destination,
        agent: grant.agent.clone(),
        sealed_payload,
        content_type,
        attempt_number: attempt_count + 1,
    }))
}

/// A lease as its delivery's row has it.
struct Held {
    destination: i64,
    due_at: Timestamp,
}

/// The lease, if it is the agent's and its epoch is the newest.
fn held(connection: &Connection, agent: i64, lease: LeaseId) -> Result<Option<Held>> {
    let query = "SELECT destination, due_at FROM deliveries
                 WHERE id = ? AND epoch = ? AND agent = ? AND state = ?";
    let wanted = params![
        Column(lease.delivery),
        signed(lease.epoch),
        agent,
        Column(DeliveryState::Leased)
    ];
    one(connection, query, wanted, |row| {
        Ok(Held {
            destination: row.get("destination")?,
            due_at: get(row, "due_at")?,
        })
    })
}

pub(super) fn extend(
    connection: &Connection,
    agent: &AgentName,
    leases: Vec<LeaseId>,
    until: Timestamp,
) -> Result<Vec<LeaseId>> {
    let agent = agent_key(connection, agent)?;
    let mut extended = Vec::with_capacity(leases.len());
    for lease in leases {
        if let Some(held) = held(connection, agent, lease)? {
            delete_due(connection, held.destination, held.due_at, lease.delivery)?;
            insert_due(connection, held.destination, until, lease.delivery)?;
            let update = "UPDATE deliveries SET due_at = ? WHERE id = ?";
            execute(
                connection,
                update,
                params![Column(until), Column(lease.delivery)],
            )?;
            extended.push(lease);
        }
    }
    Ok(extended)
}

pub(super) fn release_all_but(
    connection: &Connection,
    agent: &AgentName,
    still_held: &HashSet<LeaseId>,
    now: Timestamp,
) -> Result<Vec<DestinationKey>> {
    let agent = agent_key(connection, agent)?;
    let query = "SELECT id, epoch, destination, due_at FROM deliveries WHERE agent = ?";
    let leases = all(connection, query, [agent], |row| {
        let lease = LeaseId {
            delivery: get(row, "id")?,
            epoch: row.get::<_, i64>("epoch")?.unsigned_abs(),
        };
        let held = Held {
            destination: row.get("destination")?,
            due_at: get(row, "due_at")?,
        };
        Ok((lease, held))
    })?;
    let mut released = Vec::new();
    for (lease, held) in leases {
        // What is due already has run out by itself.
        if still_held.contains(&lease) || held.due_at <= now {
            continue;
        }
        let update = "UPDATE deliveries SET state = ?, agent = NULL, due_at = ? WHERE id = ?";
        let pending = params![
            Column(DeliveryState::Pending),
            Column(now),
            Column(lease.delivery)
        ];
        execute(connection, update, pending)?;
        delete_due(connection, held.destination, held.due_at, lease.delivery)?;
        insert_due(connection, held.destination, now, lease.delivery)?;
        released.push(DestinationKey(held.destination));
    }
    Ok(released)
}
