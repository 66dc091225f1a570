//! Settling: an outcome becomes an attempt and the delivery's next state, in one transaction, if its
//! lease is still the newest and the agent's own.

use countersign_shared::{outcome::Outcome, time::Timestamp, wire};
use prost::Message as _;
use rusqlite::{Connection, params};

use super::{
    leases::{delete_lease, insert_due},
    rows::{Column, agent_key, execute, get, get_optional, one, signed},
};
use crate::{
    model::{DeliveryState, DestinationKey, Next, Settled, Settlement, Snapshot},
    store::Result,
};

pub(super) fn settle(connection: &Connection, settlement: &Settlement) -> Result<Vec<Settled>> {
    let agent = agent_key(connection, &settlement.agent)?;
    settlement
        .outcomes
        .iter()
        .map(|outcome| settle_one(connection, settlement, agent, outcome))
        .collect()
}

/// The leased delivery that an outcome is about.
struct Leased {
    destination: i64,
    payload_size: u32,
    attempt_count: u32,
    snapshot: Snapshot,
}

fn settle_one(
    connection: &Connection,
    settlement: &Settlement,
    agent: i64,
    outcome: &Outcome,
) -> Result<Settled> {
    let query = "SELECT v.destination, v.payload_size, v.attempt_count, v.earlier_count,
                 v.accepted_at, v.held_since
                 FROM leases l JOIN deliveries v ON v.id = l.id
                 WHERE l.id = ? AND l.epoch = ? AND l.agent = ?";
    let wanted = params![Column(outcome.delivery), signed(outcome.epoch), agent];
    let found = one(connection, query, wanted, |row| {
        let attempt_count: u32 = row.get(2)?;
        Ok(Leased {
            destination: row.get(0)?,
            payload_size: row.get(1)?,
            attempt_count,
            snapshot: Snapshot {
                attempt_count: attempt_count.saturating_sub(row.get(3)?),
                accepted_at: get(row, "accepted_at")?,
                held_since: get_optional(row, "held_since")?,
            },
        })
    })?;
    let Some(leased) = found else {
        return Ok(Settled::Stale);
    };
    let next = (settlement.decide)(&leased.snapshot, outcome);
    delete_lease(connection, outcome.delivery)?;
    if !matches!(next, Next::Again(_)) {
        record(connection, settlement, outcome, leased.attempt_count + 1)?;
    }
    match next {
        Next::Delivered | Next::DeadLetter => finish(connection, settlement.now, outcome, next)?,
        Next::Retry(at) | Next::Again(at) | Next::Hold(at) => {
            let held_since = match next {
                Next::Hold(_) => Some(leased.snapshot.held_since.unwrap_or(settlement.now)),
                Next::Again(_) => leased.snapshot.held_since,
                _ => None,
            };
            wait(connection, outcome, next, at, held_since)?;
            insert_due(connection, leased.destination, at, outcome.delivery)?;
        }
    }
    Ok(Settled::Applied {
        destination: DestinationKey(leased.destination),
        payload_size: leased.payload_size,
        next,
    })
}

fn record(
    connection: &Connection,
    settlement: &Settlement,
    outcome: &Outcome,
    number: u32,
) -> Result<()> {
    let insert = "INSERT INTO attempts (delivery, number, agent, record) VALUES (?, ?, ?, ?)";
    let made = params![
        Column(outcome.delivery),
        number,
        settlement.agent.id().as_str(),
        wire::outcome_to_wire(outcome).encode_to_vec()
    ];
    execute(connection, insert, made)?;
    Ok(())
}

fn finish(connection: &Connection, now: Timestamp, outcome: &Outcome, next: Next) -> Result<()> {
    let state = match next {
        Next::Delivered => DeliveryState::Delivered,
        _ => DeliveryState::DeadLetter,
    };
    let update = "UPDATE deliveries SET state = ?, epoch = ?, due_at = NULL, last_class = ?,
                  attempt_count = attempt_count + 1, settled_at = ?, held_since = NULL
                  WHERE id = ?";
    let settled = params![
        Column(state),
        signed(outcome.epoch),
        Column(outcome.class),
        Column(now),
        Column(outcome.delivery)
    ];
    execute(connection, update, settled)?;
    Ok(())
}

fn wait(
    connection: &Connection,
    outcome: &Outcome,
    next: Next,
    at: Timestamp,
    held_since: Option<Timestamp>,
) -> Result<()> {
    let update = "UPDATE deliveries SET epoch = ?, due_at = ?, last_class = ?,
                  attempt_count = attempt_count + ?, earlier_count = earlier_count + ?,
                  held_since = ? WHERE id = ?";
    let waiting = params![
        signed(outcome.epoch),
        Column(at),
        Column(outcome.class),
        !matches!(next, Next::Again(_)),
        matches!(next, Next::Hold(_)),
        held_since.map(Column),
        Column(outcome.delivery)
    ];
    execute(connection, update, waiting)?;
    Ok(())
}
