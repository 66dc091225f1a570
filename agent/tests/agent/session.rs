//! A whole agent against a control plane that says what the test wants: bundles, jobs, leases,
//! outcomes, reconnects, restarts.

use std::time::Duration;

use countersign_agent::app;
use countersign_proto::v1::{
    self, BundleStatus, FailureClass, LeaseExtensionResult, connect_request::Message as FromAgent,
    connect_response::Message as ToAgent,
};

use countersign_shared::{hpke::RecipientKey, wire};

use crate::support::{
    bench::destination,
    control_plane::{ControlPlane, Session},
    world::{CALM, LEASE, World, config, hashed, job},
};

#[tokio::test]
async fn a_job_goes_out_and_its_outcome_comes_back() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, hello) = world.control_plane.session(CALM).await;
    assert!(session.certificate.is_some());
    assert!(hello.held_bundles.is_empty() && hello.held_leases.is_empty());
    let Some(FromAgent::Credit(credit)) = session.hear().await else {
        panic!("no credit");
    };
    assert_eq!((credit.jobs, credit.bytes), (100, 1 << 20));

    world.give_bundle(&mut session).await;
    world.gate.add_permits(1);
    let job = job(LEASE);
    session.say(ToAgent::Job(job.clone())).await;
    // The outcome and the news that the bundle works come in either order.
    let mut outcomes = Vec::new();
    let mut active = false;
    while outcomes.is_empty() || !active {
        match session.listen().await {
            FromAgent::OutcomeReport(report) => outcomes.extend(report.outcomes),
            FromAgent::BundleAcknowledgement(it) => {
                assert_eq!(it.status(), BundleStatus::Active);
                active = true;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].class(), FailureClass::Delivered);
    assert_eq!(outcomes[0].delivery_id, job.delivery_id);
    let received = world.receiver.requests().remove(0);
    assert_eq!(received.body, job.payload);
    session.acknowledge(&outcomes).await;
    agent.stop().await;

    // After a restart the bundle is still there, and the acknowledged outcome is not.
    let agent = world.agent();
    let (mut session, hello) = world.control_plane.session(CALM).await;
    assert_eq!(hello.held_bundles.len(), 1);
    assert_eq!(hello.held_bundles[0].generation, 1);
    assert!(hello.held_leases.is_empty());
    world.gate.add_permits(1);
    session.say(ToAgent::Job(self::job(LEASE))).await;
    let mut seen = session.listen().await;
    if let FromAgent::BundleAcknowledgement(it) = &seen {
        assert_eq!(it.status(), BundleStatus::Active);
        seen = session.listen().await;
    }
    let FromAgent::OutcomeReport(report) = seen else {
        panic!("{seen:?}");
    };
    assert_eq!(report.outcomes[0].class(), FailureClass::Delivered);
    session.acknowledge(&report.outcomes).await;
    agent.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn bundles_are_verified_and_the_newest_wins() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;

    // Without a bundle nothing is attempted.
    session.say(ToAgent::Job(job(LEASE))).await;
    let outcomes = session.outcomes().await;
    assert_eq!(outcomes[0].class(), FailureClass::NotAttempted);
    session.acknowledge(&outcomes).await;

    // Secrets have to be sealed, and to this session.
    let (plain, sealed) = (world.bundle(4), world.bundle(4));
    let elsewhere = RecipientKey::generate().unwrap();
    let sealed = wire::seal_bundle(sealed, elsewhere.public()).unwrap();
    for bundle in [plain, sealed] {
        session.say_as_it_is(ToAgent::Bundle(bundle)).await;
        let (_, status, reason) = session.acknowledgement().await;
        assert_eq!(status, BundleStatus::Refused);
        assert!(reason.contains("sealed_secrets does not open"), "{reason}");
    }

    let mut altered = world.bundle(5);
    altered.url = "https://elsewhere.example/".into();
    session.say(ToAgent::Bundle(altered)).await;
    let (generation, status, reason) = session.acknowledgement().await;
    assert_eq!((generation, status), (5, BundleStatus::Refused));
    assert!(reason.contains("content_sha256"), "{reason}");

    world.give_bundle(&mut session).await;
    let mut unusable = world.bundle(2);
    unusable.private_key = world.account.client().key.into();
    session.say(ToAgent::Bundle(hashed(unusable))).await;
    let (_, status, reason) = session.acknowledgement().await;
    assert_eq!(status, BundleStatus::Refused);
    assert!(reason.contains("not for the private key"), "{reason}");

    session.say(ToAgent::Bundle(world.bundle(0))).await;
    let (_, status, reason) = session.acknowledgement().await;
    assert_eq!(status, BundleStatus::Refused);
    assert!(reason.contains("generation 1 is in use"), "{reason}");

    let removal = v1::BundleRemoval {
        destination: destination().to_string(),
    };
    session.say(ToAgent::BundleRemoval(removal)).await;
    session.say(ToAgent::Job(job(LEASE))).await;
    let outcomes = session.outcomes().await;
    assert_eq!(outcomes[0].class(), FailureClass::NotAttempted);
    agent.stop.send(()).unwrap();
    session.acknowledge(&outcomes).await;
    agent.ended.await.unwrap().unwrap();

    let agent = world.agent();
    let (_session, hello) = world.control_plane.session(CALM).await;
    assert!(hello.held_bundles.is_empty());
    agent.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn work_goes_on_without_a_session_and_is_reported_in_the_next() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;
    world.give_bundle(&mut session).await;
    let (first, second) = (job(LEASE), job(LEASE));
    session.say(ToAgent::Job(first.clone())).await;
    session.say(ToAgent::Job(second.clone())).await;
    while world.receiver.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(session);

    // Both are still held; the first is answered only now.
    let (mut session, hello) = world.control_plane.session(CALM).await;
    assert_eq!(hello.held_leases.len(), 2);
    world.gate.add_permits(1);
    let unacknowledged = loop {
        if let FromAgent::OutcomeReport(report) = session.listen().await {
            break report.outcomes;
        }
    };
    assert_eq!(unacknowledged[0].delivery_id, first.delivery_id);
    drop(session);

    let (mut session, hello) = world.control_plane.session(CALM).await;
    assert_eq!(hello.held_leases.len(), 2);
    world.gate.add_permits(1);
    let mut again = Vec::new();
    while again.len() < 2 {
        if let FromAgent::OutcomeReport(report) = session.listen().await {
            again.extend(report.outcomes);
        }
    }
    assert_eq!(again[0], unacknowledged[0]);
    assert_eq!(again[1].delivery_id, second.delivery_id);
    session.acknowledge(&again).await;
    agent.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn an_outcome_that_nobody_acknowledged_survives_a_restart() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;
    world.give_bundle(&mut session).await;
    session.say(ToAgent::Job(job(LEASE))).await;
    while world.receiver.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    // It is stopped while the attempt is in flight and no control plane says welcome.
    drop(session);
    agent.stop.send(()).unwrap();
    world.gate.add_permits(1);
    agent.ended.await.unwrap().unwrap();

    let agent = world.agent();
    let (mut session, hello) = next_session_with_leases(&mut world.control_plane).await;
    assert_eq!(hello.held_leases.len(), 1);
    let outcomes = session.outcomes().await;
    assert_eq!(outcomes[0].class(), FailureClass::Delivered);
    session.acknowledge(&outcomes).await;
    agent.stop().await;
    world.stop().await;
}

/// The stopped agent may have left a session that the test never took.
async fn next_session_with_leases(control_plane: &mut ControlPlane) -> (Session, v1::Hello) {
    loop {
        let (session, hello) = control_plane.session(CALM).await;
        if session.is_alive() {
            return (session, hello);
        }
    }
}

#[tokio::test]
async fn leases_are_extended_and_a_lost_one_is_not_attempted() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;
    world.give_bundle(&mut session).await;
    let short = Duration::from_secs(2);
    let (running, queued) = (job(short), job(short));
    session.say(ToAgent::Job(running.clone())).await;
    session.say(ToAgent::Job(queued.clone())).await;
    let mut asked: Vec<v1::HeldLease> = Vec::new();
    // They came one after the other, so one may be asked for before the other, and again with it.
    while asked.len() < 2 {
        let FromAgent::LeaseExtension(more) = session.listen().await else {
            panic!("no extension");
        };
        for lease in more.leases {
            if !asked.contains(&lease) {
                asked.push(lease);
            }
        }
    }
    let (kept, lost): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .partition(|lease| lease.delivery_id == running.delivery_id);
    let result = LeaseExtensionResult {
        extended: kept,
        lost,
        lease_duration: Some(wire::duration_to_wire(LEASE)),
    };
    session.say(ToAgent::LeaseExtensionResult(result)).await;
    // The agent acts on messages in order: its word on this one says that it has seen the other.
    session.say(ToAgent::Bundle(world.bundle(0))).await;
    loop {
        if let FromAgent::BundleAcknowledgement(_) = session.listen().await {
            break;
        }
    }
    world.gate.add_permits(2);
    let mut classes = Vec::new();
    while classes.len() < 2 {
        if let FromAgent::OutcomeReport(report) = session.listen().await {
            classes.extend(report.outcomes.iter().map(v1::Outcome::class));
            session.acknowledge(&report.outcomes).await;
        }
    }
    assert_eq!(
        classes,
        [FailureClass::Delivered, FailureClass::NotAttempted]
    );
    assert_eq!(world.receiver.requests().len(), 1);
    agent.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn a_silent_control_plane_is_left() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(100).await;
    let mut heartbeats = 0;
    while let Some(message) = session.hear().await {
        heartbeats += u32::from(matches!(message, FromAgent::Heartbeat(_)));
    }
    assert!(heartbeats >= 3, "{heartbeats}");
    let (_session, _) = world.control_plane.session(CALM).await;
    agent.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_gives_back_the_rest() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;
    world.give_bundle(&mut session).await;
    for _ in 0..3 {
        session.say(ToAgent::Job(job(LEASE))).await;
    }
    while world.receiver.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    agent.stop.send(()).unwrap();
    let mut classes = Vec::new();
    while classes.len() < 3 {
        if let FromAgent::OutcomeReport(report) = session.listen().await {
            classes.extend(report.outcomes.iter().map(v1::Outcome::class));
            session.acknowledge(&report.outcomes).await;
            world.gate.add_permits(1);
        }
    }
    assert_eq!(
        classes,
        [
            FailureClass::NotAttempted,
            FailureClass::NotAttempted,
            FailureClass::Delivered
        ]
    );
    agent.ended.await.unwrap().unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_data_directory_without_an_identity_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let ended = app::run_until(config(&folder.path().join("agent")), std::future::pending()).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("run `enroll` first"), "{error}");
}

#[tokio::test]
async fn a_drained_agent_finishes_what_is_in_flight_and_gives_back_the_rest() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;
    world.give_bundle(&mut session).await;
    for _ in 0..3 {
        session.say(ToAgent::Job(job(LEASE))).await;
    }
    while world.receiver.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    session.say(ToAgent::NoMoreJobs(v1::NoMoreJobs {})).await;
    let mut given_back = Vec::new();
    while given_back.len() < 2 {
        if let FromAgent::OutcomeReport(report) = session.listen().await {
            session.acknowledge(&report.outcomes).await;
            given_back.extend(report.outcomes.iter().map(v1::Outcome::class));
        }
    }
    assert_eq!(given_back, [FailureClass::NotAttempted; 2]);
    world.gate.add_permits(1);
    let mut seen = session.listen().await;
    while !matches!(seen, FromAgent::OutcomeReport(_)) {
        seen = session.listen().await;
    }
    let FromAgent::OutcomeReport(report) = seen else {
        unreachable!();
    };
    assert_eq!(report.outcomes[0].class(), FailureClass::Delivered);
    session.acknowledge(&report.outcomes).await;

    // It was resumed: the next job is attempted.
    world.gate.add_permits(1);
    session.say(ToAgent::Job(job(LEASE))).await;
    let outcomes = session.outcomes().await;
    assert_eq!(outcomes[0].class(), FailureClass::Delivered);
    session.acknowledge(&outcomes).await;
    agent.stop().await;
    world.stop().await;
}
