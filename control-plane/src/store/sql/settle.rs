//! Settling: an outcome becomes an attempt and the delivery's next state, in one transaction, if its
//! lease is still the newest and the agent's own.

use countersign_shared::{class::FailureClass, outcome::Outcome, time::Timestamp, wire};
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
    store::Result,
};

pub(super) fn settle(connection: &Connection, settlement: &Settlement) -> Result<Vec<Settled>> {
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
            Next::Retry(at) | Next::Again(at) | Next::Hold(at) => {
                let held_since = match next {
                    Next::Hold(_) => Some(leased.snapshot.held_since.unwrap_or(now)),
                    Next::Again(_) => leased.snapshot.held_since,
                    _ => None,
                };
                wait(self.connection, outcome, next, at, held_since)?;
                insert_due(self.connection, leased.destination, at, outcome.delivery)?;
            }
        }
        Ok(Settled::Applied {
            destination: DestinationKey(leased.destination),
            payload_size: leased.payload_size,
            next,
            followers: self.follow(outcome, &leased, next)?,
        })
    }

    /// What becomes of those that wait behind it in order.
    fn follow(&self, outcome: &Outcome, leased: &Leased, next: Next) -> Result<Followers> {
        let (Some(key), Next::Delivered | Next::DeadLetter) = (&leased.ordering_key, next) else {
            return Ok(Followers::None);
        };
        let delivered = next == Next::Delivered;
        let (id, now) = (outcome.delivery, self.settlement.now);
        ordered::settled(self.connection, leased.destination, key, id, delivered, now)
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
