//! Settling attempts.

use std::collections::{BTreeMap, HashMap};

use countersign_shared::{
    class::FailureClass, job::LeaseId, name::DeliveryId, outcome::Outcome, time::Timestamp, wire,
};
use prost::Message as _;
use rusqlite::types::{FromSql as _, ValueRef};

use super::{change, column, id, ids, placed, time};
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
        if let Some(free) = found.get_mut(placed(&row)?) {
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

/// A delivery that is settled as delivered.
#[derive(Debug)]
pub(in crate::store) struct Done {
    pub(in crate::store) destination: i64,
    pub(in crate::store) payload_size: u32,
    pub(in crate::store) ordering_key: Option<String>,
    number: u32,
}

/// Settles what was delivered, where the lease is still the agent's (its handle and its id), each once. Answers in the
/// same order.
pub(in crate::store) fn deliver(
    session: &Session,
    (key, agent): (i64, &str),
    outcomes: &[&Outcome],
    now: Timestamp,
) -> Result<Vec<Option<Done>>> {
    // Nearly all are of one epoch, a delivery's first.
    let mut alike: BTreeMap<u64, Vec<&DeliveryId>> = BTreeMap::new();
    for outcome in outcomes {
        let ids = alike.entry(outcome.epoch).or_default();
        ids.push(&outcome.delivery);
    }
    let mut done = HashMap::with_capacity(outcomes.len());
    for (epoch, ids) in alike {
        end(session, key, epoch, &ids, now, &mut done)?;
    }
    let done = outcomes.iter().map(|outcome| {
        let lease = (outcome.epoch, outcome.delivery);
        done.remove(&lease)
    });
    let done: Vec<Option<Done>> = done.collect();
    let attempts = outcomes.iter().zip(&done);
    let attempts = attempts.filter_map(|(outcome, done)| Some((*outcome, done.as_ref()?.number)));
    insert(session, agent, &attempts.collect::<Vec<_>>())?;
    Ok(done)
}

/// Ends leases of one epoch, with their deliveries delivered.
fn end(
    session: &Session,
    agent: i64,
    epoch: u64,
    deliveries: &[&DeliveryId],
    now: Timestamp,
    done: &mut HashMap<(u64, DeliveryId), Done>,
) -> Result<()> {
    let (Some(first), Some(last)) = (deliveries.iter().min(), deliveries.iter().max()) else {
        return Ok(());
    };
    // The agent's number is hidden from the planner, who would rather look at all leases of the agent. From the first
    // id to the last are few of the pieces that `deliveries` is in; for an array alone it would look into all.
    let statement = "
        WITH gone AS (
            DELETE FROM leases WHERE id = ANY ($1::bytea[]) AND epoch = $2 AND agent + 0 = $3 RETURNING id
        )
        UPDATE deliveries SET state = 3, epoch = $2, due_at = NULL, last_class = $4,
               attempt_count = attempt_count + 1, settled_at = $5, held_since = NULL
        WHERE id = ANY (ARRAY (SELECT id FROM gone)) AND id >= $6 AND id <= $7
        RETURNING id, attempt_count, destination, payload_size, ordering_key";
    let prepared = session.prepare(statement)?;
    let ids = ids(deliveries.iter().copied());
    let class = FailureClass::Delivered.as_str();
    let now = now.as_unix_micros();
    let (first, last) = (first.as_bytes().as_slice(), last.as_bytes().as_slice());
    let epoch_there = epoch.cast_signed();
    let values: [&(dyn postgres::types::ToSql + Sync); 7] =
        [&ids, &epoch_there, &agent, &class, &now, &first, &last];
    for row in session.query_with(&prepared, &values)? {
        let ended = Done {
            number: number(&row, 1)?,
            destination: column(&row, 2)?,
            payload_size: number(&row, 3)?,
            ordering_key: column(&row, 4)?,
        };
        done.insert((epoch, id(&row, 0)?), ended);
    }
    Ok(())
}

/// Records attempts, with their numbers.
fn insert(session: &Session, agent: &str, attempts: &[(&Outcome, u32)]) -> Result<()> {
    if attempts.is_empty() {
        return Ok(());
    }
    let deliveries = ids(attempts.iter().map(|(outcome, _)| &outcome.delivery));
    let numbers = attempts.iter().map(|(_, number)| i64::from(*number));
    let numbers: Vec<i64> = numbers.collect();
    let records = attempts
        .iter()
        .map(|(outcome, _)| wire::outcome_to_wire(outcome).encode_to_vec());
    let records: Vec<Vec<u8>> = records.collect();
    let statement = "
        INSERT INTO attempts (delivery, number, agent, record)
        SELECT id, number, $1, record
        FROM unnest($2::bytea[], $3::bigint[], $4::bytea[]) n (id, number, record)";
    change(
        session,
        statement,
        &[&agent, &deliveries, &numbers, &records],
    )
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
    insert(session, agent, &recorded.collect::<Vec<_>>())?;
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
        WITH gone AS (DELETE FROM leases WHERE id = ANY ($1::bytea[]))
        UPDATE deliveries v SET state = n.state, epoch = n.epoch, due_at = NULL, last_class = n.class,
               attempt_count = attempt_count + 1, settled_at = $6, held_since = NULL
        FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::text[]) n (id, state, epoch, class)
        WHERE v.id = n.id";
    let now = now.as_unix_micros();
    change(
        session,
        statement,
        &[&leases, &ended, &states, &epochs, &classes, &now],
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
