//! Leasing what is due.

use std::collections::{HashMap, VecDeque};

use countersign_shared::{job::LeaseId, name::DeliveryId, time::Timestamp};

use super::{change, column, id, ids, time};
use crate::{
    model::DestinationKey,
    store::{Result, postgres::session::Session},
};

/// A delivery that waits.
#[derive(Debug)]
pub(in crate::store) struct Waiting {
    pub(in crate::store) due_at: Timestamp,
    pub(in crate::store) id: DeliveryId,
    /// It is the one more: only that it is there was looked at.
    pub(in crate::store) beyond: bool,
    /// What a job is made of; `None` when its payload is gone.
    pub(in crate::store) job: Option<Job>,
}

/// What a job is made of.
#[derive(Debug)]
pub(in crate::store) struct Job {
    pub(in crate::store) sealed_payload: Vec<u8>,
    pub(in crate::store) content_type: String,
    pub(in crate::store) attempt_count: u32,
    /// Of the lease.
    pub(in crate::store) epoch: u64,
}

/// What waits at destinations that are enabled and have a client certificate, soonest first: of each as
/// many as are asked for, and one more. Destinations that are not so are left out.
pub(in crate::store) fn waiting(
    session: &Session,
    wanted: &HashMap<DestinationKey, usize>,
) -> Result<HashMap<DestinationKey, VecDeque<Waiting>>> {
    let keys: Vec<i64> = wanted.keys().map(|key| key.0).collect();
    let most = wanted
        .values()
        .map(|most| i64::try_from(*most).unwrap_or(i64::MAX - 1));
    let most: Vec<i64> = most.collect();
    // A join on NULL finds nothing and looks nowhere.
    let query = "
        SELECT g.key, x.due_at, x.id, v.epoch, v.attempt_count, v.content_type, p.sealed, x.granted IS NULL
        FROM unnest($1::bigint[], $2::bigint[]) g (key, most)
        JOIN destinations d ON d.key = g.key AND d.state = 'ENABLED' AND d.active_certificate > 0
        LEFT JOIN LATERAL (SELECT due_at, id,
                           CASE WHEN row_number() OVER (ORDER BY due_at, id) <= g.most THEN id END granted
                           FROM due WHERE destination = g.key
                           ORDER BY due_at, id LIMIT g.most + 1) x ON true
        LEFT JOIN deliveries v ON v.id = x.granted LEFT JOIN payloads p ON p.id = x.granted
        ORDER BY g.key, x.due_at, x.id";
    let prepared = session.prepare(query)?;
    let mut found: HashMap<DestinationKey, VecDeque<Waiting>> = HashMap::with_capacity(keys.len());
    for row in session.query_with(&prepared, &[&keys, &most])? {
        let of = found.entry(DestinationKey(column(&row, 0)?)).or_default();
        // A destination where nothing waits has a row without a delivery.
        if column::<Option<&[u8]>>(&row, 2)?.is_none() {
            continue;
        }
        let (epoch, attempts) = (
            column::<Option<i64>>(&row, 3)?,
            column::<Option<i64>>(&row, 4)?,
        );
        let content_type: Option<String> = column(&row, 5)?;
        let payload: Option<Vec<u8>> = column(&row, 6)?;
        let job = (|| {
            Some(Job {
                sealed_payload: payload?,
                content_type: content_type?,
                attempt_count: u32::try_from(attempts?).ok()?,
                epoch: epoch?.unsigned_abs() + 1,
            })
        })();
        of.push_back(Waiting {
            due_at: time(&row, 1)?,
            id: id(&row, 2)?,
            beyond: column(&row, 7)?,
            job,
        });
    }
    Ok(found)
}

/// A lease that is given.
#[derive(Debug)]
pub(in crate::store) struct Given {
    pub(in crate::store) lease: LeaseId,
    pub(in crate::store) destination: DestinationKey,
    /// Since when the delivery was due.
    pub(in crate::store) due_at: Timestamp,
    /// The agent's handle.
    pub(in crate::store) agent: i64,
    pub(in crate::store) until: Timestamp,
}

/// Puts leases in the place of what waited.
pub(in crate::store) fn lease(session: &Session, given: &[Given]) -> Result<()> {
    if given.is_empty() {
        return Ok(());
    }
    let ids = ids(given.iter().map(|it| &it.lease.delivery));
    let keys: Vec<i64> = given.iter().map(|it| it.destination.0).collect();
    let due: Vec<i64> = given.iter().map(|it| it.due_at.as_unix_micros()).collect();
    let agents: Vec<i64> = given.iter().map(|it| it.agent).collect();
    let epochs = given.iter().map(|it| it.lease.epoch.cast_signed());
    let epochs: Vec<i64> = epochs.collect();
    let until: Vec<i64> = given.iter().map(|it| it.until.as_unix_micros()).collect();
    let statement = "
        WITH gone AS (
            DELETE FROM due USING unnest($1::bytea[], $2::bigint[], $3::bigint[]) n (id, key, at)
            WHERE due.destination = n.key AND due.due_at = n.at AND due.id = n.id
        )
        INSERT INTO leases (id, destination, agent, epoch, until)
        SELECT * FROM unnest($1::bytea[], $2::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])";
    change(
        session,
        statement,
        &[&ids, &keys, &due, &agents, &epochs, &until],
    )
}
