//! What settling finds and writes in the embedded database, for many outcomes at once.

use countersign_shared::{
    class::FailureClass, job::LeaseId, name::DeliveryId, outcome::Outcome, time::Timestamp, wire,
};
use prost::Message as _;
use rusqlite::ToSql;

use super::{
    connection::{Connection, Row},
    many::{groups, insert, placeholders},
    rows::{Column, Statement, get, get_optional, one, signed},
    tenants::retry_policy,
};
use crate::{
    model::{DeliveryState, RetryPolicy, Snapshot},
    store::{
        Result,
        postgres::bulk::{Found, Settled},
    },
};

/// The deliveries that outcomes are about, where the lease is still the agent's, in the same order.
pub(super) fn find(
    connection: &Connection,
    agent: i64,
    outcomes: &[&Outcome],
) -> Result<Vec<Option<Found>>> {
    let mut all = Vec::with_capacity(outcomes.len());
    for group in groups(outcomes) {
        let ids: Vec<_> = group.iter().map(|it| Column(it.delivery)).collect();
        let mut wanted: Vec<&dyn ToSql> = vec![&agent];
        wanted.extend(ids.iter().map(|id| id as &dyn ToSql));
        let query = format!(
            "SELECT l.id, l.epoch, v.destination, v.payload_size, v.attempt_count, v.earlier_count,
             v.accepted_at, v.held_since, v.ordering_key
             FROM leases l JOIN deliveries v ON v.id = l.id WHERE l.agent = ? AND l.id IN {}",
            placeholders(group.len())
        );
        let mut rows = Statement::new(connection, &query)?.all(wanted.as_slice(), leased)?;
        for outcome in group {
            let lease = LeaseId {
                delivery: outcome.delivery,
                epoch: outcome.epoch,
            };
            let place = rows.iter().position(|(of, _)| *of == lease);
            let mut found = place.map(|place| rows.swap_remove(place).1);
            if let Some(found) = &mut found
                && outcome.class != FailureClass::Delivered
            {
                let query = "SELECT retry_waits, retry_deadline FROM destinations WHERE key = ?";
                let policy = one(connection, query, [found.destination], retry_policy)?;
                found.snapshot.retry = policy.unwrap_or_default();
            }
            all.push(found);
        }
    }
    Ok(all)
}

/// A lease, and the delivery that it is of; its destination's policy is looked up where it is needed.
fn leased(row: &Row<'_>) -> rusqlite::Result<(LeaseId, Found)> {
    let lease = LeaseId {
        delivery: get(row, "id")?,
        epoch: row.get::<_, i64>(1)?.unsigned_abs(),
    };
    let attempt_count: u32 = row.get(4)?;
    let found = Found {
        destination: row.get(2)?,
        payload_size: row.get(3)?,
        attempt_count,
        ordering_key: row.get(8)?,
        snapshot: Snapshot {
            attempt_count: attempt_count.saturating_sub(row.get(5)?),
            accepted_at: get(row, "accepted_at")?,
            held_since: get_optional(row, "held_since")?,
            retry: RetryPolicy::default(),
        },
    };
    Ok((lease, found))
}

/// Ends the leases of attempts, records these, and settles what is settled.
pub(super) fn write(
    connection: &Connection,
    agent: &str,
    settled: &[Settled<'_>],
    now: Timestamp,
) -> Result<()> {
    let ended: Vec<_> = settled.iter().map(|it| it.outcome.delivery).collect();
    each_group(connection, "DELETE FROM leases", &[], &ended)?;
    let attempts = settled.iter().filter_map(|it| {
        let record = wire::outcome_to_wire(it.outcome).encode_to_vec();
        Some((Column(it.outcome.delivery), it.number?, record))
    });
    let attempts: Vec<_> = attempts.collect();
    let rows = attempts
        .iter()
        .map(|(delivery, number, record)| -> [&dyn ToSql; 4] {
            [delivery, number, &agent, record]
        });
    let rows: Vec<_> = rows.collect();
    insert(
        connection,
        "attempts (delivery, number, agent, record)",
        &rows,
    )?;
    finish(connection, settled, now)
}

/// Nearly all of them have the same end, and those that have are written together.
fn finish(connection: &Connection, settled: &[Settled<'_>], now: Timestamp) -> Result<()> {
    let over = settled.iter().filter_map(|it| {
        let (outcome, state) = (it.outcome, it.state?);
        let how = (
            state == DeliveryState::Delivered,
            outcome.class.as_str(),
            outcome.epoch,
        );
        Some((how, state, outcome))
    });
    let mut over: Vec<_> = over.collect();
    over.sort_by_key(|(how, ..)| *how);
    for alike in over.chunk_by(|(one, ..), (other, ..)| one == other) {
        let Some((_, state, outcome)) = alike.first() else {
            continue;
        };
        let update =
            "UPDATE OR FAIL deliveries SET state = ?, epoch = ?, due_at = NULL, last_class = ?,
                      attempt_count = attempt_count + 1, settled_at = ?, held_since = NULL";
        let ids: Vec<_> = alike.iter().map(|(_, _, it)| it.delivery).collect();
        let values: [&dyn ToSql; 4] = [
            &Column(*state),
            &signed(outcome.epoch),
            &Column(outcome.class),
            &Column(now),
        ];
        each_group(connection, update, &values, &ids)?;
    }
    Ok(())
}

/// Runs a statement for the rows with these ids, a group at a time.
fn each_group(
    connection: &Connection,
    statement: &str,
    values: &[&dyn ToSql],
    ids: &[DeliveryId],
) -> Result<()> {
    for group in groups(ids) {
        let group: Vec<_> = group.iter().copied().map(Column).collect();
        let mut all = values.to_vec();
        all.extend(group.iter().map(|id| id as &dyn ToSql));
        let statement = format!("{statement} WHERE id IN {}", placeholders(group.len()));
        Statement::new(connection, &statement)?.execute(all.as_slice())?;
    }
    Ok(())
}
