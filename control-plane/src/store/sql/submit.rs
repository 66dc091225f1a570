//! Accepting deliveries, several in a row.

use rusqlite::params;

use super::{
    connection::Connection,
    deliveries::by_id_text,
    installation, ordered,
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
        return bulk::submit(session, new, |new| {
            answer(Statements::new(connection)?.submit(new))
        });
    }
    let mut statements = Statements::new(connection)?;
    let each = new.into_iter().map(|new| answer(statements.submit(new)));
    each.collect()
}

fn answer(submitted: Result<Delivery>) -> Result<Result<Delivery>> {
    match submitted {
        Err(error @ (StoreError::Unavailable(_) | StoreError::Corrupt(_))) => Err(error),
        answer => Ok(answer),
    }
}

struct Statements<'a> {
    connection: &'a Connection,
    find: Statement<'a>,
    delivery: Statement<'a>,
    payload: Statement<'a>,
    due: Statement<'a>,
}

impl<'a> Statements<'a> {
    fn new(connection: &'a Connection) -> Result<Self> {
        let delivery = "INSERT INTO deliveries (id, account, destination, state, payload_size,
                        content_type, event_type, accepted_at, due_at, ordering_key)
                        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let payload = "INSERT INTO payloads (id, sealed) VALUES (?, ?)";
        let due = "INSERT INTO due (destination, due_at, id) VALUES (?, ?, ?)";
        Ok(Self {
            connection,
            find: Statement::new(connection, DESTINATION_KEYS)?,
            delivery: Statement::new(connection, delivery)?,
            payload: Statement::new(connection, payload)?,
            due: Statement::new(connection, due)?,
        })
    }

    fn submit(&mut self, new: NewDelivery) -> Result<Delivery> {
        let (destination, account) = destination_keys_with(&mut self.find, &new.destination)?;
        if let Some(id) = installation::replayed(self.connection, new.request.as_ref())? {
            return by_id_text(self.connection, &id);
        }
        let waits_for = match &new.ordering_key {
            Some(key) => ordered::join(self.connection, destination, key, new.id)?,
            None => None,
        };
        let due_at = waits_for.is_none().then_some(new.accepted_at);
        self.delivery.execute(params![
            Column(new.id),
            account,
            destination,
            Column(DeliveryState::Pending),
            new.payload_size,
            new.content_type,
            new.event_type,
            Column(new.accepted_at),
            due_at.map(Column),
            new.ordering_key
        ])?;
        let payload = params![Column(new.id), new.sealed_payload];
        self.payload.execute(payload)?;
        if let Some(at) = due_at {
            let due = params![destination, Column(at), Column(new.id)];
            self.due.execute(due)?;
        }
        if new.request.is_some() {
            let id = new.id.to_string();
            let request = new.request.as_ref();
            installation::remember(self.connection, request, &id, new.accepted_at)?;
        }
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
            due_at,
            settled_at: None,
            held_since: None,
            ordering_key: new.ordering_key,
            waits_for,
        })
    }
}
