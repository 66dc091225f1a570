//! A day's work in three calls: what is done with many at once is what would be done with each.

use std::{collections::HashMap, sync::Arc};

use countersign_shared::{class::FailureClass, job::LeaseId, name::DeliveryId};

use super::{
    at,
    delivery::{account, edge, fresh, new, outcome},
    destination_name,
};
use crate::{
    model::{DeliveryState, Grant, NewDelivery, Next, Settled, Settlement},
    store::{Store, StoreError},
};

/// How many deliveries each of the two destinations gets: more than any group that a store writes at once.
const EACH: usize = 39;

/// Submits, leases and settles, with all that can go otherwise in between.
pub(super) async fn many(store: &impl Store) {
    let (one, one_key) = fresh(store, "many-one").await;
    let (two, two_key) = fresh(store, "many-two").await;
    let nowhere = destination_name("acme", "many-nowhere");
    let mut submitted: Vec<NewDelivery> = Vec::new();
    for second in 0..EACH {
        let second = i64::try_from(second).unwrap();
        submitted.push(new(&one, second, None));
        submitted.push(new(&two, second, None));
    }
    submitted.insert(EACH, new(&nowhere, 1, None));
    let made = store.submit_all(submitted.clone()).await.unwrap();
    assert!(matches!(made[EACH], Err(StoreError::NotFound(_))));
    submitted.remove(EACH);
    let made: Vec<_> = made.into_iter().filter_map(Result::ok).collect();
    let ids = |all: &[NewDelivery]| -> Vec<DeliveryId> { all.iter().map(|it| it.id).collect() };
    let answered: Vec<DeliveryId> = made.iter().map(|it| it.id).collect();
    assert_eq!(answered, ids(&submitted));

    let grant = |destination, limit, until| Grant {
        destination,
        agent: edge(),
        limit,
        accepted_from: None,
        until: at(until),
    };
    // A destination can have several grants, one of which finds nothing left.
    let grants = vec![
        grant(one_key, 5, 110),
        grant(two_key, EACH, 120),
        grant(one_key, EACH, 130),
        grant(one_key, 1, 140),
    ];
    let leased = store.lease(grants, at(100)).await.unwrap();
    assert_eq!(leased.jobs.len(), 2 * EACH);
    for (name, key) in [(&one, one_key), (&two, two_key)] {
        let given = leased.jobs.iter().filter(|job| job.destination == key);
        let given: Vec<DeliveryId> = given.map(|job| job.lease.delivery).collect();
        let all = submitted.iter().filter(|it| it.destination == *name);
        let all: Vec<DeliveryId> = all.map(|it| it.id).collect();
        assert_eq!(given, all, "each once, oldest first");
    }
    for job in &leased.jobs {
        let sent = submitted.iter().find(|it| it.id == job.lease.delivery);
        assert_eq!(job.sealed_payload, sent.unwrap().sealed_payload);
    }
    assert_eq!(store.due_of(one_key).await.unwrap(), Some(at(110)));

    settle_all(
        store,
        leased.jobs.iter().map(|job| job.lease).collect(),
        &submitted,
    )
    .await;
}

/// Settles leases in one call, with every end in turn.
async fn settle_all(store: &impl Store, leases: Vec<LeaseId>, submitted: &[NewDelivery]) {
    let ends = [
        (FailureClass::Delivered, Next::Delivered),
        (FailureClass::HttpServerError, Next::Retry(at(500))),
        (FailureClass::Delivered, Next::Delivered),
        (FailureClass::HttpClientError, Next::DeadLetter),
        (FailureClass::NotAttempted, Next::Again(at(501))),
        (FailureClass::ClientCaNotTrusted, Next::Hold(at(502))),
    ];
    let planned: HashMap<DeliveryId, (FailureClass, Next)> = leases
        .iter()
        .zip(ends.into_iter().cycle())
        .map(|(lease, end)| (lease.delivery, end))
        .collect();
    let stale = LeaseId {
        epoch: 9,
        ..leases[0]
    };
    let mut outcomes = vec![outcome(stale, FailureClass::Delivered)];
    outcomes.extend(
        leases
            .iter()
            .map(|lease| outcome(*lease, planned[&lease.delivery].0)),
    );
    outcomes.push(outcome(leases[3], FailureClass::Delivered));
    let decide = {
        let planned = planned.clone();
        move |_: &_, outcome: &countersign_shared::outcome::Outcome| planned[&outcome.delivery].1
    };
    let settlement = Settlement {
        agent: edge(),
        outcomes: outcomes.into(),
        now: at(400),
        decide: Arc::new(decide),
    };
    let settled = store.settle(settlement).await.unwrap();
    let (first, rest) = settled.split_first().unwrap();
    let (last, rest) = rest.split_last().unwrap();
    assert_eq!((*first, *last), (Settled::Stale, Settled::Stale));
    for (settled, lease) in rest.iter().zip(&leases) {
        let expected = planned[&lease.delivery].1;
        assert!(matches!(settled, Settled::Applied { next, .. } if *next == expected));
    }
    for delivery in submitted {
        let found = store.delivery(&account(), delivery.id).await.unwrap();
        let (class, next) = planned[&delivery.id];
        let expected = match next {
            Next::Delivered => (DeliveryState::Delivered, None, Some(at(400))),
            Next::DeadLetter => (DeliveryState::DeadLetter, None, Some(at(400))),
            Next::Retry(due) | Next::Again(due) | Next::Hold(due) => {
                (DeliveryState::Pending, Some(due), None)
            }
        };
        assert_eq!((found.state, found.due_at, found.settled_at), expected);
        let attempts = store.attempts(&account(), delivery.id, 0, 9).await.unwrap();
        let classes: Vec<_> = attempts.items.iter().map(|it| it.outcome.class).collect();
        match next {
            Next::Again(_) => assert!(classes.is_empty()),
            _ => assert_eq!(classes, [class]),
        }
        let facts = store.lease_facts(delivery.id).await.unwrap().unwrap();
        assert_eq!((facts.holder, facts.epoch), (None, 1));
    }
}
