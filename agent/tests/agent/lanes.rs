//! Lanes: order, bounds, leases, and what is given back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::support::{
    bench::{Bench, bundle, destination},
    pki::Authority,
    receiver::{Clients, Receiver, Setup, answer},
};
use countersign_agent::deliver::Activation;
use countersign_shared::{
    bundle::Bundle,
    class::FailureClass as Class,
    job::{LeasedJob, OfflineWork},
};
use tokio::sync::Semaphore;

/// A bench whose receiver answers as many requests as `gate` has permits.
async fn gated(limit: u32) -> (Bench, Receiver, Arc<Semaphore>) {
    let (bench, receiver_ca, account) = (
        Bench::new(),
        Authority::new("Receiver"),
        Authority::new("Acme"),
    );
    let gate = Arc::new(Semaphore::new(0));
    let config = Setup::new(receiver_ca.server(), Clients::Of(&account)).config();
    let pass = Arc::clone(&gate);
    let receiver = Receiver::answering(&bench.tasks, config, move |_| {
        let pass = Arc::clone(&pass);
        async move {
            pass.acquire().await.unwrap().forget();
            answer(204, "")
        }
    })
    .await;
    let bundle = bundle(&receiver.url(), &account.client(), vec![receiver_ca.der()]);
    bench.install(Bundle {
        concurrency_limit: limit,
        ..bundle
    });
    (bench, receiver, gate)
}

#[tokio::test]
async fn the_concurrency_limit_holds_and_the_order_is_kept() {
    let (bench, receiver, gate) = gated(1).await;
    let jobs: Vec<_> = (0..20).map(|number| bench.job(vec![number])).collect();
    let order: Vec<_> = jobs.iter().map(|job| job.lease.delivery).collect();
    for job in jobs {
        bench.lanes.take(job);
    }
    gate.add_permits(20);
    let mut done = Vec::new();
    for _ in 0..20 {
        done.push(bench.next().await.delivery);
    }
    assert_eq!(done, order);
    assert_eq!(receiver.seen.most_in_flight.load(Ordering::SeqCst), 1);
    assert_eq!(bench.lanes.in_hand().size(), (0, 0));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_share_few_connections() {
    let (bench, receiver, gate) = gated(8).await;
    gate.add_permits(500);
    for _ in 0..500 {
        bench.lanes.take(bench.job("x"));
    }
    for _ in 0..500 {
        assert_eq!(bench.next().await.class, Class::Delivered);
    }
    assert!(receiver.seen.most_in_flight.load(Ordering::SeqCst) <= 8);
    assert!(receiver.seen.connections.load(Ordering::SeqCst) <= 16);
    assert_eq!(bench.metrics.in_flight.get(), 0);
    bench.stop().await;
}

#[tokio::test]
async fn a_full_lane_harms_no_other() {
    let (bench, _receiver, gate) = gated(1).await;
    for _ in 0..50 {
        bench.lanes.take(bench.job("x"));
    }
    let mut other = bench.job("x");
    other.destination = "accounts/acme/destinations/other".parse().unwrap();
    let delivery = other.lease.delivery;
    bench.lanes.take(other);
    let outcome = bench.next().await;
    assert_eq!(
        (outcome.delivery, outcome.class),
        (delivery, Class::NotAttempted)
    );
    gate.add_permits(50);
    for _ in 0..50 {
        assert_eq!(bench.next().await.class, Class::Delivered);
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_job_whose_lease_ended_or_was_lost_is_not_attempted() {
    let (bench, receiver, gate) = gated(1).await;
    let mut late = bench.job("x");
    late.expires_at = bench.clock.now();
    bench.lanes.take(late);
    let outcome = bench.next().await;
    assert_eq!(outcome.class, Class::NotAttempted);
    assert!(outcome.detail.contains("lease ended"));
    let mut late = bench.job("x");
    late.offline = Some(OfflineWork {
        attempt_deadline: Some(bench.clock.now().minus(Duration::from_secs(1))),
    });
    bench.lanes.take(late);
    let outcome = bench.next().await;
    assert_eq!(outcome.class, Class::NotAttempted);
    assert!(outcome.detail.contains("deadline"));

    let (first, second) = (bench.job("first"), bench.job("second"));
    let lease = second.lease;
    bench.lanes.take(first);
    bench.lanes.take(second);
    bench.lanes.in_hand().lost(&[lease]);
    gate.add_permits(2);
    assert_eq!(bench.next().await.class, Class::Delivered);
    assert_eq!(bench.next().await.class, Class::NotAttempted);
    assert_eq!(receiver.requests().len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn what_may_go_on_alone_stays_in_hand_after_a_failure_until_there_is_a_session() {
    let (bench, receiver_ca, account) = (
        Bench::new(),
        Authority::new("Receiver"),
        Authority::new("Acme"),
    );
    let config = Setup::new(receiver_ca.server(), Clients::Of(&account)).config();
    let failing = |_| async { answer(503, "") };
    let receiver = Receiver::answering(&bench.tasks, config, failing).await;
    let bundle = bundle(&receiver.url(), &account.client(), vec![receiver_ca.der()]);
    bench.install(bundle);
    let alone = |payload: &'static str| LeasedJob {
        offline: Some(OfflineWork::default()),
        ..bench.job(payload)
    };
    let first = alone("first");
    bench.lanes.take(first.clone());
    // One without that leave is told at once, though it came later.
    bench.lanes.take(bench.job("second"));
    let outcome = bench.next().await;
    assert_ne!(outcome.delivery, first.lease.delivery);
    while receiver.requests().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.lanes.in_hand().leases(), [first.lease]);
    assert_eq!(bench.outbox.kept().len(), 1);
    bench.outbox.begin_session();
    let outcome = bench.next().await;
    assert_eq!(outcome.delivery, first.lease.delivery);
    assert_eq!(
        (outcome.class, outcome.unrecorded_attempts),
        (Class::HttpServerError, 0)
    );
    assert!(bench.outbox.kept().is_empty());

    // Without a session what is kept stays where it is when the agent stops, and is nobody's in hand.
    bench.outbox.end_session();
    bench.lanes.take(alone("third"));
    while receiver.requests().len() < 3 {
        tokio::task::yield_now().await;
    }
    bench.lanes.close();
    while bench.lanes.in_hand().size().0 > 0 {
        tokio::task::yield_now().await;
    }
    let (kept, told) = (bench.outbox.kept().len(), bench.outbox.len());
    assert_eq!(
        kept + told,
        1,
        "on disk, or told if the attempt had not ended"
    );
    bench.stop().await;
}

#[tokio::test]
async fn removal_and_stopping_give_back_what_has_not_begun() {
    let (bench, receiver, gate) = gated(1).await;
    for _ in 0..3 {
        bench.lanes.take(bench.job("x"));
    }
    // The first is at the receiver before anything is removed.
    while receiver.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.lanes.remove(&destination());
    for _ in 0..2 {
        assert_eq!(bench.next().await.class, Class::NotAttempted);
    }
    bench.lanes.close();
    bench.lanes.take(bench.job("x"));
    let outcome = bench.next().await;
    assert_eq!(outcome.class, Class::NotAttempted);
    assert!(outcome.detail.contains("stopping"));
    gate.add_permits(1);
    assert_eq!(bench.next().await.class, Class::Delivered);
    bench.stop().await;
}

#[tokio::test]
async fn a_bundle_is_active_after_its_first_answer_and_keeps_its_connections() {
    let (mut bench, receiver, gate) = gated(4).await;
    gate.add_permits(4);
    bench.deliver("x").await;
    let expected = |generation| Activation {
        destination: destination(),
        generation,
    };
    assert_eq!(bench.activations.recv().await, Some(expected(1)));
    bench.deliver("x").await;
    assert!(bench.activations.try_recv().is_err());
    assert!(bench.lanes.bundle(&destination()).unwrap().is_active());
    assert_eq!(receiver.seen.connections.load(Ordering::SeqCst), 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_new_bundle_is_used_by_jobs_that_are_queued_already() {
    let (bench, receiver, gate) = gated(1).await;
    bench.lanes.take(bench.job("x"));
    bench.lanes.take(bench.job("x"));
    while receiver.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    let (other, stranger) = (Authority::new("Other"), Authority::new("Stranger"));
    bench.install(Bundle {
        attempt_timeout: Duration::from_secs(5),
        ..bundle(&receiver.url(), &stranger.client(), vec![other.der()])
    });
    gate.add_permits(1);
    assert_eq!(bench.next().await.class, Class::Delivered);
    assert_eq!(bench.next().await.class, Class::ServerCaNotTrusted);
    bench.stop().await;
}
