//! Settling: an outcome becomes an attempt and the delivery's next state, in one transaction, if its
//! lease is still the newest and the agent's own.

use std::collections::HashSet;

use countersign_shared::{job::LeaseId, outcome::Outcome, time::Timestamp};
use rusqlite::params;

use super::{
    connection::Connection,
    due::insert_due,
    ordered,
    rows::{Column, agent_key, execute, signed},
    settle_rows,
};
use crate::{
    model::{DeliveryState, DestinationKey, Followers, Next, Settled, Settlement},
    store::{Result, postgres::bulk},
};

/// What is found and recorded is so for many at once. What waits for another attempt, and what others wait for, is
/// done one by one.
pub(super) fn settle(connection: &Connection, settlement: &Settlement) -> Result<Vec<Settled>> {
    let agent = agent_key(connection, &settlement.agent)?;
    let outcomes = &settlement.outcomes;
    let found = match connection {
        Connection::Sqlite(_) => settle_rows::find(connection, agent, outcomes)?,
        Connection::Postgres(session) => {
            let leases: Vec<LeaseId> = outcomes.iter().map(lease).collect();
            bulk::find(session, agent, &leases)?
        }
    };
    let mut seen = HashSet::with_capacity(outcomes.len());
    let (mut together, mut decided) = (Vec::new(), Vec::new());
    for (outcome, found) in outcomes.iter().zip(found) {
        // The second of two words on one lease comes too late.
        let found = found.filter(|_| seen.insert(outcome.delivery));
        let Some(found) = found else {
            decided.push(None);
            continue;
        };
        let next = (settlement.decide)(&found.snapshot, outcome);
        together.push(bulk::Settled {
            outcome,
            number: (!matches!(next, Next::Again(_))).then_some(found.attempt_count + 1),
            state: match next {
                Next::Delivered => Some(DeliveryState::Delivered),
                Next::DeadLetter => Some(DeliveryState::DeadLetter),
                Next::Retry(_) | Next::Again(_) | Next::Hold(_) => None,
            },
        });
        decided.push(Some((outcome, found, next)));
    }
    let now = settlement.now;
    let name = settlement.agent.id().as_str();
    match connection {
        Connection::Sqlite(_) => settle_rows::write(connection, name, &together, now)?,
        Connection::Postgres(session) => bulk::settle(session, name, &together, now)?,
    }
    let decided = decided.into_iter().map(|decided| match decided {
        None => Ok(Settled::Stale),
        Some((outcome, found, next)) => {
            let held_since = found.snapshot.held_since;
            wait_if_it_does(
                connection,
                outcome,
                found.destination,
                next,
                (held_since, now),
            )?;
            let key = found.ordering_key.as_deref();
            Ok(Settled::Applied {
                destination: DestinationKey(found.destination),
                payload_size: found.payload_size,
                next,
                followers: follow(connection, outcome, found.destination, key, next, now)?,
            })
        }
    });
    decided.collect()
}

fn lease(outcome: &Outcome) -> LeaseId {
    LeaseId {
        delivery: outcome.delivery,
        epoch: outcome.epoch,
    }
}

/// What becomes of those that wait behind it in order.
fn follow(
    connection: &Connection,
    outcome: &Outcome,
    destination: i64,
    ordering_key: Option<&str>,
    next: Next,
    now: Timestamp,
) -> Result<Followers> {
    let (Some(key), Next::Delivered | Next::DeadLetter) = (ordering_key, next) else {
        return Ok(Followers::None);
    };
    let delivered = next == Next::Delivered;
    ordered::settled(
        connection,
        destination,
        key,
        outcome.delivery,
        delivered,
        now,
    )
}

/// A delivery that is not settled waits for its next attempt.
fn wait_if_it_does(
    connection: &Connection,
    outcome: &Outcome,
    destination: i64,
    next: Next,
    (held_since, now): (Option<Timestamp>, Timestamp),
) -> Result<()> {
    let (Next::Retry(at) | Next::Again(at) | Next::Hold(at)) = next else {
        return Ok(());
    };
    let held_since = match next {
        Next::Hold(_) => Some(held_since.unwrap_or(now)),
        Next::Again(_) => held_since,
        _ => None,
    };
    wait(connection, outcome, next, at, held_since)?;
    insert_due(connection, destination, at, outcome.delivery)
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
