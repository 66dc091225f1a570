//! Deliveries with ordering keys.

use countersign_shared::{
    class::FailureClass,
    name::{DeliveryId, DestinationName},
};

use super::{
    at,
    delivery::{account, edge, fresh, lease, new, outcome, settle},
};
use crate::{
    model::{
        Delivery, DeliveryState, DestinationKey, DestinationState, Followers, Load, NewDelivery,
        Next, OrderingFailure, ReplayFilter, SealedJob, Settled,
    },
    store::{Store, StoreError},
};

async fn submit(store: &impl Store, name: &DestinationName, seconds: i64, key: &str) -> Delivery {
    let new = NewDelivery {
        ordering_key: Some(key.to_owned()),
        ..new(name, seconds, None)
    };
    store.submit(new).await.unwrap()
}

/// Ends a job; what becomes of those behind it.
async fn end(store: &impl Store, job: &SealedJob, class: FailureClass, next: Next) -> Followers {
    match settle(store, &edge(), outcome(job.lease, class), next).await {
        Settled::Applied { followers, .. } => followers,
        Settled::Stale => panic!("stale"),
    }
}

async fn deliver(store: &impl Store, job: &SealedJob) -> Followers {
    end(store, job, FailureClass::Delivered, Next::Delivered).await
}

async fn give_up(store: &impl Store, job: &SealedJob) -> Followers {
    end(store, job, FailureClass::HttpServerError, Next::DeadLetter).await
}

async fn see(store: &impl Store, id: DeliveryId) -> Delivery {
    store.delivery(&account(), id).await.unwrap()
}

/// The only job that can be leased.
async fn only(store: &impl Store, key: DestinationKey, now: i64) -> SealedJob {
    let mut jobs = lease(store, key, &edge(), 9, now).await;
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

async fn set(store: &impl Store, name: &DestinationName, ordering_failure: OrderingFailure) {
    let mut config = store.destination(name).await.unwrap().config;
    config.ordering_failure = ordering_failure;
    let changed = store.update_destination(name, config, None, at(1000)).await;
    assert_eq!(changed.unwrap().config.ordering_failure, ordering_failure);
}

pub(super) async fn one_after_the_other(store: &impl Store) {
    let (name, key) = fresh(store, "in-order").await;
    // Accepted in another order than their times and ids tell.
    let mut ids = Vec::new();
    for seconds in [3, 1, 2] {
        let accepted = submit(store, &name, seconds, "a").await;
        assert_eq!(see(store, accepted.id).await, accepted);
        assert_eq!(accepted.waits_for, ids.first().copied());
        assert_eq!(accepted.due_at.is_some(), ids.is_empty());
        ids.push(accepted.id);
    }
    let other = submit(store, &name, 4, "b").await;
    let free = store.submit(new(&name, 5, None)).await.unwrap();
    let all = Load {
        deliveries: 5,
        bytes: 40,
    };
    assert_eq!(store.backlog(key).await.unwrap(), all);

    let jobs = lease(store, key, &edge(), 9, 100).await;
    let leased: Vec<_> = jobs.iter().map(|job| job.lease.delivery).collect();
    assert_eq!(leased, [ids[0], other.id, free.id]);
    // A failure that is tried again, a lease that nobody ends and a job given back hold the key.
    let failed = FailureClass::HttpServerError;
    let next = Next::Retry(at(105));
    assert_eq!(end(store, &jobs[0], failed, next).await, Followers::None);
    assert!(lease(store, key, &edge(), 9, 104).await.is_empty());
    let again = only(store, key, 105).await;
    assert_eq!(again.lease.delivery, ids[0]);
    let expired = lease(store, key, &edge(), 9, 130).await;
    assert_eq!(expired.len(), 3, "with the other keys'");
    let next = Next::Again(at(131));
    for job in &expired {
        match job.lease.delivery == ids[0] {
            true => end(store, job, FailureClass::NotAttempted, next).await,
            false => deliver(store, job).await,
        };
    }
    // Settled at 1000, as everything here.
    for (id, now) in ids.iter().zip([131, 1000, 1000]) {
        let job = only(store, key, now).await;
        assert_eq!(job.lease.delivery, *id);
        let next = match id == &ids[2] {
            true => Followers::None,
            false => Followers::Due,
        };
        assert_eq!(deliver(store, &job).await, next);
        assert!(lease(store, key, &edge(), 9, 999).await.is_empty());
    }
    // A key whose queue has run empty begins anew.
    let accepted = submit(store, &name, 6, "a").await;
    assert_eq!((accepted.waits_for, accepted.due_at), (None, Some(at(6))));
}

pub(super) async fn dead_letters(store: &impl Store) {
    let (name, key) = fresh(store, "blocked").await;
    let first = submit(store, &name, 1, "a").await;
    let second = submit(store, &name, 2, "a").await;
    let job = only(store, key, 100).await;
    assert_eq!(give_up(store, &job).await, Followers::Blocked);
    assert!(lease(store, key, &edge(), 9, 9_000).await.is_empty());
    assert_eq!(see(store, second.id).await.waits_for, Some(first.id));
    assert_eq!(store.with_blocked_keys().await.unwrap(), [key]);
    assert_eq!(store.backlog(key).await.unwrap(), Load::one(8));
    let waiting = store.backlogged().await.unwrap();
    assert!(waiting.iter().any(|(found, _)| *found == key));
    let kept = store.delete_destination(&name, None, false, at(9)).await;
    assert!(matches!(kept, Err(StoreError::Precondition(_))));

    // Retried, it is first again; replayed too.
    let retried = store.retry(&account(), first.id, at(1_000)).await.unwrap();
    assert!(retried.revived && retried.delivery.due_at == Some(at(1_000)));
    assert!(store.with_blocked_keys().await.unwrap().is_empty());
    let job = only(store, key, 1_000).await;
    assert_eq!(job.lease.delivery, first.id);
    assert_eq!(give_up(store, &job).await, Followers::Blocked);
    let filter = ReplayFilter {
        destination: Some(name.clone()),
        ..ReplayFilter::default()
    };
    let replayed = store.replay(&account(), &filter, false, 9, at(1_000)).await;
    assert_eq!(replayed.unwrap().items.len(), 1);
    let job = only(store, key, 1_000).await;
    assert_eq!(job.lease.delivery, first.id);
    assert_eq!(give_up(store, &job).await, Followers::Blocked);

    // Skipped from now on, and what is held now goes too.
    set(store, &name, OrderingFailure::Skip).await;
    assert!(store.with_blocked_keys().await.unwrap().is_empty());
    let job = only(store, key, 1_000).await;
    assert_eq!(job.lease.delivery, second.id);
    let third = submit(store, &name, 3, "a").await;
    assert_eq!(give_up(store, &job).await, Followers::Due);
    // What was skipped goes behind what waits.
    let retried = store.retry(&account(), first.id, at(1_000)).await.unwrap();
    assert!(retried.revived);
    let waits = retried.delivery;
    assert_eq!((waits.state, waits.due_at), (DeliveryState::Pending, None));
    assert_eq!(waits.waits_for, Some(third.id));
    let job = only(store, key, 1_000).await;
    assert_eq!(job.lease.delivery, third.id);
    deliver(store, &job).await;
    assert_eq!(only(store, key, 1_000).await.lease.delivery, first.id);
}

pub(super) async fn by_hand(store: &impl Store) {
    let (name, key) = fresh(store, "order-by-hand").await;
    let mut ids = Vec::new();
    for seconds in 1..=5 {
        ids.push(submit(store, &name, seconds, "a").await.id);
    }
    let refused = store.retry(&account(), ids[1], at(50)).await;
    assert!(matches!(refused, Err(StoreError::Precondition(_))));
    // One in the middle, the first while it waits, the next while it is leased.
    for id in [ids[2], ids[0]] {
        let cancelled = store.cancel(&account(), id, at(60)).await.unwrap();
        assert!(!cancelled.was_settled);
        assert_eq!(cancelled.delivery.state, DeliveryState::Cancelled);
    }
    assert_eq!(see(store, ids[1]).await.due_at, Some(at(60)));
    let job = only(store, key, 60).await;
    assert_eq!(job.lease.delivery, ids[1]);
    store.cancel(&account(), ids[1], at(61)).await.unwrap();
    let late = outcome(job.lease, FailureClass::Delivered);
    let late = settle(store, &edge(), late, Next::Delivered).await;
    assert_eq!(late, Settled::Stale);
    // A dead letter that holds its key, and no other.
    let job = only(store, key, 61).await;
    assert_eq!(job.lease.delivery, ids[3]);
    give_up(store, &job).await;
    let cancelled = store.cancel(&account(), ids[3], at(62)).await.unwrap();
    assert!(cancelled.was_settled);
    let job = only(store, key, 62).await;
    assert_eq!(job.lease.delivery, ids[4]);
    set(store, &name, OrderingFailure::Skip).await;
    give_up(store, &job).await;
    let refused = store.cancel(&account(), ids[4], at(63)).await;
    assert!(matches!(refused, Err(StoreError::Precondition(_))));
    assert_eq!(store.backlog(key).await.unwrap(), Load::default());

    // A destination that is disabled keeps the order; one that goes takes the queue along.
    let first = submit(store, &name, 70, "a").await.id;
    let second = submit(store, &name, 71, "a").await.id;
    for state in [DestinationState::Disabled, DestinationState::Enabled] {
        let changed = store.set_destination_state(&name, state, at(72)).await;
        changed.unwrap();
    }
    assert_eq!(only(store, key, 72).await.lease.delivery, first);
    assert_eq!(see(store, second).await.waits_for, Some(first));
    let deleted = store.delete_destination(&name, None, true, at(73)).await;
    deleted.unwrap();
    let (name, _) = fresh(store, "order-by-hand").await;
    assert_eq!(submit(store, &name, 74, "a").await.waits_for, None);
}

pub(super) async fn retention(store: &impl Store) {
    let (name, key) = fresh(store, "order-kept").await;
    let held = submit(store, &name, 1, "a").await.id;
    let behind = submit(store, &name, 2, "a").await.id;
    let job = only(store, key, 10).await;
    give_up(store, &job).await;
    let far = at(1_000_000);
    store.erase_payloads(far, None, 10_000).await.unwrap();
    store.remove_deliveries(far, None, 10_000).await.unwrap();
    // It can still be sent again, and is over when it no longer holds its key.
    store.retry(&account(), held, at(20)).await.unwrap();
    let job = only(store, key, 20).await;
    assert_eq!(job.lease.delivery, held);
    give_up(store, &job).await;
    store.cancel(&account(), held, at(21)).await.unwrap();
    store.remove_deliveries(far, None, 10_000).await.unwrap();
    let gone = store.delivery(&account(), held).await;
    assert!(matches!(gone, Err(StoreError::NotFound(_))));
    assert_eq!(only(store, key, 21).await.lease.delivery, behind);
}
