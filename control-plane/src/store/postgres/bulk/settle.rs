//! Settling attempts.

use countersign_shared::{job::LeaseId, outcome::Outcome, time::Timestamp, wire};
use prost::Message as _;
use rusqlite::types::{FromSql as _, ValueRef};

use super::{change, column, ids, time};
use crate::{
    model::{DeliveryState, RetryPolicy, Snapshot},
    store::{
        Result, StoreError,
        postgres::session::{Row, Session},
        sql::rows::Column,
    },
};

/// The leased delivery that an outcome is about.
#[derive(Debug)]
pub(in crate::store) struct Found {
    pub(in crate::store) destination: i64,
    pub(in crate::store) payload_size: u32,
    pub(in crate::store) attempt_count: u32,
    pub(in crate::store) ordering_key: Option<String>,
    /// With the destination's policy.
    pub(in crate::store) snapshot: Snapshot,
}

/// The deliveries that these leases are of, where they are still the agent's, in the same order.
pub(in crate::store) fn find(
    session: &Session,
    agent: i64,
    leases: &[LeaseId],
) -> Result<Vec<Option<Found>>> {
    let ids = ids(leases.iter().map(|lease| &lease.delivery));
    let epochs = leases.iter().map(|lease| lease.epoch.cast_signed());
    let epochs: Vec<i64> = epochs.collect();
    let query = "
        SELECT n.place, v.destination, v.payload_size, v.attempt_count, v.earlier_count, v.accepted_at,
               v.held_since, v.ordering_key, d.retry_waits, d.retry_deadline
        FROM unnest($1::bytea[], $2::bigint[]) WITH ORDINALITY n (id, epoch, place)
        JOIN leases l ON l.id = n.id AND l.epoch = n.epoch AND l.agent = $3
        JOIN deliveries v ON v.id = n.id JOIN destinations d ON d.key = v.destination";
    let prepared = session.prepare(query)?;
    let mut found: Vec<Option<Found>> = Vec::new();
    found.resize_with(leases.len(), || None);
    for row in session.query_with(&prepared, &[&ids, &epochs, &agent])? {
        let place: i64 = column(&row, 0)?;
        let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
        if let Some(free) = found.get_mut(place) {
            *free = Some(read(&row)?);
        }
    }
    Ok(found)
}

fn read(row: &Row) -> Result<Found> {
    let attempt_count = number(row, 3)?;
    let held_since: Option<i64> = column(row, 6)?;
    let deadline: Option<i64> = column(row, 9)?;
    let waits: &str = column(row, 8)?;
    let waits = Column::column_result(ValueRef::Text(waits.as_bytes()));
    let waits = waits.map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(Found {
        destination: column(row, 1)?,
        payload_size: number(row, 2)?,
        attempt_count,
        ordering_key: column(row, 7)?,
        snapshot: Snapshot {
            attempt_count: attempt_count.saturating_sub(number(row, 4)?),
            accepted_at: time(row, 5)?,
            held_since: held_since.map(Timestamp::from_unix_micros),
            retry: RetryPolicy {
                waits: waits.0,
                deadline: deadline
                    .map(|micros| std::time::Duration::from_micros(micros.unsigned_abs())),
            },
        },
    })
}

fn number(row: &Row, index: usize) -> Result<u32> {
    let number: i64 = column(row, index)?;
    u32::try_from(number).map_err(|_| StoreError::Corrupt(format!("a count of {number}")))
}

/// An attempt that has ended.
#[derive(Debug)]
pub(in crate::store) struct Settled<'a> {
    pub(in crate::store) outcome: &'a Outcome,
    /// The attempt's number, if it is one.
    pub(in crate::store) number: Option<u32>,
    /// What its delivery is from now on, if it is settled.
    pub(in crate::store) state: Option<DeliveryState>,
}

/// Ends the leases of attempts, records these, and settles what is settled.
pub(in crate::store) fn settle(
    session: &Session,
    agent: &str,
    settled: &[Settled<'_>],
    now: Timestamp,
) -> Result<()> {
    if settled.is_empty() {
        return Ok(());
    }
    let leases = ids(settled.iter().map(|it| &it.outcome.delivery));
    let recorded = settled
        .iter()
        .filter_map(|it| Some((it.outcome, it.number?)));
    let recorded: Vec<(&Outcome, u32)> = recorded.collect();
    let deliveries = ids(recorded.iter().map(|(outcome, _)| &outcome.delivery));
    let numbers: Vec<i64> = recorded
        .iter()
        .map(|(_, number)| (*number).into())
        .collect();
    let records = recorded
        .iter()
        .map(|(outcome, _)| wire::outcome_to_wire(outcome).encode_to_vec());
    let records: Vec<Vec<u8>> = records.collect();
    let over = settled
        .iter()
        .filter_map(|it| Some((it.outcome, it.state?)));
    let over: Vec<(&Outcome, DeliveryState)> = over.collect();
    let ended = ids(over.iter().map(|(outcome, _)| &outcome.delivery));
    let states: Vec<i64> = over.iter().map(|(_, state)| as_number(*state)).collect();
    let epochs = over.iter().map(|(outcome, _)| outcome.epoch.cast_signed());
    let epochs: Vec<i64> = epochs.collect();
    let classes: Vec<&str> = over
        .iter()
        .map(|(outcome, _)| outcome.class.as_str())
        .collect();
    let statement = "
        WITH gone AS (
            DELETE FROM leases WHERE id = ANY ($1::bytea[])
        ), recorded AS (
            INSERT INTO attempts (delivery, number, agent, record)
            SELECT id, number, $2, record
            FROM unnest($3::bytea[], $4::bigint[], $5::bytea[]) n (id, number, record)
        )
        UPDATE deliveries v SET state = n.state, epoch = n.epoch, due_at = NULL, last_class = n.class,
               attempt_count = attempt_count + 1, settled_at = $10, held_since = NULL
        FROM unnest($6::bytea[], $7::bigint[], $8::bigint[], $9::text[]) n (id, state, epoch, class)
        WHERE v.id = n.id";
    let now = now.as_unix_micros();
    change(
        session,
        statement,
        &[
            &leases,
            &agent,
            &deliveries,
            &numbers,
            &records,
            &ended,
            &states,
            &epochs,
            &classes,
            &now,
        ],
    )
}

/// As its column has it.
fn as_number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => 1,
        DeliveryState::Leased => 2,
        DeliveryState::Delivered => 3,
        DeliveryState::DeadLetter => 4,
        DeliveryState::Cancelled => 5,
    }
}
