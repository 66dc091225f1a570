//! Settling: an outcome becomes an attempt and the delivery's next state, in one transaction, if its
//! lease is still the newest and the agent's own.

use std::collections::HashSet;

use countersign_shared::{
    class::FailureClass, job::LeaseId, outcome::Outcome, time::Timestamp, wire,
};
use prost::Message as _;
use rusqlite::params;

use super::{
    connection::Connection,
    due::insert_due,
    leases::DELETE_LEASE,
    ordered,
    rows::{Column, Statement, agent_key, execute, get, get_optional, one, signed},
    tenants::retry_policy,
};
use crate::{
    model::{
        DeliveryState, DestinationKey, Followers, Next, RetryPolicy, Settled, Settlement, Snapshot,
    },
    store::{
        Result,
        postgres::{bulk, session::Session},
    },
};

pub(super) fn settle(connection: &Connection, settlement: &Settlement) -> Result<Vec<Settled>> {
    if let Connection::Postgres(session) = connection {
        return settle_together(connection, session, settlement);
    }
    let mut settling = Settling {
        connection,
        agent: agent_key(connection, &settlement.agent)?,
        settlement,
        find: Statement::new(connection, FIND)?,
        delete_lease: Statement::new(connection, DELETE_LEASE)?,
        record: Statement::new(connection, RECORD)?,
        finish: Statement::new(connection, FINISH)?,
    };
    let outcomes = settlement.outcomes.iter();
    outcomes.map(|outcome| settling.settle(outcome)).collect()
}

/// As [`settle`], with all that is found and recorded in one statement each. What waits for another
/// attempt, and what others wait for, is done one by one.
fn settle_together(
    connection: &Connection,
    session: &Session,
    settlement: &Settlement,
) -> Result<Vec<Settled>> {
    let agent = agent_key(connection, &settlement.agent)?;
    let outcomes = &settlement.outcomes;
    let lease = |outcome: &Outcome| LeaseId {
        delivery: outcome.delivery,
        epoch: outcome.epoch,
    };
    let leases: Vec<LeaseId> = outcomes.iter().map(lease).collect();
    let found = bulk::find(session, agent, &leases)?;
    let mut seen = HashSet::with_capacity(leases.len());
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
    bulk::settle(session, settlement.agent.id().as_str(), &together, now)?;
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

const FIND: &str = "SELECT v.destination, v.payload_size, v.attempt_count, v.earlier_count,
    v.accepted_at, v.held_since, v.ordering_key FROM leases l JOIN deliveries v ON v.id = l.id
    WHERE l.id = ? AND l.epoch = ? AND l.agent = ?";
const RECORD: &str = "INSERT INTO attempts (delivery, number, agent, record) VALUES (?, ?, ?, ?)";
const FINISH: &str = "UPDATE deliveries SET state = ?, epoch = ?, due_at = NULL, last_class = ?,
    attempt_count = attempt_count + 1, settled_at = ?, held_since = NULL WHERE id = ?";

/// A settlement under way.
struct Settling<'a> {
    connection: &'a Connection,
    agent: i64,
    settlement: &'a Settlement,
    find: Statement<'a>,
    delete_lease: Statement<'a>,
    record: Statement<'a>,
    finish: Statement<'a>,
}

/// The leased delivery that an outcome is about.
struct Leased {
    destination: i64,
    payload_size: u32,
    attempt_count: u32,
    ordering_key: Option<String>,
    snapshot: Snapshot,
}

impl Settling<'_> {
    fn settle(&mut self, outcome: &Outcome) -> Result<Settled> {
        let Some(mut leased) = self.find(outcome)? else {
            return Ok(Settled::Stale);
        };
        if outcome.class != FailureClass::Delivered {
            leased.snapshot.retry = self.retry_policy(leased.destination)?;
        }
        let now = self.settlement.now;
        let next = (self.settlement.decide)(&leased.snapshot, outcome);
        self.delete_lease.execute([Column(outcome.delivery)])?;
        if !matches!(next, Next::Again(_)) {
            self.record(outcome, leased.attempt_count + 1)?;
        }
        match next {
            Next::Delivered => self.finish(outcome, DeliveryState::Delivered)?,
            Next::DeadLetter => self.finish(outcome, DeliveryState::DeadLetter)?,
            Next::Retry(_) | Next::Again(_) | Next::Hold(_) => {
                let (destination, held_since) = (leased.destination, leased.snapshot.held_since);
                let since = (held_since, now);
                wait_if_it_does(self.connection, outcome, destination, next, since)?;
            }
        }
        Ok(Settled::Applied {
            destination: DestinationKey(leased.destination),
            payload_size: leased.payload_size,
            next,
            followers: {
                let key = leased.ordering_key.as_deref();
                follow(self.connection, outcome, leased.destination, key, next, now)?
            },
        })
    }

    fn find(&mut self, outcome: &Outcome) -> Result<Option<Leased>> {
        let epoch = signed(outcome.epoch);
        let wanted = params![Column(outcome.delivery), epoch, self.agent];
        self.find.one(wanted, |row| {
            let attempt_count: u32 = row.get(2)?;
            Ok(Leased {
                destination: row.get(0)?,
                payload_size: row.get(1)?,
                attempt_count,
                ordering_key: row.get(6)?,
                snapshot: Snapshot {
                    attempt_count: attempt_count.saturating_sub(row.get(3)?),
                    accepted_at: get(row, "accepted_at")?,
                    held_since: get_optional(row, "held_since")?,
                    retry: RetryPolicy::default(),
                },
            })
        })
    }

    fn retry_policy(&self, destination: i64) -> Result<RetryPolicy> {
        let query = "SELECT retry_waits, retry_deadline FROM destinations WHERE key = ?";
        let found = one(self.connection, query, [destination], retry_policy)?;
        Ok(found.unwrap_or_default())
    }

    fn record(&mut self, outcome: &Outcome, number: u32) -> Result<()> {
        self.record.execute(params![
            Column(outcome.delivery),
            number,
            self.settlement.agent.id().as_str(),
            wire::outcome_to_wire(outcome).encode_to_vec()
        ])?;
        Ok(())
    }

    fn finish(&mut self, outcome: &Outcome, state: DeliveryState) -> Result<()> {
        self.finish.execute(params![
            Column(state),
            signed(outcome.epoch),
            Column(outcome.class),
            Column(self.settlement.now),
            Column(outcome.delivery)
        ])?;
        Ok(())
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
