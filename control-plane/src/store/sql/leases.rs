//! Leases: who may attempt what, until when. A delivery that is not settled has arrived ([`arrivals`]), or has a row
//! in `due`, by when it can next be leased, or one in `leases`, or waits behind another of its ordering key
//! (`ordered`).
//!
//! A lease that nobody ends is found by looking through `leases`, which is small, and seldom: the store
//! remembers a time before which none can end.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use countersign_shared::{
    job::LeaseId,
    name::{AgentName, DeliveryId, Id},
    time::Timestamp,
};
use rusqlite::{ToSql, params};

use super::{
    arrivals::{self, Place},
    connection::{Connection, Dialect, Row},
    due::{delete_due, insert_due},
    many::{self, groups, placeholders},
    ordered,
    rows::{Column, Statement, agent_key, all, execute, get, get_optional, limit, one, signed},
};
use crate::{
    model::{
        DeliveryState, DestinationKey, DestinationState, Due, Grant, LeaseFacts, Leased, SealedJob,
    },
    store::{
        Result, StoreError,
        postgres::{bulk, session::Session},
    },
};

/// A time before which no lease ends, for all that is known: at first nothing is.
#[derive(Debug)]
pub(in crate::store) struct FirstEnd {
    at: AtomicI64,
    /// How often to look although no lease is known to have ended: others give some too. `None`: nobody
    /// does.
    look: Option<Duration>,
}

impl Default for FirstEnd {
    fn default() -> Self {
        Self {
            at: AtomicI64::new(i64::MIN),
            look: None,
        }
    }
}

impl FirstEnd {
    /// Where others give leases too.
    pub(in crate::store) fn shared(look: Duration) -> Self {
        Self {
            look: Some(look),
            ..Self::default()
        }
    }

    fn may_have_come(&self, now: Timestamp) -> bool {
        self.at.load(Ordering::Relaxed) <= now.as_unix_micros()
    }

    /// A lease was given until then.
    fn given(&self, until: Timestamp) {
        self.at.fetch_min(until.as_unix_micros(), Ordering::Relaxed);
    }

    /// All were looked at, at `now`; the first of them ends then.
    fn looked(&self, now: Timestamp, first: Option<Timestamp>) {
        let again = self.look.map(|look| now.plus(look));
        let first = [first, again].into_iter().flatten().min();
        let first = first.map_or(i64::MAX, Timestamp::as_unix_micros);
        self.at.store(first, Ordering::Relaxed);
    }

    /// What was done last was taken back.
    pub(super) fn forget(&self) {
        self.at.store(i64::MIN, Ordering::Relaxed);
    }
}

/// Every destination with unsettled deliveries that is enabled and has a client certificate.
pub(super) fn due(connection: &Connection) -> Result<Vec<Due>> {
    let query = "SELECT key, (SELECT min(due_at) FROM due WHERE destination = key) AS at, until
                 FROM destinations
                 LEFT JOIN (SELECT destination, min(until) AS until FROM leases
                            GROUP BY destination) leased ON destination = key
                 WHERE state = ? AND active_certificate > 0";
    let enabled = [Column(DestinationState::Enabled)];
    let found = all(connection, query, enabled, |row| {
        Ok((DestinationKey(row.get("key")?), first(row)?))
    })?;
    let mut all = Vec::with_capacity(found.len());
    for (destination, at) in found {
        let arrived = arrivals::first_at(connection, destination)?;
        let at = [at, arrived].into_iter().flatten().min();
        all.extend(at.map(|at| Due { destination, at }));
    }
    Ok(all)
}

/// When the first delivery of a destination is due that is enabled and has a client certificate.
pub(super) fn due_of(
    connection: &Connection,
    destination: DestinationKey,
) -> Result<Option<Timestamp>> {
    if !is_open(connection, destination)? {
        return Ok(None);
    }
    let query = "SELECT (SELECT min(due_at) FROM due WHERE destination = ?1) AS at,
                 (SELECT min(until) FROM leases WHERE destination = ?1) AS until";
    let at = one(connection, query, [destination.0], first)?.flatten();
    let arrived = arrivals::first_at(connection, destination)?;
    Ok([at, arrived].into_iter().flatten().min())
}

/// The earlier of the columns `at` and `until`.
fn first(row: &Row<'_>) -> rusqlite::Result<Option<Timestamp>> {
    let (at, until) = (get_optional(row, "at")?, get_optional(row, "until")?);
    Ok([at, until].into_iter().flatten().min())
}

/// Whether a destination is enabled and has a client certificate.
fn is_open(connection: &Connection, destination: DestinationKey) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM destinations
                                WHERE key = ? AND state = ? AND active_certificate > 0)";
    let wanted = params![destination.0, Column(DestinationState::Enabled)];
    Ok(one(connection, query, wanted, |row| row.get(0))?.unwrap_or(false))
}

pub(super) fn lease(
    connection: &Connection,
    grants: &[Grant],
    now: Timestamp,
    first_end: &FirstEnd,
) -> Result<Leased> {
    let Leased {
        mut jobs,
        mut next,
        mut expired,
    } = Leased::default();
    let granted = look_up(connection, grants)?;
    if first_end.may_have_come(now) {
        first_end.looked(now, end_expired(connection, now)?);
    }
    if let Connection::Postgres(session) = connection {
        return lease_together(connection, session, &granted, now, first_end);
    }
    let mut leases = Vec::new();
    for Granted {
        grant,
        agent,
        limit,
    } in granted
    {
        // Disabled or gone since the grant was planned: nothing to lease, nothing due.
        if !is_open(connection, grant.destination)? {
            continue;
        }
        let (mut last, mut count) = (None, 0);
        let (mut at, mut again) = (None, false);
        let waiting = waiting(connection, grant)?;
        for (due_at, id) in waiting.first {
            if due_at > now || count == limit {
                at = Some(due_at);
                break;
            }
            let is_late = is_late(grant, id);
            // What is late and what is leased have each a look of their own: those behind a late one in order
            // are due as soon as it has gone.
            again |= is_late;
            match (is_late, again) {
                (true, _) if last.is_none() => {
                    let bytes = expire(connection, grant.destination, (due_at, id), now)?;
                    expired.push((grant.destination, bytes));
                }
                (false, false) => (last, count) = (Some((due_at, id)), count + 1),
                _ => break,
            }
        }
        let before = jobs.len();
        if let Some(last) = last {
            jobs.extend(take(connection, grant, last, waiting.has_rows)?);
        }
        let given = jobs.get(before..).unwrap_or_default();
        leases.extend(given.iter().map(|job| NewLease::new(job, agent, grant)));
        if !given.is_empty() {
            first_end.given(grant.until);
        }
        let at = match at {
            _ if again => Some(now),
            Some(at) => Some(at),
            None if !given.is_empty() => Some(grant.until),
            None => {
                // Another agent may have been given some of it just now.
                write(connection, &std::mem::take(&mut leases))?;
                due_of(connection, grant.destination)?
            }
        };
        next.extend(at.map(|at| Due {
            destination: grant.destination,
            at,
        }));
    }
    write(connection, &leases)?;
    Ok(Leased {
        jobs,
        next,
        expired,
    })
}

/// A grant, with what the store knows of its agent.
struct Granted<'a> {
    grant: &'a Grant,
    agent: i64,
    /// As granted; nothing for an agent that was taken out since the grant was planned.
    limit: usize,
}

fn look_up<'a>(connection: &Connection, grants: &'a [Grant]) -> Result<Vec<Granted<'a>>> {
    let mut agents = HashMap::new();
    let mut granted = Vec::with_capacity(grants.len());
    for grant in grants {
        let (agent, is_in) = match agents.get(&grant.agent) {
            Some(found) => *found,
            None => worker(connection, &grant.agent)?,
        };
        agents.insert(&grant.agent, (agent, is_in));
        let limit = if is_in { grant.limit } else { 0 };
        granted.push(Granted {
            grant,
            agent,
            limit,
        });
    }
    Ok(granted)
}

/// An agent, and whether it may be given anything: neither evicted nor suspended. Where others write at the same
/// time, it stays so until this transaction ends, so that whoever takes it out finds every lease of it.
fn worker(connection: &Connection, name: &AgentName) -> Result<(i64, bool)> {
    let query = match connection.dialect() {
        Dialect::Sqlite => {
            "SELECT key, evicted_at IS NULL AND suspended_at IS NULL FROM agents WHERE id = ?"
        }
        Dialect::Postgres => {
            "SELECT key, evicted_at IS NULL AND suspended_at IS NULL FROM agents WHERE id = ? FOR SHARE"
        }
    };
    let found = one(connection, query, [name.id().as_str()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    found.ok_or_else(|| StoreError::NotFound(name.to_string()))
}

/// As [`lease`], with all that is found and given in one statement each.
fn lease_together(
    connection: &Connection,
    session: &Session,
    granted: &[Granted<'_>],
    now: Timestamp,
    first_end: &FirstEnd,
) -> Result<Leased> {
    let mut wanted: HashMap<DestinationKey, usize> = HashMap::new();
    for Granted { grant, limit, .. } in granted {
        *wanted.entry(grant.destination).or_default() += limit;
    }
    let mut found = bulk::waiting(session, &wanted, now)?;
    let (mut leased, mut given) = (Leased::default(), Vec::new());
    // There may be more than was looked at, and those behind a late one in order are due now.
    let mut again = HashSet::new();
    for Granted {
        grant,
        agent,
        limit,
    } in granted
    {
        // Disabled or gone since the grant was planned: nothing to lease, nothing due.
        let Some(queue) = found.get_mut(&grant.destination) else {
            continue;
        };
        let mut taken = 0;
        while taken < *limit
            && let Some(next) = queue.take_if(|next| {
                let is_late = is_late(grant, next.id);
                next.due_at <= now && (is_late || !next.beyond)
            })
        {
            if is_late(grant, next.id) {
                let at = (next.due_at, next.id);
                let bytes = expire(connection, grant.destination, at, now)?;
                leased.expired.push((grant.destination, bytes));
                again.insert(grant.destination);
                continue;
            }
            let Some(job) = next.job else {
                tracing::error!(delivery = %next.id, "due without a payload; it is left out");
                delete_due(connection, grant.destination.0, next.due_at, next.id)?;
                continue;
            };
            let lease = LeaseId {
                delivery: next.id,
                epoch: job.epoch,
            };
            given.push(bulk::Given {
                lease,
                destination: grant.destination,
                place: next.place,
                agent: *agent,
                until: grant.until,
            });
            leased.jobs.push(SealedJob {
                lease,
                destination: grant.destination,
                agent: grant.agent.clone(),
                sealed_payload: job.sealed_payload,
                content_type: job.content_type,
                attempt_number: job.attempt_count + 1,
            });
            taken += 1;
        }
    }
    bulk::lease(session, &given)?;
    // When the first of each destination's leases ends.
    let mut ends: HashMap<DestinationKey, Timestamp> = HashMap::new();
    for given in &given {
        let end = ends.entry(given.destination).or_insert(given.until);
        *end = (*end).min(given.until);
        first_end.given(given.until);
    }
    for (destination, queue) in found {
        queue.remember(session, destination, now);
        let end = ends.get(&destination).copied();
        let at = match queue.waiting.front() {
            _ if again.contains(&destination) => Some(now),
            Some(next) => Some(next.due_at),
            None => match [end, queue.whole_at].into_iter().flatten().min() {
                Some(at) => Some(at),
                None => due_of(connection, destination)?,
            },
        };
        leased.next.extend(at.map(|at| Due { destination, at }));
    }
    Ok(leased)
}

/// Whether a delivery is past the deadline that a grant is under.
fn is_late(grant: &Grant, id: DeliveryId) -> bool {
    grant.accepted_from.is_some_and(|from| id < first_id(from))
}

/// The smallest id that a delivery accepted at `at` can have (RFC 9562 section 5.7).
pub(in crate::store) fn first_id(at: Timestamp) -> DeliveryId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&at.as_unix_millis().to_be_bytes()[2..]);
    uuid::Uuid::from_bytes(id).into()
}

/// What waited until after its deadline becomes a dead letter; answers with the bytes of its payload.
fn expire(
    connection: &Connection,
    destination: DestinationKey,
    (due_at, id): (Timestamp, DeliveryId),
    now: Timestamp,
) -> Result<u32> {
    delete_due(connection, destination.0, due_at, id)?;
    let update = "UPDATE deliveries SET state = ?, due_at = NULL, settled_at = ?, held_since = NULL
                  WHERE id = ? RETURNING payload_size, ordering_key";
    let dead = params![Column(DeliveryState::DeadLetter), Column(now), Column(id)];
    let found = one(connection, update, dead, |row| {
        Ok((row.get(0)?, row.get::<_, Option<String>>(1)?))
    })?;
    let (bytes, key) = found.unwrap_or_default();
    if let Some(key) = key {
        ordered::settled(connection, destination.0, &key, id, false, now)?;
    }
    Ok(bytes)
}

/// What waits at a destination.
struct Waiting {
    first: Vec<Place>,
    /// Whether any of it has a row in `due`.
    has_rows: bool,
}

/// What waits at a destination, soonest first: as much as is granted, and one more.
fn waiting(connection: &Connection, grant: &Grant) -> Result<Waiting> {
    let query = "SELECT due_at, id FROM due WHERE destination = ? ORDER BY due_at, id LIMIT ?";
    let wanted = params![grant.destination.0, limit(grant.limit)];
    let mut first = all(connection, query, wanted, |row| {
        Ok((get(row, "due_at")?, get(row, "id")?))
    })?;
    let count = grant.limit.saturating_add(1);
    let arrived = arrivals::first(connection, grant.destination, count)?;
    let has_rows = !first.is_empty();
    first.extend(arrived);
    if has_rows {
        first.sort_unstable();
        first.truncate(count);
    }
    Ok(Waiting { first, has_rows })
}

/// Takes what waits at a destination, up to the `last` that is granted, out of where it waits.
fn take(
    connection: &Connection,
    grant: &Grant,
    last: Place,
    has_rows: bool,
) -> Result<Vec<SealedJob>> {
    let mut jobs = match has_rows {
        true => take_due(connection, grant, last)?,
        false => Vec::new(),
    };
    let arrived = arrivals::take(connection, grant.destination, last)?;
    for group in groups(&arrived) {
        let find = format!(
            "SELECT v.id, p.sealed, v.content_type, v.attempt_count + 1, v.epoch + 1, v.due_at
             FROM deliveries v LEFT JOIN payloads p ON p.id = v.id WHERE v.id IN {}",
            placeholders(group.len())
        );
        let ids: Vec<_> = group.iter().copied().map(Column).collect();
        let ids: Vec<_> = ids.iter().map(|id| id as &dyn ToSql).collect();
        let found = Statement::new(connection, &find)?;
        jobs.extend(found_by(found, ids.as_slice(), grant)?);
    }
    jobs.sort_by_key(|(place, _)| *place);
    Ok(jobs.into_iter().map(|(_, job)| job).collect())
}

/// As [`take`], of what has rows.
fn take_due(
    connection: &Connection,
    grant: &Grant,
    (last_at, last): Place,
) -> Result<Vec<(Place, SealedJob)>> {
    let find = "SELECT d.id, p.sealed, v.content_type, v.attempt_count + 1, v.epoch + 1, d.due_at
                FROM due d LEFT JOIN deliveries v ON v.id = d.id LEFT JOIN payloads p ON p.id = d.id
                WHERE d.destination = ? AND (d.due_at, d.id) <= (?, ?) ORDER BY d.due_at, d.id";
    let these = params![grant.destination.0, Column(last_at), Column(last)];
    let found = found_by(Statement::new(connection, find)?, these, grant)?;
    let delete = "DELETE FROM due WHERE destination = ? AND (due_at, id) <= (?, ?)";
    execute(connection, delete, these)?;
    Ok(found)
}

fn found_by(
    mut find: Statement<'_>,
    these: &[&dyn ToSql],
    grant: &Grant,
) -> Result<Vec<(Place, SealedJob)>> {
    let found = find.all(these, |row| {
        let delivery = row.get::<_, Column<DeliveryId>>(0)?.0;
        let (Some(sealed_payload), Some(content_type)) = (row.get(1)?, row.get(2)?) else {
            // A row that should not be there must not hold up the others for ever.
            tracing::error!(%delivery, "due without a payload; it is left out");
            return Ok(None);
        };
        let job = SealedJob {
            lease: LeaseId {
                delivery,
                epoch: row.get::<_, i64>(4)?.unsigned_abs(),
            },
            destination: grant.destination,
            agent: grant.agent.clone(),
            sealed_payload,
            content_type,
            attempt_number: row.get(3)?,
        };
        Ok(Some(((get(row, "due_at")?, delivery), job)))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// A lease as its columns have it.
struct NewLease {
    id: Column<DeliveryId>,
    destination: i64,
    agent: i64,
    epoch: i64,
    until: Column<Timestamp>,
}

impl NewLease {
    fn new(job: &SealedJob, agent: i64, grant: &Grant) -> Self {
        Self {
            id: Column(job.lease.delivery),
            destination: job.destination.0,
            agent,
            epoch: signed(job.lease.epoch),
            until: Column(grant.until),
        }
    }

    fn row(&self) -> [&dyn ToSql; 5] {
        [
            &self.id,
            &self.destination,
            &self.agent,
            &self.epoch,
            &self.until,
        ]
    }
}

fn write(connection: &Connection, leases: &[NewLease]) -> Result<()> {
    let rows: Vec<_> = leases.iter().map(NewLease::row).collect();
    let into = "leases (id, destination, agent, epoch, until)";
    many::insert(connection, into, &rows)
}

/// Ends a lease, if there is one, without a word on what becomes of its delivery.
pub(super) fn delete_lease(connection: &Connection, id: DeliveryId) -> Result<()> {
    execute(connection, "DELETE FROM leases WHERE id = ?", [Column(id)])?;
    Ok(())
}

pub(super) fn extend(
    connection: &Connection,
    agent: &AgentName,
    leases: Vec<LeaseId>,
    usual: Duration,
    now: Timestamp,
) -> Result<Vec<(LeaseId, Duration)>> {
    let agent = agent_key(connection, agent)?;
    let update = "UPDATE leases
                  SET until = ?1 + (SELECT CASE WHEN max_offline > ?2 THEN max_offline ELSE ?2 END
                                    FROM destinations WHERE key = leases.destination)
                  WHERE id = ?3 AND epoch = ?4 AND agent = ?5 RETURNING until";
    let usual = i64::try_from(usual.as_micros()).unwrap_or(i64::MAX);
    let mut extended = Vec::with_capacity(leases.len());
    for lease in leases {
        let wanted = params![
            Column(now),
            usual,
            Column(lease.delivery),
            signed(lease.epoch),
            agent
        ];
        let until = one(connection, update, wanted, |row| {
            get::<Timestamp>(row, "until")
        })?;
        extended.extend(until.map(|until| (lease, until.since(now))));
    }
    Ok(extended)
}

/// A lease as its row has it.
pub(super) fn facts(connection: &Connection, delivery: DeliveryId) -> Result<Option<LeaseFacts>> {
    let query = "SELECT v.epoch AS ended, l.epoch AS held, a.id AS agent FROM deliveries v
                 LEFT JOIN leases l ON l.id = v.id LEFT JOIN agents a ON a.key = l.agent
                 WHERE v.id = ?";
    one(connection, query, [Column(delivery)], |row| {
        let (ended, held): (i64, Option<i64>) = (row.get("ended")?, row.get("held")?);
        let holder: Option<Id> = get_optional(row, "agent")?;
        Ok(LeaseFacts {
            holder: holder.map(AgentName::from),
            epoch: held.unwrap_or(ended).unsigned_abs(),
        })
    })
}

struct Held {
    lease: LeaseId,
    destination: DestinationKey,
    until: Timestamp,
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    Ok(Held {
        lease: LeaseId {
            delivery: get(row, "id")?,
            epoch: row.get::<_, i64>("epoch")?.unsigned_abs(),
        },
        destination: DestinationKey(row.get("destination")?),
        until: get(row, "until")?,
    })
}

pub(super) fn release_all_but(
    connection: &Connection,
    agent: &AgentName,
    still_held: &HashSet<LeaseId>,
    now: Timestamp,
) -> Result<Vec<DestinationKey>> {
    let agent = agent_key(connection, agent)?;
    // What is due already runs out by itself.
    let query = "SELECT * FROM leases WHERE agent = ? AND until > ?";
    let mut leases = all(connection, query, params![agent, Column(now)], held)?;
    leases.retain(|held| !still_held.contains(&held.lease));
    for held in &leases {
        end(connection, held, now)?;
    }
    Ok(leases.into_iter().map(|held| held.destination).collect())
}

/// Makes the deliveries of leases whose time is over due when that was. Answers with the end of the
/// first of the others.
fn end_expired(connection: &Connection, now: Timestamp) -> Result<Option<Timestamp>> {
    let query = "SELECT * FROM leases WHERE until <= ?";
    for expired in all(connection, query, [Column(now)], held)? {
        end(connection, &expired, expired.until)?;
    }
    let query = "SELECT min(until) AS until FROM leases";
    let first = one(connection, query, [], |row| get_optional(row, "until"))?;
    Ok(first.flatten())
}

/// A lease ends and its delivery waits again, until `at`.
fn end(connection: &Connection, held: &Held, at: Timestamp) -> Result<()> {
    let id = held.lease.delivery;
    delete_lease(connection, id)?;
    let update = "UPDATE deliveries SET epoch = ?, due_at = ? WHERE id = ?";
    let ended = params![signed(held.lease.epoch), Column(at), Column(id)];
    execute(connection, update, ended)?;
    insert_due(connection, held.destination.0, at, id)
}
