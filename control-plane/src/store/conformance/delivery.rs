//! Submissions, leases, settling.

use std::{collections::HashSet, sync::Arc};

use countersign_shared::{
    class::FailureClass,
    job::LeaseId,
    name::{AccountName, AgentName, DeliveryId, DestinationName},
    outcome::{AttemptTimings, Outcome},
    random,
    time::Timestamp,
};

use super::{at, destination_name, id, new_destination, request};
use crate::{
    model::{
        DeadLetter, DeliveryFilter, DeliveryState, DestinationKey, DestinationState, Followers,
        Grant, Load, NewDelivery, Next, ReplayFilter, RequestKey, SealedJob, Settled, Settlement,
    },
    store::{Store, StoreError},
};

pub(super) fn new(
    destination: &DestinationName,
    seconds: i64,
    request: Option<RequestKey>,
) -> NewDelivery {
    NewDelivery {
        id: random::uuid_v7(at(seconds)).into(),
        destination: destination.clone(),
        sealed_payload: vec![seconds as u8; 8],
        payload_size: 8,
        content_type: "application/json".to_owned(),
        event_type: "order.created".to_owned(),
        accepted_at: at(seconds),
        ordering_key: None,
        request,
    }
}

pub(super) fn edge() -> AgentName {
    id("edge-1").into()
}

pub(super) fn account() -> AccountName {
    id("acme").into()
}

pub(super) async fn fresh(store: &impl Store, name: &str) -> (DestinationName, DestinationKey) {
    let name = destination_name("acme", name);
    let made = store
        .create_destination(new_destination(&name, None))
        .await
        .unwrap();
    (name, made.key)
}

pub(super) async fn lease(
    store: &impl Store,
    destination: DestinationKey,
    agent: &AgentName,
    limit: usize,
    now: i64,
) -> Vec<SealedJob> {
    let grant = Grant {
        destination,
        agent: agent.clone(),
        limit,
        accepted_from: None,
        until: at(now + 10),
    };
    let leased = store.lease(vec![grant], at(now)).await;
    leased.unwrap().jobs
}

pub(super) fn outcome(lease: LeaseId, class: FailureClass) -> Outcome {
    Outcome {
        delivery: lease.delivery,
        epoch: lease.epoch,
        class,
        mtls_not_enforced: false,
        http_status: Some(200),
        handshake: None,
        timings: AttemptTimings::default(),
        started_at: at(1),
        retry_after: None,
        detail: "".into(),
        refused: None,
        receipt: Some("a.b.c".into()),
        unrecorded_attempts: 2,
    }
}

pub(super) async fn settle(
    store: &impl Store,
    agent: &AgentName,
    outcome: Outcome,
    next: Next,
) -> Settled {
    let settlement = Settlement {
        agent: agent.clone(),
        outcomes: [outcome].into(),
        now: at(1000),
        decide: Arc::new(move |_, _| next),
    };
    store.settle(settlement).await.unwrap()[0]
}

/// Many at once, with and without request ids: each answer is as it would be alone, in this order.
pub(super) async fn submissions_together(store: &impl Store) {
    let (name, _) = fresh(store, "together").await;
    let nowhere = destination_name("acme", "nowhere");
    let earlier = store
        .submit(new(&name, 9, request("before", "a")))
        .await
        .unwrap();
    let ordered = NewDelivery {
        ordering_key: Some("k".to_owned()),
        ..new(&name, 15, request("ordered", "a"))
    };
    let all = vec![
        new(&name, 10, request("one", "a")),
        new(&name, 11, None),
        new(&name, 12, request("one", "a")),
        new(&name, 13, request("one", "b")),
        new(&name, 14, request("before", "a")),
        ordered,
        new(&nowhere, 16, request("two", "a")),
        new(&name, 17, request("two", "a")),
    ];
    let ids: Vec<DeliveryId> = all.iter().map(|new| new.id).collect();
    let answers = store.submit_all(all).await.unwrap();
    let made = |at: usize| answers[at].as_ref().unwrap().id;
    assert_eq!((made(0), made(1), made(2)), (ids[0], ids[1], ids[0]));
    assert!(matches!(
        answers[3],
        Err(StoreError::RequestIdReused { .. })
    ));
    assert_eq!(made(4), earlier.id);
    assert_eq!(made(5), ids[5]);
    assert!(matches!(answers[6], Err(StoreError::NotFound(_))));
    // What was not made has used no request id up.
    let again = store.submit(new(&name, 18, request("two", "a")));
    assert_eq!(made(7), again.await.unwrap().id);
    for (at, content) in [(0, "one"), (5, "ordered")] {
        let again = store.submit(new(&name, 19, request(content, "a")));
        assert_eq!(made(at), again.await.unwrap().id);
    }
}

pub(super) async fn submission(store: &impl Store) {
    let (name, key) = fresh(store, "submission").await;
    let accepted = store
        .submit(new(&name, 10, request("s1", "a")))
        .await
        .unwrap();
    let again = store
        .submit(new(&name, 20, request("s1", "a")))
        .await
        .unwrap();
    assert_eq!(again, accepted, "the first delivery is the answer");
    let other = store.submit(new(&name, 20, request("s1", "b"))).await;
    assert!(matches!(other, Err(StoreError::RequestIdReused { .. })));
    let nowhere = destination_name("acme", "nowhere");
    let refused = store.submit(new(&nowhere, 1, None)).await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))));

    for seconds in [11, 12] {
        store.submit(new(&name, seconds, None)).await.unwrap();
    }
    let filter = DeliveryFilter {
        destination: Some(name.clone()),
        ..DeliveryFilter::default()
    };
    let first = store
        .deliveries(&account(), &filter, None, 2)
        .await
        .unwrap();
    assert!(first.more);
    assert_eq!(first.items[0].accepted_at, at(12), "newest first");
    let last = first.items[1].id;
    let rest = store
        .deliveries(&account(), &filter, Some(last), 2)
        .await
        .unwrap();
    assert_eq!(rest.items, std::slice::from_ref(&accepted));
    assert_eq!(
        store.delivery(&account(), accepted.id).await.unwrap(),
        accepted
    );
    let foreign = store.delivery(&id("beta").into(), accepted.id).await;
    assert!(
        matches!(foreign, Err(StoreError::NotFound(_))),
        "not under another account"
    );

    assert_eq!(store.due_of(key).await.unwrap(), Some(at(10)));
    assert!(
        store
            .due()
            .await
            .unwrap()
            .iter()
            .any(|due| due.destination == key)
    );
    let kept = store.delete_destination(&name, None, false, at(9)).await;
    assert!(
        matches!(kept, Err(StoreError::Precondition(_))),
        "deliveries are waiting"
    );
    store
        .delete_destination(&name, None, true, at(9))
        .await
        .unwrap();
    assert!(matches!(
        store.delivery(&account(), accepted.id).await,
        Err(StoreError::NotFound(_))
    ));
    assert_eq!(store.due_of(key).await.unwrap(), None);
}

pub(super) async fn leases(store: &impl Store) {
    let (name, key) = fresh(store, "leases").await;
    let mut ids: Vec<DeliveryId> = Vec::new();
    for seconds in [1, 2, 3] {
        ids.push(store.submit(new(&name, seconds, None)).await.unwrap().id);
    }
    let agent = edge();
    let first = lease(store, key, &agent, 2, 100).await;
    let got: Vec<_> = first.iter().map(|job| job.lease.delivery).collect();
    assert_eq!(got, ids[..2], "oldest first");
    assert_eq!(first[0].sealed_payload, [1; 8]);
    assert_eq!((first[0].lease.epoch, first[0].attempt_number), (1, 1));
    let second = lease(store, key, &agent, 9, 100).await;
    assert_eq!(second.len(), 1, "what is leased is not leased twice");
    assert_eq!(lease(store, key, &agent, 9, 109).await.len(), 0);
    assert_eq!(
        store.due_of(key).await.unwrap(),
        Some(at(110)),
        "the leases' end"
    );

    let held = [first[0].lease, second[0].lease];
    let usual = std::time::Duration::from_secs;
    let extended = store.extend(&agent, held.to_vec(), usual(100), at(100));
    assert_eq!(
        extended.await.unwrap(),
        held.map(|lease| (lease, usual(100)))
    );
    // No shorter than the destination lets an agent go on alone.
    let extended = store.extend(&agent, held.to_vec(), usual(2), at(195));
    assert_eq!(extended.await.unwrap(), held.map(|lease| (lease, usual(5))));
    let expired = lease(store, key, &agent, 9, 110).await;
    assert_eq!(expired.len(), 1, "an expired lease goes to whoever asks");
    assert_eq!(expired[0].lease.epoch, 2);
    let lost = store
        .extend(&agent, vec![first[1].lease], usual(10), at(290))
        .await
        .unwrap();
    assert!(lost.is_empty(), "its epoch is old");

    for (state, count) in [(DeliveryState::Leased, 3), (DeliveryState::Pending, 0)] {
        let filter = DeliveryFilter {
            state: Some(state),
            destination: Some(name.clone()),
        };
        let found = store.deliveries(&account(), &filter, None, 9).await;
        assert_eq!(found.unwrap().items.len(), count, "{state:?}");
    }
    let keep = HashSet::from([first[0].lease]);
    let released = store.release_all_but(&agent, keep, at(111)).await.unwrap();
    assert_eq!(released, [key, key]);
    let again = lease(store, key, &agent, 9, 111).await;
    assert_eq!(again.len(), 2);

    store
        .set_destination_state(&name, DestinationState::Disabled, at(1))
        .await
        .unwrap();
    assert_eq!(store.due_of(key).await.unwrap(), None);
    assert_eq!(
        lease(store, key, &agent, 9, 5000).await.len(),
        0,
        "disabled: held"
    );
    store
        .set_destination_state(&name, DestinationState::Enabled, at(1))
        .await
        .unwrap();
    assert_eq!(lease(store, key, &agent, 9, 5000).await.len(), 3);
}

/// What waited until after its deadline becomes a dead letter, and is not leased.
pub(super) async fn deadlines(store: &impl Store) {
    let (name, key) = fresh(store, "deadlines").await;
    let mut ids: Vec<DeliveryId> = Vec::new();
    for seconds in [1, 2, 3] {
        ids.push(store.submit(new(&name, seconds, None)).await.unwrap().id);
    }
    let grant = Grant {
        destination: key,
        agent: edge(),
        limit: 1,
        accepted_from: Some(at(3)),
        until: at(110),
    };
    let (mut given, mut expired) = (Vec::new(), Vec::new());
    // Each call looks at as much as was granted and one more.
    for _ in 0..2 {
        let leased = store.lease(vec![grant.clone()], at(100)).await;
        let leased = leased.unwrap();
        given.extend(leased.jobs);
        expired.extend(leased.expired);
    }
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].lease.delivery, ids[2]);
    assert_eq!(expired, [(key, 8), (key, 8)]);
    let dead = store.delivery(&account(), ids[0]).await.unwrap();
    assert_eq!(
        (dead.state, dead.attempt_count, dead.settled_at),
        (DeliveryState::DeadLetter, 0, Some(at(100)))
    );
    // Where nothing is left, the destination's own policy is what a decision is made from.
    let (tell, told) = std::sync::mpsc::channel();
    let settlement = Settlement {
        agent: edge(),
        outcomes: [outcome(given[0].lease, FailureClass::HttpServerError)].into(),
        now: at(101),
        decide: Arc::new(move |snapshot, _| {
            tell.send(snapshot.retry.clone()).unwrap();
            Next::DeadLetter
        }),
    };
    store.settle(settlement).await.unwrap();
    let expected = super::config("https://x.example/").policy.retry;
    assert_eq!(told.recv().unwrap(), expected);
}

pub(super) async fn settling(store: &impl Store) {
    let (name, key) = fresh(store, "settling").await;
    let made = store.submit(new(&name, 1, None)).await.unwrap().id;
    let agent = edge();
    let job = lease(store, key, &agent, 1, 100).await.remove(0);

    let old = LeaseId {
        epoch: 0,
        ..job.lease
    };
    let failed = FailureClass::HttpServerError;
    let stale = settle(store, &agent, outcome(old, failed), Next::DeadLetter).await;
    assert_eq!(stale, Settled::Stale, "an old epoch changes nothing");
    let facts = store.lease_facts(made).await.unwrap().unwrap();
    assert_eq!((facts.holder, facts.epoch), (Some(agent.clone()), 1));
    let nothing: DeliveryId = random::uuid_v7(at(1)).into();
    assert_eq!(store.lease_facts(nothing).await.unwrap(), None);
    let unchanged = store.delivery(&account(), made).await.unwrap();
    assert_eq!(
        (unchanged.state, unchanged.attempt_count),
        (DeliveryState::Leased, 0)
    );

    let next = Next::Retry(at(500));
    let applied = settle(store, &agent, outcome(job.lease, failed), next).await;
    assert_eq!(
        applied,
        Settled::Applied {
            destination: key,
            payload_size: 8,
            next,
            followers: Followers::None,
        }
    );
    let waiting = store.delivery(&account(), made).await.unwrap();
    assert_eq!(
        (waiting.state, waiting.attempt_count),
        (DeliveryState::Pending, 1)
    );
    assert_eq!(
        (waiting.due_at, waiting.last_class),
        (Some(at(500)), Some(failed))
    );
    let twice = settle(store, &agent, outcome(job.lease, failed), next).await;
    assert_eq!(twice, Settled::Stale, "an outcome counts once");
    assert_eq!(lease(store, key, &agent, 1, 499).await.len(), 0);

    let job = lease(store, key, &agent, 1, 500).await.remove(0);
    assert_eq!((job.lease.epoch, job.attempt_number), (2, 2));
    let back = outcome(job.lease, FailureClass::NotAttempted);
    settle(store, &agent, back, Next::Again(at(501))).await;
    let waiting = store.delivery(&account(), made).await.unwrap();
    assert_eq!(waiting.attempt_count, 1, "given back: no attempt");

    let job = lease(store, key, &agent, 1, 501).await.remove(0);
    assert_eq!((job.lease.epoch, job.attempt_number), (3, 2));
    settle(
        store,
        &agent,
        outcome(job.lease, FailureClass::Delivered),
        Next::Delivered,
    )
    .await;
    let done = store.delivery(&account(), made).await.unwrap();
    assert_eq!(
        (done.state, done.attempt_count),
        (DeliveryState::Delivered, 2)
    );
    assert_eq!((done.due_at, done.settled_at), (None, Some(at(1000))));
    assert_eq!(
        lease(store, key, &agent, 1, 9_999).await.len(),
        0,
        "settled is settled"
    );
    let attempts = store.attempts(&account(), made, 0, 10).await.unwrap().items;
    let classes: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.outcome.class)
        .collect();
    assert_eq!(classes, [failed, FailureClass::Delivered]);
    assert_eq!(attempts[1].agent, agent);
    assert_eq!(
        store
            .attempts(&account(), made, 1, 10)
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    foreign_agent(store, &name, key).await;
}

async fn foreign_agent(store: &impl Store, name: &DestinationName, key: DestinationKey) {
    let enrolled = id("second").into();
    let enrollment = crate::model::Enrollment {
        token: enrolled,
        used: crate::model::JoinTokenUse {
            agent: id("edge-2").into(),
            public_key_sha256: [2; 32],
        },
        region: None,
        identity_not_after: at(50),
        now: at(2),
    };
    let other = store.enroll(enrollment).await.unwrap().name;
    store.submit(new(name, 2, None)).await.unwrap();
    let job = lease(store, key, &edge(), 1, 600).await.remove(0);
    let forged = outcome(job.lease, FailureClass::Delivered);
    assert_eq!(
        settle(store, &other, forged, Next::Delivered).await,
        Settled::Stale
    );
    let stolen = store
        .extend(
            &other,
            vec![job.lease],
            std::time::Duration::from_secs(9),
            at(9_990),
        )
        .await
        .unwrap();
    assert!(stolen.is_empty(), "a lease is its agent's own");
}

/// Settles as [`settle`], and tells what the decision was made from.
async fn decided(
    store: &impl Store,
    outcome: Outcome,
    now: i64,
    next: Next,
) -> (u32, Option<Timestamp>) {
    let (tell, told) = std::sync::mpsc::channel();
    let settlement = Settlement {
        agent: edge(),
        outcomes: [outcome].into(),
        now: at(now),
        decide: Arc::new(move |snapshot, _| {
            tell.send((snapshot.attempt_count, snapshot.held_since))
                .unwrap();
            next
        }),
    };
    let settled = store.settle(settlement).await.unwrap()[0];
    assert!(matches!(settled, Settled::Applied { next: as_decided, .. } if as_decided == next));
    told.recv().unwrap()
}

pub(super) async fn holding(store: &impl Store) {
    let (name, key) = fresh(store, "holding").await;
    let (other, other_key) = fresh(store, "holding-too").await;
    let refused = FailureClass::ClientCaNotTrusted;
    let mut ids: Vec<DeliveryId> = Vec::new();
    for seconds in [1, 2, 3] {
        ids.push(store.submit(new(&name, seconds, None)).await.unwrap().id);
    }
    store.submit(new(&other, 1, None)).await.unwrap();
    let see = async |id: DeliveryId| store.delivery(&account(), id).await.unwrap();
    let take = async |key, now| lease(store, key, &edge(), 1, now).await.remove(0).lease;

    let first = take(key, 100).await;
    let known = decided(store, outcome(first, refused), 110, Next::Hold(at(500))).await;
    assert_eq!(known, (0, None));
    let held = see(ids[0]).await;
    assert_eq!(
        (held.state, held.attempt_count),
        (DeliveryState::Pending, 1)
    );
    assert_eq!(
        (held.due_at, held.held_since),
        (Some(at(500)), Some(at(110)))
    );
    assert_eq!(held.last_class, Some(refused));
    let second = take(key, 120).await;
    decided(store, outcome(second, refused), 120, Next::Hold(at(600))).await;
    let elsewhere = take(other_key, 120).await;
    decided(store, outcome(elsewhere, refused), 120, Next::Hold(at(700))).await;

    // Again, later: no attempt of its schedule is used up, and it is held since the first time.
    let again = take(key, 500).await;
    assert_eq!(again.delivery, ids[2], "never attempted yet");
    decided(
        store,
        outcome(again, FailureClass::HttpGone),
        500,
        Next::Retry(at(9_000)),
    )
    .await;
    let again = take(key, 500).await;
    assert_eq!(again.delivery, ids[0]);
    let known = decided(store, outcome(again, refused), 510, Next::Hold(at(800))).await;
    assert_eq!(known, (0, Some(at(110))));
    let held = see(ids[0]).await;
    assert_eq!((held.attempt_count, held.held_since), (2, Some(at(110))));
    let attempts = store
        .attempts(&account(), ids[0], 0, 9)
        .await
        .unwrap()
        .items;
    let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2], "each is there to be looked at");

    // Released in slices, soonest first; nothing twice, and nobody else's.
    assert_eq!(store.release_held(key, at(520), 1).await.unwrap(), 1);
    assert_eq!(see(ids[1]).await.due_at, Some(at(520)));
    assert_eq!(store.release_held(key, at(520), 9).await.unwrap(), 1);
    assert_eq!(see(ids[0]).await.due_at, Some(at(520)));
    assert_eq!(store.release_held(key, at(520), 9).await.unwrap(), 0);
    let waiting = see(ids[2]).await;
    assert_eq!(
        (waiting.due_at, waiting.held_since),
        (Some(at(9_000)), None)
    );
    assert_eq!(store.due_of(other_key).await.unwrap(), Some(at(700)));

    // What is being attempted is left to its agent; given back, it is still held.
    let released = lease(store, key, &edge(), 9, 520).await;
    assert_eq!(released.len(), 2);
    assert_eq!(store.release_held(key, at(521), 9).await.unwrap(), 0);
    let of = |id| {
        released
            .iter()
            .find(|job| job.lease.delivery == id)
            .unwrap()
    };
    let back = outcome(of(ids[0]).lease, FailureClass::NotAttempted);
    decided(store, back, 522, Next::Again(at(523))).await;
    assert_eq!(see(ids[0]).await.held_since, Some(at(110)));

    // Another failure takes it back into its schedule, where it stood.
    let failed = FailureClass::HttpServerError;
    let leased = of(ids[1]).lease;
    let known = decided(store, outcome(leased, failed), 530, Next::Retry(at(540))).await;
    assert_eq!(known, (0, Some(at(120))));
    assert_eq!(see(ids[1]).await.held_since, None);
    let leased = take(key, 523).await;
    decided(store, outcome(leased, refused), 550, Next::Hold(at(560))).await;
    let leased = take(key, 540).await;
    let known = decided(store, outcome(leased, failed), 550, Next::DeadLetter).await;
    assert_eq!(known, (1, None));

    // By hand.
    let cancelled = store.cancel(&account(), ids[0], at(551)).await.unwrap();
    assert_eq!(cancelled.delivery.held_since, None);
    let leased = take(other_key, 700).await;
    decided(store, outcome(leased, refused), 700, Next::DeadLetter).await;
    let given_up = see(leased.delivery).await;
    assert_eq!(
        (given_up.state, given_up.held_since),
        (DeliveryState::DeadLetter, None)
    );
    let revived = store
        .retry(&account(), leased.delivery, at(800))
        .await
        .unwrap();
    assert_eq!((revived.delivery.held_since, revived.revived), (None, true));
}

/// What is waiting or leased counts, and nothing else.
pub(super) async fn backlog(store: &impl Store) {
    let (name, key) = fresh(store, "backlog").await;
    assert_eq!(store.backlog(key).await.unwrap(), Load::default());
    let empty = store.backlogged().await.unwrap();
    assert!(!empty.iter().any(|(found, _)| *found == key));
    for seconds in 1..=4 {
        store.submit(new(&name, seconds, None)).await.unwrap();
    }
    let count = async |deliveries: i64| {
        let bytes = 8 * deliveries;
        let load = store.backlog(key).await.unwrap();
        assert_eq!(load, Load { deliveries, bytes });
    };
    count(4).await;
    let jobs = lease(store, key, &edge(), 3, 100).await;
    count(4).await;
    let ends = [Next::Delivered, Next::DeadLetter, Next::Hold(at(500))];
    for (job, next) in jobs.iter().zip(ends) {
        let ended = outcome(job.lease, FailureClass::HttpServerError);
        settle(store, &edge(), ended, next).await;
    }
    count(2).await;
    let given_up = jobs[2].lease.delivery;
    store.cancel(&account(), given_up, at(200)).await.unwrap();
    count(1).await;
    let disabled = DestinationState::Disabled;
    let state = store.set_destination_state(&name, disabled, at(201));
    state.await.unwrap();
    count(1).await;
    let found = store.backlogged().await.unwrap();
    assert!(found.contains(&(key, name)), "disabled or not");
}

pub(super) async fn by_hand(store: &impl Store) {
    let (name, key) = fresh(store, "by-hand").await;
    let agent = edge();
    let mut ids: Vec<DeliveryId> = Vec::new();
    for seconds in [1, 2, 3] {
        ids.push(store.submit(new(&name, seconds, None)).await.unwrap().id);
    }
    for job in lease(store, key, &agent, 2, 100).await {
        let failed = outcome(job.lease, FailureClass::HttpGone);
        settle(store, &agent, failed, Next::DeadLetter).await;
    }
    let filter = ReplayFilter {
        destination: Some(name.clone()),
        accepted_from: Some(at(2)),
        last_class: Some(FailureClass::HttpGone),
        ..ReplayFilter::default()
    };
    let counted = store
        .replay(&account(), &filter, true, 9, at(200))
        .await
        .unwrap();
    assert_eq!((counted.items.len(), counted.more), (1, false));
    let other = ReplayFilter {
        last_class: Some(FailureClass::HttpServerError),
        ..filter.clone()
    };
    assert_eq!(
        store
            .replay(&account(), &other, false, 9, at(200))
            .await
            .unwrap()
            .items,
        []
    );
    let replayed = store
        .replay(&account(), &filter, false, 9, at(200))
        .await
        .unwrap();
    let found = DeadLetter {
        destination: key,
        payload_size: 8,
    };
    assert_eq!(replayed.items, [found]);
    let again = store
        .replay(&account(), &filter, false, 9, at(200))
        .await
        .unwrap();
    assert_eq!(again.items, [], "it is no dead letter any more");

    let retried = store.retry(&account(), ids[0], at(201)).await.unwrap();
    assert!(retried.revived);
    let retried = retried.delivery;
    assert_eq!(
        (retried.state, retried.settled_at),
        (DeliveryState::Pending, None)
    );
    let jobs = lease(store, key, &agent, 9, 201).await;
    assert_eq!(jobs.len(), 3);
    assert_eq!(
        jobs.iter().map(|job| job.attempt_number).max(),
        Some(2),
        "numbers go on"
    );
    let leased = store.retry(&account(), ids[0], at(202)).await;
    assert!(matches!(leased, Err(StoreError::Precondition(_))));
    let first = jobs
        .iter()
        .find(|job| job.lease.delivery == ids[0])
        .unwrap();
    let settlement = Settlement {
        agent: agent.clone(),
        outcomes: [outcome(first.lease, FailureClass::HttpServerError)].into(),
        now: at(203),
        decide: Arc::new(|snapshot, _| match snapshot.attempt_count {
            0 => Next::Retry(at(900)),
            _ => Next::DeadLetter,
        }),
    };
    store.settle(settlement).await.unwrap();
    let sooner = store.retry(&account(), ids[0], at(300)).await.unwrap();
    assert!(!sooner.revived, "it was waiting");
    let sooner = sooner.delivery;
    assert_eq!(
        sooner.state,
        DeliveryState::Pending,
        "the schedule began anew"
    );
    assert_eq!(sooner.due_at, Some(at(300)));

    let cancelled = store.cancel(&account(), ids[0], at(301)).await.unwrap();
    let cancelled = cancelled.delivery;
    assert_eq!(
        (cancelled.state, cancelled.settled_at),
        (DeliveryState::Cancelled, Some(at(301)))
    );
    let refused = store.cancel(&account(), ids[0], at(302)).await;
    assert!(matches!(refused, Err(StoreError::Precondition(_))));
    let refused = store.retry(&account(), ids[0], at(302)).await;
    assert!(matches!(refused, Err(StoreError::Precondition(_))));
    let second = jobs
        .iter()
        .find(|job| job.lease.delivery == ids[1])
        .unwrap();
    store.cancel(&account(), ids[1], at(303)).await.unwrap();
    let late = outcome(second.lease, FailureClass::Delivered);
    assert_eq!(
        settle(store, &agent, late, Next::Delivered).await,
        Settled::Stale
    );
    assert_eq!(
        lease(store, key, &agent, 9, 9_999).await.len(),
        1,
        "only the third is left"
    );
}

pub(super) async fn retention(store: &impl Store) {
    let (name, key) = fresh(store, "retention").await;
    let agent = edge();
    let mut ids: Vec<DeliveryId> = Vec::new();
    for seconds in [-30_i64, -20, -10] {
        // Older than everything else in the suite's store.
        ids.push(
            store
                .submit(new(&name, 1_000_000 + seconds, None))
                .await
                .unwrap()
                .id,
        );
    }
    let jobs = lease(store, key, &agent, 2, 2_000_000).await;
    for (job, next) in jobs.iter().zip([Next::DeadLetter, Next::Delivered]) {
        let ended = outcome(job.lease, FailureClass::HttpServerError);
        settle(store, &agent, ended, next).await;
    }
    let before = at(1_000_000 - 25);
    let mut after = None;
    loop {
        after = store.erase_payloads(before, after, 2).await.unwrap();
        if after.is_none() {
            break;
        }
    }
    let kept = store.delivery(&account(), ids[0]).await.unwrap();
    assert_eq!(kept.state, DeliveryState::DeadLetter, "the record stays");
    let retried = store.retry(&account(), ids[0], at(9)).await;
    assert!(
        matches!(retried, Err(StoreError::Precondition(_))),
        "nothing to send"
    );
    let filter = ReplayFilter {
        destination: Some(name.clone()),
        ..ReplayFilter::default()
    };
    let replayed = store
        .replay(&account(), &filter, false, 9, at(9))
        .await
        .unwrap();
    assert_eq!(replayed.items, []);
    let mut after = None;
    loop {
        after = store
            .remove_deliveries(at(1_000_001), after, 2)
            .await
            .unwrap();
        if after.is_none() {
            break;
        }
    }
    for id in &ids[..2] {
        let gone = store.delivery(&account(), *id).await;
        assert!(matches!(gone, Err(StoreError::NotFound(_))));
    }
    let waiting = lease(store, key, &agent, 9, 2_000_000).await;
    assert_eq!(
        waiting.len(),
        1,
        "what is not settled stays, however old, with its payload"
    );

    store
        .submit(new(&name, 2_000_000, request("old", "a")))
        .await
        .unwrap();
    assert!(!store.forget_requests(at(2_000_000), 9).await.unwrap());
    let still = store
        .submit(new(&name, 2_000_001, request("old", "b")))
        .await;
    assert!(matches!(still, Err(StoreError::RequestIdReused { .. })));
    store.forget_requests(at(2_000_001), 9).await.unwrap();
    store
        .submit(new(&name, 2_000_002, request("old", "b")))
        .await
        .expect("forgotten");
}

pub(super) async fn after_reopening(store: &impl Store) {
    let states = async |destination: &str| -> Vec<DeliveryState> {
        let filter = DeliveryFilter {
            destination: Some(destination_name("acme", destination)),
            ..DeliveryFilter::default()
        };
        let kept = store.deliveries(&account(), &filter, None, 10).await;
        let kept = kept.unwrap().items.into_iter();
        kept.map(|delivery| delivery.state).collect()
    };
    use DeliveryState::{Cancelled, Delivered, Leased, Pending};
    // The lease ran out, and was ended when others were given.
    assert_eq!(states("settling").await, [Pending, Delivered]);
    assert_eq!(states("by-hand").await, [Leased, Cancelled, Cancelled]);
}
