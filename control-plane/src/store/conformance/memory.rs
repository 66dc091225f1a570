//! What a store remembers between calls, to be quick, never stands in for what is there.

use std::sync::Arc;

use countersign_shared::{class::FailureClass, time::Timestamp};

use super::{
    at,
    delivery::{account, edge, fresh, lease, new, outcome},
};
use crate::{
    model::{DeliveryState, DestinationKey, Grant, Leased, Next, Settled, Settlement},
    store::{Store, StoreError},
};

/// A destination that is deleted takes nothing, and one that is made in its place takes what comes.
pub(super) async fn replaced(store: &impl Store) {
    let (name, first) = fresh(store, "replaced").await;
    let before = store.submit(new(&name, 1, None)).await.unwrap();
    assert_eq!(before.destination_key, first);
    store
        .delete_destination(&name, None, true, at(2))
        .await
        .unwrap();
    let to_nobody = store.submit(new(&name, 3, None)).await;
    assert!(matches!(to_nobody, Err(StoreError::NotFound(_))));
    let (_, second) = fresh(store, "replaced").await;
    let after = store.submit(new(&name, 4, None)).await.unwrap();
    assert_eq!(after.destination_key, second);
    assert!(lease(store, first, &edge(), 9, 100).await.is_empty());
    let given = lease(store, second, &edge(), 9, 100).await;
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].lease.delivery, after.id);
}

async fn look(store: &impl Store, destination: DestinationKey, now: Timestamp) -> Leased {
    let grant = Grant {
        destination,
        agent: edge(),
        limit: 9,
        accepted_from: None,
        until: at(9_000),
    };
    store.lease(vec![grant], now).await.unwrap()
}

/// What was accepted long before others, and is there only after these were leased, is leased within seconds, and
/// whoever looks as they are told to finds it.
pub(super) async fn late_comers(store: &impl Store) {
    let (name, key) = fresh(store, "late-comers").await;
    store.submit(new(&name, 1_000, None)).await.unwrap();
    let mut now = at(1_000);
    assert_eq!(look(store, key, now).await.jobs.len(), 1);
    let late = store.submit(new(&name, 1, None)).await.unwrap();
    loop {
        let leased = look(store, key, now).await;
        if let Some(job) = leased.jobs.first() {
            assert_eq!(job.lease.delivery, late.id);
            break;
        }
        assert_eq!(leased.next.len(), 1, "there is something to wait for");
        now = leased.next[0].at;
        assert!(now <= at(1_010), "{now:?} is too late");
    }
}

/// Deliveries that are leased for the first time and for the second are settled in one call, and those that another
/// call has settled are not settled again.
pub(super) async fn second_leases(store: &impl Store) {
    let (name, key) = fresh(store, "second-leases").await;
    for second in 1..=2 {
        store.submit(new(&name, second, None)).await.unwrap();
    }
    let first = lease(store, key, &edge(), 1, 100).await.remove(0);
    let back = outcome(first.lease, FailureClass::NotAttempted);
    super::delivery::settle(store, &edge(), back, Next::Again(at(100))).await;
    let leases: Vec<_> = lease(store, key, &edge(), 9, 100).await;
    let mut epochs: Vec<_> = leases.iter().map(|job| job.lease.epoch).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2]);
    let outcomes = leases
        .iter()
        .map(|job| outcome(job.lease, FailureClass::Delivered));
    let settlement = Settlement {
        agent: edge(),
        outcomes: outcomes.collect(),
        now: at(101),
        decide: Arc::new(|_, _| Next::DeadLetter),
    };
    let settled = store.settle(settlement.clone()).await.unwrap();
    let delivered = Settled::Applied {
        destination: key,
        payload_size: 8,
        next: Next::Delivered,
        followers: crate::model::Followers::None,
    };
    assert_eq!(settled, [delivered, delivered], "nothing is to be decided");
    let again = store.settle(settlement).await.unwrap();
    assert_eq!(again, [Settled::Stale, Settled::Stale]);
    for job in leases {
        let found = store.delivery(&account(), job.lease.delivery).await;
        let found = found.unwrap();
        assert_eq!(found.state, DeliveryState::Delivered);
        assert_eq!(found.attempt_count, 1);
        let attempts = store.attempts(&account(), job.lease.delivery, 0, 9).await;
        assert_eq!(attempts.unwrap().items.len(), 1);
    }
}
