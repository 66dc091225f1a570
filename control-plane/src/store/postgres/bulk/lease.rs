//! Leasing what is due.

use std::collections::{HashMap, VecDeque};

use countersign_shared::{job::LeaseId, name::DeliveryId, time::Timestamp};

use super::{change, column, id, ids, place::Place, time};
use crate::{
    model::DestinationKey,
    store::{
        Result,
        postgres::{heads::Look, session::Session},
    },
};

/// A delivery that waits.
#[derive(Debug)]
pub(in crate::store) struct Waiting {
    pub(in crate::store) due_at: Timestamp,
    pub(in crate::store) id: DeliveryId,
    /// Where in `due` it is.
    pub(in crate::store) place: Place,
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

/// What waits at a destination.
#[derive(Debug, Default)]
pub(in crate::store) struct Queue {
    /// Soonest first.
    pub(in crate::store) waiting: VecDeque<Waiting>,
    /// When to look for what has been due for long; `None` if that was done.
    pub(in crate::store) whole_at: Option<Timestamp>,
    /// When the last that was taken was due.
    taken: Option<Timestamp>,
}

impl Queue {
    /// Takes the first away, in the same transaction, if it is as `condition` says.
    pub(in crate::store) fn take_if(
        &mut self,
        condition: impl FnOnce(&Waiting) -> bool,
    ) -> Option<Waiting> {
        let taken = self.waiting.pop_front_if(|next| condition(next));
        self.taken = taken.as_ref().map(|it| it.due_at).or(self.taken);
        taken
    }

    /// Remembers up to where it was taken, for the next look.
    pub(in crate::store) fn remember(
        &self,
        session: &Session,
        destination: DestinationKey,
        now: Timestamp,
    ) {
        if let Some(taken) = self.taken {
            session.heads().took(destination, taken, now);
        }
    }
}

/// What waits at destinations that are enabled and have a client certificate: of each as many as are asked for, and
/// one more. Destinations that are not so are left out.
pub(in crate::store) fn waiting(
    session: &Session,
    wanted: &HashMap<DestinationKey, usize>,
    now: Timestamp,
) -> Result<HashMap<DestinationKey, Queue>> {
    let keys: Vec<i64> = wanted.keys().map(|key| key.0).collect();
    let looks = wanted.keys().map(|key| session.heads().look(*key, now));
    let looks: Vec<Look> = looks.collect();
    let since = looks.iter().map(|look| look.since.as_unix_micros());
    let since: Vec<i64> = since.collect();
    let most = wanted
        .values()
        .map(|most| i64::try_from(*most).unwrap_or(i64::MAX - 1));
    let most: Vec<i64> = most.collect();
    // What is lateral and limited is looked up for each row in turn: without statistics the server would rather read
    // whole tables. Nothing is equal to NULL, so that looks nowhere.
    let query = "
        SELECT g.key, x.due_at, x.id, v.epoch, v.attempt_count, v.content_type, p.sealed, x.granted IS NULL, x.place
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) g (key, most, since)
        CROSS JOIN LATERAL (SELECT FROM destinations d
                            WHERE d.key = g.key AND d.state = 'ENABLED' AND d.active_certificate > 0
                            LIMIT 1) enabled
        LEFT JOIN LATERAL (SELECT due_at, id, ctid place,
                           CASE WHEN row_number() OVER (ORDER BY due_at, id) <= g.most THEN id END granted
                           FROM due WHERE destination = g.key AND due_at >= g.since
                           ORDER BY due_at, id LIMIT g.most + 1) x ON true
        LEFT JOIN LATERAL (SELECT epoch, attempt_count, content_type FROM deliveries
                           WHERE id = x.granted LIMIT 1) v ON true
        LEFT JOIN LATERAL (SELECT sealed FROM payloads WHERE id = x.granted LIMIT 1) p ON true";
    let prepared = session.prepare(query)?;
    let mut found: HashMap<DestinationKey, Queue> = HashMap::with_capacity(keys.len());
    for row in session.query_with(&prepared, &[&keys, &most, &since])? {
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
        of.waiting.push_back(Waiting {
            due_at: time(&row, 1)?,
            id: id(&row, 2)?,
            place: column(&row, 8)?,
            beyond: column(&row, 7)?,
            job,
        });
    }
    for (key, look) in wanted.keys().zip(looks) {
        if let Some(queue) = found.get_mut(key) {
            queue.whole_at = look.whole_at;
            // They come in this order already, but nothing says that they must.
            let waiting = queue.waiting.make_contiguous();
            waiting.sort_unstable_by_key(|it| (it.due_at, it.id));
        }
    }
    Ok(found)
}

/// A lease that is given.
#[derive(Debug)]
pub(in crate::store) struct Given {
    pub(in crate::store) lease: LeaseId,
    pub(in crate::store) destination: DestinationKey,
    /// Where in `due` the delivery was found, in the same transaction.
    pub(in crate::store) place: Place,
    /// The agent's handle.
    pub(in crate::store) agent: i64,
    pub(in crate::store) until: Timestamp,
}

/// Puts leases in the place of what waited. Nobody has changed `due` since it was looked at: writing takes turns.
pub(in crate::store) fn lease(session: &Session, given: &[Given]) -> Result<()> {
    if given.is_empty() {
        return Ok(());
    }
    let ids = ids(given.iter().map(|it| &it.lease.delivery));
    let keys: Vec<i64> = given.iter().map(|it| it.destination.0).collect();
    let places: Vec<Place> = given.iter().map(|it| it.place).collect();
    let agents: Vec<i64> = given.iter().map(|it| it.agent).collect();
    let epochs = given.iter().map(|it| it.lease.epoch.cast_signed());
    let epochs: Vec<i64> = epochs.collect();
    let until: Vec<i64> = given.iter().map(|it| it.until.as_unix_micros()).collect();
    let statement = "
        WITH gone AS (DELETE FROM due WHERE ctid = ANY ($6::tid[]))
        INSERT INTO leases (id, destination, agent, epoch, until)
        SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])";
    change(
        session,
        statement,
        &[&ids, &keys, &agents, &epochs, &until, &places],
    )
}
