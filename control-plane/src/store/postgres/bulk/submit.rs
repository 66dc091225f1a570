//! Accepting deliveries.

use std::collections::{HashMap, HashSet};

use countersign_shared::name::DestinationName;

use super::{change, column, ids, placed};
use crate::{
    model::{Delivery, DeliveryState, DestinationKey, NewDelivery, RequestKey},
    store::{
        Result, StoreError,
        postgres::{known::Keys, session::Session},
    },
};

/// Accepts those without an ordering key, each request id once; the others, and repeated requests, are left to
/// `one_by_one`. Answers in the order of `new`.
pub(in crate::store) fn submit(
    session: &Session,
    new: Vec<NewDelivery>,
    mut one_by_one: impl FnMut(NewDelivery) -> Result<Result<Delivery>>,
) -> Result<Vec<Result<Delivery>>> {
    let keys = destinations(session, &new)?;
    // Those that there are, and then those that are made here. Nobody else makes any meanwhile: writing takes turns.
    let mut requests = requests(session, &new)?;
    let mut together = Vec::with_capacity(new.len());
    let mut answers = Vec::with_capacity(new.len());
    for new in new {
        let repeated = new.request.as_ref().is_some_and(|request| {
            !requests.insert((request.scope.clone(), request.request_id.clone()))
        });
        if repeated {
            // What it repeats may be among those.
            insert(session, &together)?;
            together.clear();
        }
        if new.ordering_key.is_some() || repeated {
            answers.push(one_by_one(new)?);
            continue;
        }
        let Some(&(destination, account)) = keys.get(&new.destination) else {
            answers.push(Err(StoreError::NotFound(new.destination.to_string())));
            continue;
        };
        answers.push(Ok(accepted(&new, destination)));
        together.push((new, (destination, account)));
    }
    insert(session, &together)?;
    Ok(answers)
}

/// Which of the request ids were used: scope and id of each.
fn requests(session: &Session, new: &[NewDelivery]) -> Result<HashSet<(String, String)>> {
    let used = new.iter().filter_map(|new| new.request.as_ref());
    let used = used.map(|request| (request.scope.as_str(), request.request_id.as_str()));
    let (scopes, ids): (Vec<&str>, Vec<&str>) = used.unzip();
    if scopes.is_empty() {
        return Ok(HashSet::new());
    }
    let query = "SELECT r.scope, r.request_id FROM unnest($1::text[], $2::text[]) n (scope, id)
                 JOIN requests r ON r.scope = n.scope AND r.request_id = n.id";
    let prepared = session.prepare(query)?;
    let rows = session.query_with(&prepared, &[&scopes, &ids])?;
    let found = rows
        .iter()
        .map(|row| Ok((column(row, 0)?, column(row, 1)?)));
    found.collect()
}

/// The handles of those of the destinations that there are. A handle is found by name once; from then on only whether
/// it is still there is asked, which costs a tenth.
fn destinations(session: &Session, new: &[NewDelivery]) -> Result<HashMap<DestinationName, Keys>> {
    let mut wanted: Vec<_> = new.iter().map(|new| &new.destination).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let known = session.known();
    let remembered = wanted
        .iter()
        .filter_map(|name| Some(((*name).clone(), known.get(name)?)));
    let mut found: HashMap<_, Keys> = remembered.collect();
    if !found.is_empty() {
        let there = still_there(session, found.values().map(|keys| keys.0).collect())?;
        found.retain(|_, (handle, _)| there.contains(handle));
    }
    let unknown = wanted.into_iter().filter(|name| !found.contains_key(*name));
    let unknown: Vec<_> = unknown.collect();
    if !unknown.is_empty() {
        for (name, keys) in unknown.iter().zip(by_name(session, &unknown)?) {
            known.note(name, keys);
            found.extend(keys.map(|keys| ((*name).clone(), keys)));
        }
    }
    Ok(found)
}

fn still_there(session: &Session, handles: Vec<i64>) -> Result<HashSet<i64>> {
    let query = "SELECT key FROM destinations WHERE key = ANY ($1::bigint[])";
    let prepared = session.prepare(query)?;
    let rows = session.query_with(&prepared, &[&handles])?;
    rows.iter().map(|row| column(row, 0)).collect()
}

/// In the order of the names.
fn by_name(session: &Session, names: &[&DestinationName]) -> Result<Vec<Option<Keys>>> {
    let accounts: Vec<&str> = names.iter().map(|name| name.account()).collect();
    let destinations: Vec<&str> = names.iter().map(|name| name.destination()).collect();
    let query = "SELECT n.place, d.key, d.account
                 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY n (account, destination, place)
                 JOIN accounts a ON a.id = n.account
                 JOIN destinations d ON d.account = a.key AND d.id = n.destination";
    let prepared = session.prepare(query)?;
    let mut found = vec![None; names.len()];
    for row in session.query_with(&prepared, &[&accounts, &destinations])? {
        if let Some(free) = found.get_mut(placed(&row)?) {
            *free = Some((column(&row, 1)?, column(&row, 2)?));
        }
    }
    Ok(found)
}

fn insert(session: &Session, new: &[(NewDelivery, Keys)]) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let ids = ids(new.iter().map(|(new, _)| &new.id));
    let accounts: Vec<i64> = new.iter().map(|(_, (_, account))| *account).collect();
    let destinations: Vec<i64> = new.iter().map(|(_, (key, _))| *key).collect();
    let sizes: Vec<i64> = new.iter().map(|(new, _)| new.payload_size.into()).collect();
    let content_types: Vec<&str> = new.iter().map(|(new, _)| &*new.content_type).collect();
    let event_types: Vec<&str> = new.iter().map(|(new, _)| &*new.event_type).collect();
    let times = new.iter().map(|(new, _)| new.accepted_at.as_unix_micros());
    let times: Vec<i64> = times.collect();
    let payloads = new.iter().map(|(new, _)| new.sealed_payload.as_slice());
    let payloads: Vec<&[u8]> = payloads.collect();
    let statement = "
        WITH delivery AS (
            INSERT INTO deliveries (id, account, destination, state, payload_size, content_type,
                                    event_type, accepted_at, due_at)
            SELECT id, account, destination, 1, size, content_type, event_type, at, at
            FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
                        $7::bigint[]) n (id, account, destination, size, content_type, event_type, at)
        ), payload AS (
            INSERT INTO payloads (id, sealed) SELECT * FROM unnest($1::bytea[], $8::bytea[])
        )
        INSERT INTO due (id, destination, due_at)
        SELECT * FROM unnest($1::bytea[], $3::bigint[], $7::bigint[])";
    change(
        session,
        statement,
        &[
            &ids,
            &accounts,
            &destinations,
            &sizes,
            &content_types,
            &event_types,
            &times,
            &payloads,
        ],
    )?;
    remember(session, new)
}

/// Remembers the request ids of what was made.
fn remember(session: &Session, new: &[(NewDelivery, Keys)]) -> Result<()> {
    let made = new
        .iter()
        .filter_map(|(new, _)| Some((new.request.as_ref()?, new)));
    let made: Vec<(&RequestKey, &NewDelivery)> = made.collect();
    if made.is_empty() {
        return Ok(());
    }
    let scopes: Vec<&str> = made.iter().map(|(it, _)| it.scope.as_str()).collect();
    let ids: Vec<&str> = made.iter().map(|(it, _)| it.request_id.as_str()).collect();
    let contents = made.iter().map(|(it, _)| it.content_sha256.as_slice());
    let contents: Vec<&[u8]> = contents.collect();
    let resources: Vec<String> = made.iter().map(|(_, new)| new.id.to_string()).collect();
    let times = made.iter().map(|(_, new)| new.accepted_at.as_unix_micros());
    let times: Vec<i64> = times.collect();
    let statement = "
        INSERT INTO requests (scope, request_id, content_sha256, resource, created_at)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[])";
    change(
        session,
        statement,
        &[&scopes, &ids, &contents, &resources, &times],
    )
}

fn accepted(new: &NewDelivery, destination: i64) -> Delivery {
    Delivery {
        id: new.id,
        destination: new.destination.clone(),
        destination_key: DestinationKey(destination),
        state: DeliveryState::Pending,
        payload_size: new.payload_size,
        content_type: new.content_type.clone(),
        event_type: new.event_type.clone(),
        attempt_count: 0,
        last_class: None,
        accepted_at: new.accepted_at,
        due_at: Some(new.accepted_at),
        settled_at: None,
        held_since: None,
        ordering_key: None,
        waits_for: None,
    }
}
