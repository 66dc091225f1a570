//! Accepting deliveries, several in a row.

use std::collections::HashMap;

use countersign_shared::{
    name::{DeliveryId, DestinationName},
    time::Timestamp,
};
use rusqlite::ToSql;

use super::{
    arrivals::{self, Arrived},
    connection::Connection,
    deliveries::by_id_text,
    installation, many, ordered,
    rows::{Column, DESTINATION_KEYS, Statement, destination_keys_with},
};
use crate::{
    model::{Delivery, DeliveryState, DestinationKey, NewDelivery},
    store::{Result, StoreError, postgres::bulk},
};

/// Each answer stands for itself, but a database that fails has failed for all.
pub(super) fn submit_all(
    connection: &Connection,
    new: Vec<NewDelivery>,
) -> Result<Vec<Result<Delivery>>> {
    if let Connection::Postgres(session) = connection {
        return bulk::submit(session, new, |new| submit(connection, new));
    }
    let mut submitting = Submitting::new(connection)?;
    for new in new {
        submitting.add(new)?;
    }
    submitting.end()
}

/// One alone.
fn submit(connection: &Connection, new: NewDelivery) -> Result<Result<Delivery>> {
    let mut submitting = Submitting::new(connection)?;
    submitting.add(new)?;
    let answer = submitting.end()?.pop();
    answer.ok_or_else(|| StoreError::Corrupt("a submission without an answer".to_owned()))
}

fn answer<T>(submitted: Result<T>) -> Result<Result<T>> {
    match submitted {
        Err(error @ (StoreError::Unavailable(_) | StoreError::Corrupt(_))) => Err(error),
        answer => Ok(answer),
    }
}

/// Submissions that are looked at one by one and written together.
struct Submitting<'a> {
    connection: &'a Connection,
    find: Statement<'a>,
    /// The handles of destinations that were found: under one transaction they stay what they are.
    found: HashMap<DestinationName, (i64, i64)>,
    answers: Vec<Result<Delivery>>,
    /// What is to be written of those that were accepted.
    accepted: Vec<Accepted>,
}

struct Accepted {
    /// Which of the answers it is.
    answer: usize,
    account: i64,
    sealed_payload: Vec<u8>,
}

impl<'a> Submitting<'a> {
    fn new(connection: &'a Connection) -> Result<Self> {
        Ok(Self {
            connection,
            find: Statement::new(connection, DESTINATION_KEYS)?,
            found: HashMap::new(),
            answers: Vec::new(),
            accepted: Vec::new(),
        })
    }

    fn add(&mut self, new: NewDelivery) -> Result<()> {
        let added = self.accept(new);
        self.answers.push(answer(added)?);
        Ok(())
    }

    fn accept(&mut self, new: NewDelivery) -> Result<Delivery> {
        let (destination, account) = self.destination_keys(&new.destination)?;
        if let Some(id) = installation::replayed(self.connection, new.request.as_ref())? {
            // It may be one of those.
            self.write()?;
            return by_id_text(self.connection, &id);
        }
        let waits_for = match &new.ordering_key {
            Some(key) => ordered::join(self.connection, destination, key, new.id)?,
            None => None,
        };
        if new.request.is_some() {
            let id = new.id.to_string();
            let request = new.request.as_ref();
            installation::remember(self.connection, request, &id, new.accepted_at)?;
        }
        self.accepted.push(Accepted {
            answer: self.answers.len(),
            account,
            sealed_payload: new.sealed_payload,
        });
        Ok(Delivery {
            id: new.id,
            destination: new.destination,
            destination_key: DestinationKey(destination),
            state: DeliveryState::Pending,
            payload_size: new.payload_size,
            content_type: new.content_type,
            event_type: new.event_type,
            attempt_count: 0,
            last_class: None,
            accepted_at: new.accepted_at,
            due_at: waits_for.is_none().then_some(new.accepted_at),
            settled_at: None,
            held_since: None,
            ordering_key: new.ordering_key,
            waits_for,
        })
    }

    fn destination_keys(&mut self, name: &DestinationName) -> Result<(i64, i64)> {
        if let Some(keys) = self.found.get(name) {
            return Ok(*keys);
        }
        let keys = destination_keys_with(&mut self.find, name)?;
        self.found.insert(name.clone(), keys);
        Ok(keys)
    }

    fn end(mut self) -> Result<Vec<Result<Delivery>>> {
        self.write()?;
        Ok(self.answers)
    }

    /// Writes what was accepted and is not written yet.
    fn write(&mut self) -> Result<()> {
        let accepted = std::mem::take(&mut self.accepted);
        let rows = accepted.iter().filter_map(|accepted| {
            let delivery = self.answers.get(accepted.answer)?.as_ref().ok()?;
            Some(Row::new(delivery, accepted))
        });
        let rows: Vec<Row<'_>> = rows.collect();
        let deliveries: Vec<_> = rows.iter().map(Row::delivery).collect();
        let payloads: Vec<_> = rows.iter().map(Row::payload).collect();
        let arrived: Vec<_> = rows.iter().filter_map(Row::arrived).collect();
        let into =
            "deliveries (id, account, destination, state, payload_size, content_type, event_type,
                    accepted_at, due_at, ordering_key)";
        many::insert(self.connection, into, &deliveries)?;
        many::insert(self.connection, "payloads (id, sealed)", &payloads)?;
        arrivals::accept(self.connection, &arrived)
    }
}

/// A delivery as its columns have it.
struct Row<'a> {
    id: Column<DeliveryId>,
    account: i64,
    destination: i64,
    state: Column<DeliveryState>,
    accepted_at: Column<Timestamp>,
    due_at: Option<Column<Timestamp>>,
    delivery: &'a Delivery,
    sealed_payload: &'a Vec<u8>,
}

impl<'a> Row<'a> {
    fn new(delivery: &'a Delivery, accepted: &'a Accepted) -> Self {
        Self {
            id: Column(delivery.id),
            account: accepted.account,
            destination: delivery.destination_key.0,
            state: Column(delivery.state),
            accepted_at: Column(delivery.accepted_at),
            due_at: delivery.due_at.map(Column),
            delivery,
            sealed_payload: &accepted.sealed_payload,
        }
    }

    fn delivery(&self) -> [&dyn ToSql; 10] {
        [
            &self.id,
            &self.account,
            &self.destination,
            &self.state,
            &self.delivery.payload_size,
            &self.delivery.content_type,
            &self.delivery.event_type,
            &self.accepted_at,
            &self.due_at,
            &self.delivery.ordering_key,
        ]
    }

    fn payload(&self) -> [&dyn ToSql; 2] {
        [&self.id, self.sealed_payload]
    }

    /// Behind another of its ordering key it is not due.
    fn arrived(&self) -> Option<Arrived> {
        Some(Arrived {
            destination: self.delivery.destination_key,
            due_at: self.delivery.due_at?,
            id: self.delivery.id,
            payload_size: self.delivery.payload_size,
        })
    }
}
