//! What the control plane asks in a session and the agent takes a while to answer: probes and
//! revocations.

use countersign_proto::v1::{
    self, FailureClass, connect_request::Message as FromAgent, connect_response::Message as ToAgent,
};
use countersign_shared::wire;

use crate::support::{
    bench::destination,
    world::{CALM, LEASE, World, hashed, job},
};

fn probe(id: u8, version: i32) -> ToAgent {
    ToAgent::Probe(v1::Probe {
        probe_id: vec![id; 16].into(),
        destination: destination().to_string(),
        client_certificate_version: version,
        presentation: v1::ProbePresentation::Chain.into(),
    })
}

#[tokio::test]
async fn a_probe_is_answered_while_jobs_go_on() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;
    world.give_bundle(&mut session).await;
    // This one is answered when the receiver answers, the other at once.
    session.say(probe(1, 7)).await;
    world.receiver.has_received(1).await;
    session.say(probe(2, 9)).await;
    let FromAgent::ProbeResult(unknown) = session.listen().await else {
        panic!("no probe's result");
    };
    assert_eq!(unknown.probe_id, vec![2; 16]);
    assert_eq!(unknown.class(), FailureClass::NotAttempted);

    session.say(ToAgent::Job(job(LEASE))).await;
    world.receiver.has_received(2).await;
    world.gate.add_permits(2);
    let (mut result, mut outcomes) = (None, Vec::new());
    while result.is_none() || outcomes.is_empty() {
        match session.listen().await {
            FromAgent::ProbeResult(it) => result = Some(it),
            FromAgent::OutcomeReport(it) => outcomes.extend(it.outcomes),
            FromAgent::BundleAcknowledgement(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let report = wire::probe_report_from_wire(result.unwrap()).unwrap();
    assert!(report.accepted, "{report:?}");
    assert_eq!((report.id.0, report.http_status), ([1; 16], Some(204)));
    assert_eq!(outcomes[0].class(), FailureClass::Delivered);
    session.acknowledge(&outcomes).await;
    agent.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn a_probe_of_a_session_that_ended_is_forgotten() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;
    world.give_bundle(&mut session).await;
    session.say(probe(1, 7)).await;
    world.receiver.has_received(1).await;
    drop(session);

    let (mut session, _) = world.control_plane.session(CALM).await;
    world.gate.add_permits(2);
    session.say(probe(2, 7)).await;
    let FromAgent::ProbeResult(result) = session.listen().await else {
        panic!("no probe's result");
    };
    assert_eq!(result.probe_id, vec![2; 16]);
    agent.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn a_revocation_is_acknowledged_when_nothing_goes_out_any_more() {
    let mut world = World::new().await;
    let agent = world.agent();
    let (mut session, _) = world.control_plane.session(CALM).await;
    let leaf = world.account.client();
    let mut bundle = world.bundle(1);
    bundle.certificate_chain = vec![leaf.certificate.to_vec().into()];
    bundle.private_key = leaf.key.clone().into();
    session.say(ToAgent::Bundle(hashed(bundle))).await;
    for _ in 0..2 {
        session.acknowledgement().await;
    }
    session.say(ToAgent::Job(job(LEASE))).await;
    world.receiver.has_received(1).await;

    let serial_numbers = vec![leaf.serial(), "0badc0de".to_owned()];
    session
        .say(ToAgent::Revocation(v1::Revocation {
            destination: destination().to_string(),
            serial_numbers: serial_numbers.clone(),
        }))
        .await;
    session.say(ToAgent::Job(job(LEASE))).await;
    let (mut acknowledged, mut outcomes) = (None, Vec::new());
    while acknowledged.is_none() || outcomes.len() < 2 {
        match session.listen().await {
            FromAgent::RevocationAcknowledgement(it) => acknowledged = Some(it),
            FromAgent::OutcomeReport(it) => outcomes.extend(it.outcomes),
            other => panic!("{other:?}"),
        }
    }
    let acknowledged = acknowledged.unwrap();
    assert_eq!(acknowledged.serial_numbers, serial_numbers);
    assert_eq!(acknowledged.destination, destination().to_string());
    for outcome in &outcomes {
        let class = FailureClass::ClientCertificateRevoked;
        assert_eq!(outcome.class(), class, "{outcome:?}");
    }
    assert_eq!(world.receiver.connections(), 1);
    assert_eq!(world.receiver.requests().len(), 1);
    session.acknowledge(&outcomes).await;
    agent.stop().await;
    world.stop().await;
}
