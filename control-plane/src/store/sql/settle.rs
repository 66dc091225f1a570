//! Settling: an outcome becomes an attempt and the delivery's next state, in one transaction, if its
//! lease is still the newest and the agent's own.

use std::collections::HashSet;

use countersign_shared::{class::FailureClass, job::LeaseId, outcome::Outcome, time::Timestamp};
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
    store::{
        Result,
        postgres::{bulk, session::Session},
    },
};

/// What is found and recorded is so for many at once. What waits for another attempt, and what others wait for, is
/// done one by one.
pub(super) fn settle(connection: &Connection, settlement: &Settlement) -> Result<Vec<Settled>> {
    let mut settling = Settling {
        connection,
        settlement,
        agent: agent_key(connection, &settlement.agent)?,
        answers: vec![Settled::Stale; settlement.outcomes.len()],
    };
    let mut seen = HashSet::with_capacity(settlement.outcomes.len());
    let outcomes = settlement.outcomes.iter().enumerate();
    // The second of two words on one lease comes too late.
    let outcomes = outcomes.filter(|(_, outcome)| seen.insert(lease(outcome)));
    let others: Vec<Placed<'_>> = match connection {
        Connection::Sqlite(..) => outcomes.collect(),
        Connection::Postgres(session) => {
            let (delivered, others): (Vec<_>, _) = outcomes.partition(|(_, it)| is_delivered(it));
            settling.deliver(session, &delivered)?;
            others
        }
    };
    settling.decide(&others)?;
    Ok(settling.answers)
}

fn lease(outcome: &Outcome) -> LeaseId {
    LeaseId {
        delivery: outcome.delivery,
        epoch: outcome.epoch,
    }
}

fn is_delivered(outcome: &Outcome) -> bool {
    outcome.class == FailureClass::Delivered
}

/// An outcome, and which of the settlement's it is.
type Placed<'a> = (usize, &'a Outcome);

struct Settling<'a> {
    connection: &'a Connection,
    settlement: &'a Settlement,
    /// Its handle.
    agent: i64,
    answers: Vec<Settled>,
}

impl Settling<'_> {
    /// Settles what was delivered: found, recorded and changed in one statement.
    fn deliver(&mut self, session: &Session, delivered: &[Placed<'_>]) -> Result<()> {
        let agent = (self.agent, self.settlement.agent.id().as_str());
        let outcomes: Vec<_> = delivered.iter().map(|(_, outcome)| *outcome).collect();
        let done = bulk::deliver(session, agent, &outcomes, self.settlement.now)?;
        for (placed, done) in delivered.iter().zip(done) {
            if let Some(done) = done {
                let key = done.ordering_key.as_deref();
                let of = (DestinationKey(done.destination), done.payload_size);
                self.applied(*placed, of, key, Next::Delivered)?;
            }
        }
        Ok(())
    }

    /// Settles what has to be looked at first.
    fn decide(&mut self, placed: &[Placed<'_>]) -> Result<()> {
        if placed.is_empty() {
            return Ok(());
        }
        let Settlement { now, decide, .. } = self.settlement;
        let outcomes: Vec<_> = placed.iter().map(|(_, outcome)| *outcome).collect();
        let found = match self.connection {
            Connection::Sqlite(..) => settle_rows::find(self.connection, self.agent, &outcomes)?,
            Connection::Postgres(session) => {
                let leases: Vec<LeaseId> = outcomes.iter().map(|it| lease(it)).collect();
                bulk::find(session, self.agent, &leases)?
            }
        };
        let (mut together, mut decided) = (Vec::new(), Vec::new());
        for ((place, outcome), found) in placed.iter().zip(found) {
            let Some(found) = found else { continue };
            let next = match is_delivered(outcome) {
                true => Next::Delivered,
                false => decide(&found.snapshot, outcome),
            };
            together.push(bulk::Settled {
                outcome,
                number: (!matches!(next, Next::Again(_))).then_some(found.attempt_count + 1),
                state: match next {
                    Next::Delivered => Some(DeliveryState::Delivered),
                    Next::DeadLetter => Some(DeliveryState::DeadLetter),
                    Next::Retry(_) | Next::Again(_) | Next::Hold(_) => None,
                },
            });
            decided.push(((*place, *outcome), found, next));
        }
        let agent = self.settlement.agent.id().as_str();
        match self.connection {
            Connection::Sqlite(..) => settle_rows::write(self.connection, agent, &together, *now)?,
            Connection::Postgres(session) => bulk::settle(session, agent, &together, *now)?,
        }
        for ((place, outcome), found, next) in decided {
            let held = (found.snapshot.held_since, *now);
            wait_if_it_does(self.connection, outcome, found.destination, next, held)?;
            let of = (DestinationKey(found.destination), found.payload_size);
            self.applied((place, outcome), of, found.ordering_key.as_deref(), next)?;
        }
        Ok(())
    }

    /// Notes an answer, once those that wait in order behind the delivery know.
    fn applied(
        &mut self,
        (place, outcome): Placed<'_>,
        (destination, payload_size): (DestinationKey, u32),
        ordering_key: Option<&str>,
        next: Next,
    ) -> Result<()> {
        let (connection, now) = (self.connection, self.settlement.now);
        let followers = follow(connection, outcome, destination.0, ordering_key, next, now)?;
        if let Some(answer) = self.answers.get_mut(place) {
            *answer = Settled::Applied {
                destination,
                payload_size,
                next,
                followers,
            };
        }
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
