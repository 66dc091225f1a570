//! What a store does with deliveries, and looking at them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use countersign_proto::v1;
use countersign_shared::{
    job::LeaseId,
    name::{AccountName, AgentName, DeliveryId, DestinationName, Id},
    time::Timestamp,
    wire,
};
use prost::Message as _;
use rusqlite::params;

use super::{
    Database, arrivals, backlog,
    connection::{Connection, Row},
    leases, ordered, retention, revive,
    rows::{Column, account_key, destination_keys, get, get_optional, limit, one, page},
    settle, submit,
    writer::Lane,
};
use crate::{
    config::Keep,
    model::{
        Attempt, Cancelled, DeadLetter, Delivery, DeliveryFilter, DestinationKey, Due, Grant,
        LeaseFacts, Leased, Load, NewDelivery, Page, ReplayFilter, Retried, Settled, Settlement,
    },
    store::{DeliveryStore, RemoveBefore, Result, StoreError},
};

#[async_trait]
impl<D: Database> DeliveryStore for D {
    async fn has_dead_letters(&self, destination: DestinationKey) -> Result<bool> {
        self.read(move |connection| revive::any_dead_letter(connection, destination))
            .await
    }

    async fn submit_all(&self, new: Vec<NewDelivery>) -> Result<Vec<Result<Delivery>>> {
        let weight = new.iter().map(weight).sum();
        let work = move |connection: &Connection| submit::submit_all(connection, new);
        self.run(Lane::Checked(weight), work).await
    }

    async fn due(&self) -> Result<Vec<Due>> {
        self.read_waiting(leases::due).await
    }

    async fn backlogged(&self) -> Result<Vec<(DestinationKey, DestinationName)>> {
        self.read_waiting(backlog::backlogged).await
    }

    async fn backlog(&self, destination: DestinationKey) -> Result<Load> {
        // Counting rows can take long and is no work for a writer. What is leased between the two looks counts twice,
        // until the next count.
        let arrived =
            self.read_waiting(move |connection| arrivals::backlog(connection, destination));
        let mut load = arrived.await?;
        let rows = self.read(move |connection| backlog::of(connection, destination));
        load += rows.await?;
        Ok(load)
    }

    async fn due_of(&self, destination: DestinationKey) -> Result<Option<Timestamp>> {
        self.read_waiting(move |connection| leases::due_of(connection, destination))
            .await
    }

    async fn lease(&self, grants: Vec<Grant>, now: Timestamp) -> Result<Leased> {
        let first_end = Arc::clone(self.first_end());
        let granted = grants.iter().map(|grant| grant.limit).sum();
        let lease =
            move |connection: &Connection| leases::lease(connection, &grants, now, &first_end);
        let leased = self.write_urgent(granted, lease).await;
        if leased.is_err() {
            self.first_end().forget();
        }
        leased
    }

    async fn extend(
        &self,
        agent: &AgentName,
        leases: Vec<LeaseId>,
        usual: Duration,
        now: Timestamp,
    ) -> Result<Vec<(LeaseId, Duration)>> {
        let (agent, count) = (agent.clone(), leases.len());
        let extend =
            move |connection: &Connection| leases::extend(connection, &agent, leases, usual, now);
        self.write_urgent(count, extend).await
    }

    async fn release_all_but(
        &self,
        agent: &AgentName,
        held: HashSet<LeaseId>,
        now: Timestamp,
    ) -> Result<Vec<DestinationKey>> {
        let agent = agent.clone();
        let release =
            move |connection: &Connection| leases::release_all_but(connection, &agent, &held, now);
        self.write_urgent(1, release).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Vec<Settled>> {
        let count = settlement.outcomes.len();
        let settle = move |connection: &Connection| settle::settle(connection, &settlement);
        self.write_urgent(count, settle).await
    }

    async fn lease_facts(&self, delivery: DeliveryId) -> Result<Option<LeaseFacts>> {
        self.read(move |connection| leases::facts(connection, delivery))
            .await
    }

    async fn retry(
        &self,
        account: &AccountName,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<Retried> {
        let account = account.clone();
        self.write(move |connection| {
            let delivery = read_delivery(connection, &account, id)?;
            revive::retry(connection, &delivery, now)?;
            Ok(Retried {
                revived: delivery.state.is_settled(),
                delivery: read_delivery(connection, &account, id)?,
            })
        })
        .await
    }

    async fn release_held(
        &self,
        destination: DestinationKey,
        now: Timestamp,
        size: usize,
    ) -> Result<usize> {
        // Most looks find nothing: they cost no commit.
        let find = move |connection: &Connection| revive::held(connection, destination, now, 1);
        if self.read(find).await?.is_empty() {
            return Ok(0);
        }
        self.write(move |connection| revive::release_held(connection, destination, now, size))
            .await
    }

    async fn cancel(
        &self,
        account: &AccountName,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<Cancelled> {
        let account = account.clone();
        self.write(move |connection| {
            let delivery = read_delivery(connection, &account, id)?;
            revive::cancel(connection, &delivery, now)?;
            Ok(Cancelled {
                was_settled: delivery.state.is_settled(),
                delivery: read_delivery(connection, &account, id)?,
            })
        })
        .await
    }

    async fn with_blocked_keys(&self) -> Result<Vec<DestinationKey>> {
        self.read(ordered::blocked).await
    }

    async fn replay(
        &self,
        account: &AccountName,
        filter: &ReplayFilter,
        dry_run: bool,
        size: usize,
        now: Timestamp,
    ) -> Result<Page<DeadLetter>> {
        let (account, filter) = (account.clone(), filter.clone());
        if dry_run {
            let find = move |connection: &Connection| {
                let found = revive::dead_letters(connection, &account, &filter, size)?;
                Ok(revive::without_ids(&found))
            };
            return self.read(find).await;
        }
        self.write(move |connection| revive::replay(connection, &account, &filter, size, now))
            .await
    }

    async fn remove_pieces(
        &self,
        keep: Keep,
        before: RemoveBefore,
        now: Timestamp,
    ) -> Result<RemoveBefore> {
        if !D::HAS_PIECES {
            return Ok(before);
        }
        self.write(move |connection| retention::remove_pieces(connection, keep, before, now))
            .await
    }

    async fn erase_payloads(
        &self,
        before: Timestamp,
        after: Option<DeliveryId>,
        size: usize,
    ) -> Result<Option<DeliveryId>> {
        let find =
            move |connection: &Connection| retention::with_payload(connection, before, after, size);
        let found = self.read(find).await?;
        let last = found.last;
        if !found.settled.is_empty() {
            self.write(move |connection| retention::erase(connection, &found.settled))
                .await?;
        }
        Ok(last)
    }

    async fn remove_deliveries(
        &self,
        before: Timestamp,
        after: Option<DeliveryId>,
        size: usize,
    ) -> Result<Option<DeliveryId>> {
        let find =
            move |connection: &Connection| retention::all_of(connection, before, after, size);
        let found = self.read(find).await?;
        let last = found.last;
        if !found.settled.is_empty() {
            self.write(move |connection| retention::remove(connection, &found.settled))
                .await?;
        }
        Ok(last)
    }

    async fn forget_requests(&self, before: Timestamp, size: usize) -> Result<bool> {
        // Most looks find nothing: they cost no commit.
        if !self
            .read(move |connection| retention::any_request(connection, before))
            .await?
        {
            return Ok(false);
        }
        self.write(move |connection| retention::forget_requests(connection, before, size))
            .await
    }

    async fn delivery(&self, account: &AccountName, id: DeliveryId) -> Result<Delivery> {
        let account = account.clone();
        self.read(move |connection| read_delivery(connection, &account, id))
            .await
    }

    async fn deliveries(
        &self,
        account: &AccountName,
        filter: &DeliveryFilter,
        before: Option<DeliveryId>,
        size: usize,
    ) -> Result<Page<Delivery>> {
        let (account, filter) = (account.clone(), filter.clone());
        self.read(move |connection| list(connection, &account, &filter, before, size))
            .await
    }

    async fn attempts(
        &self,
        account: &AccountName,
        id: DeliveryId,
        after: u32,
        size: usize,
    ) -> Result<Page<Attempt>> {
        let account = account.clone();
        self.read(move |connection| {
            read_delivery(connection, &account, id)?;
            let query = "SELECT number, agent, record FROM attempts
                         WHERE delivery = ? AND number > ? ORDER BY number LIMIT ?";
            let found = page(
                connection,
                query,
                params![Column(id), after, limit(size)],
                size,
                |row| Ok((row.get(0)?, get::<Id>(row, "agent")?, row.get(2)?)),
            )?;
            let items = found
                .items
                .into_iter()
                .map(attempt)
                .collect::<Result<_>>()?;
            Ok(Page {
                items,
                more: found.more,
            })
        })
        .await
    }
}

/// A delivery's own row does not tell that it is leased.
const STATE: &str = "CASE WHEN l.id IS NULL THEN v.state ELSE 2 END";

/// The first of its ordering key's queue, if that is another.
const WAITS_FOR: &str = "CASE WHEN v.ordering_key IS NOT NULL AND v.due_at IS NULL AND v.state = 1
    THEN (SELECT o.id FROM ordered o WHERE o.destination = v.destination
          AND o.ordering_key = v.ordering_key ORDER BY o.sequence LIMIT 1) END";

fn deliveries_where(condition: &str) -> String {
    format!(
        "SELECT v.id, v.destination, v.payload_size, v.content_type, v.event_type,
         v.attempt_count, v.last_class, v.accepted_at, v.settled_at, v.held_since, v.ordering_key,
         {WAITS_FOR} AS waits_for,
         {STATE} AS state, coalesce(l.until, v.due_at) AS due_at,
         d.id AS destination_id, a.id AS account_id
         FROM deliveries v JOIN destinations d ON d.key = v.destination
         JOIN accounts a ON a.key = v.account LEFT JOIN leases l ON l.id = v.id
         WHERE {condition}"
    )
}

pub(super) fn by_id_text(connection: &Connection, id: &str) -> Result<Delivery> {
    let gone = || StoreError::NotFound(format!("the delivery {id} of an earlier request"));
    let parsed: DeliveryId = id.parse().map_err(|_| gone())?;
    let query = deliveries_where("v.id = ?");
    one(connection, &query, [Column(parsed)], delivery)?.ok_or_else(gone)
}

/// How much of a batch a submission makes up: one for each 4 KiB of payload begun.
fn weight(new: &NewDelivery) -> usize {
    new.sealed_payload.len() / 4096 + 1
}

fn read_delivery(
    connection: &Connection,
    account: &AccountName,
    id: DeliveryId,
) -> Result<Delivery> {
    let query = deliveries_where("v.id = ? AND a.id = ?");
    one(
        connection,
        &query,
        params![Column(id), account.id().as_str()],
        delivery,
    )?
    .ok_or_else(|| StoreError::NotFound(format!("{account}/deliveries/{id}")))
}

fn list(
    connection: &Connection,
    account: &AccountName,
    filter: &DeliveryFilter,
    before: Option<DeliveryId>,
    size: usize,
) -> Result<Page<Delivery>> {
    let account = account_key(connection, account)?;
    let destination = match &filter.destination {
        Some(name) => Some(destination_keys(connection, name)?.0),
        None => None,
    };
    let query = deliveries_where(&format!(
        "v.account = ?1 AND v.id < ?2 AND (CAST(?3 AS BIGINT) IS NULL OR {STATE} = ?3)
         AND (CAST(?4 AS BIGINT) IS NULL OR v.destination = ?4) ORDER BY v.id DESC LIMIT ?5"
    ));
    // Larger than every UUID of version 7 in the next thousand years.
    let last = DeliveryId::from_slice(&[0xff; 16]);
    let before = before.or(last).map(Column);
    let state = filter.state.map(Column);
    let wanted = params![account, before, state, destination, limit(size)];
    page(connection, &query, wanted, size, delivery)
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let account: Id = get(row, "account_id")?;
    Ok(Delivery {
        id: get(row, "id")?,
        destination: DestinationName::new(&account, &get(row, "destination_id")?),
        destination_key: DestinationKey(row.get("destination")?),
        state: get(row, "state")?,
        payload_size: row.get("payload_size")?,
        content_type: row.get("content_type")?,
        event_type: row.get("event_type")?,
        attempt_count: row.get("attempt_count")?,
        last_class: get_optional(row, "last_class")?,
        accepted_at: get(row, "accepted_at")?,
        due_at: get_optional(row, "due_at")?,
        settled_at: get_optional(row, "settled_at")?,
        held_since: get_optional(row, "held_since")?,
        ordering_key: row.get("ordering_key")?,
        waits_for: get_optional(row, "waits_for")?,
    })
}

fn attempt((number, agent, record): (u32, Id, Vec<u8>)) -> Result<Attempt> {
    let unreadable = |error: String| StoreError::Corrupt(format!("attempt {number}: {error}"));
    let record =
        v1::Outcome::decode(record.as_slice()).map_err(|error| unreadable(error.to_string()))?;
    Ok(Attempt {
        number,
        agent: agent.into(),
        outcome: wire::outcome_from_wire(record).map_err(|error| unreadable(error.to_string()))?,
    })
}
