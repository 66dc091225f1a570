//! Probes: what a receiver thinks of a certificate, of its leaf alone, and of none.

use std::sync::Arc;

use crate::support::{
    bench::{Bench, destination},
    parties::{Pki, credential},
    receiver::{Clients, Receiver, Setup, answer},
};
use countersign_shared::{
    bundle::{Bundle, MtlsEnforcement},
    class::FailureClass as Class,
    probe::{Probe, ProbeId, ProbePresentation, ProbeReport},
    tasks::OnFailure,
};
use http::Method;
use tokio::sync::{Semaphore, mpsc};

use ProbePresentation::{Chain, LeafOnly, Nothing};

const ACTIVE: u32 = 7;
const CANDIDATE: u32 = 8;

fn probe(version: u32, presentation: ProbePresentation) -> Probe {
    Probe {
        id: ProbeId([version as u8; 16]),
        destination: destination(),
        version,
        presentation,
    }
}

/// Class, accepted, HTTP status.
fn found(report: &ProbeReport) -> (Class, bool, Option<u16>) {
    (report.class, report.accepted, report.http_status)
}

#[tokio::test]
async fn a_cross_signed_certificate_shows_whether_the_receiver_trusts_the_new_authority() {
    let pki = Pki::new();
    let next = pki.account.subordinate("Countersign Delivery CA — acme G2");
    let setups: [fn(&Pki) -> Setup<'_>; 3] = [
        |pki| pki.strict(),
        |pki| pki.strict().tls12(),
        |pki| pki.strict().h2(),
    ];
    for setup in setups {
        let (bench, leaf) = (Bench::new(), next.client());
        let receiver = Receiver::start(&bench.tasks, setup(&pki).config(), 405).await;
        let mut candidate = credential(CANDIDATE, &leaf);
        candidate.chain.push(next.der());
        bench.install(Bundle {
            candidate: Some(candidate),
            ..pki.bundle(&receiver.url())
        });

        let chain = bench.probes.make(&probe(CANDIDATE, Chain)).await;
        assert_eq!(
            found(&chain),
            (Class::HttpClientError, true, Some(405)),
            "{chain:?}"
        );
        assert_eq!(chain.id, ProbeId([CANDIDATE as u8; 16]));
        let record = chain.handshake.unwrap();
        assert_eq!(record.presented.unwrap().serial, leaf.serial());
        assert!(!record.resumed && !record.connection_reused);
        assert_eq!(chain.server_chain.len(), 1);
        assert!(chain.timings.handshake.is_some() && chain.timings.total.is_some());
        let asked = receiver.requests().remove(0);
        assert_eq!(asked.method, Method::OPTIONS);
        assert_eq!((asked.path.as_str(), asked.body.len()), ("/hook?x=1", 0));
        assert!(asked.headers.contains_key("user-agent"));
        assert!(!asked.headers.contains_key("webhook-id"));
        assert!(!asked.headers.contains_key("webhook-signature"));

        let leaf_only = bench.probes.make(&probe(CANDIDATE, LeafOnly)).await;
        assert_eq!(found(&leaf_only), (Class::ClientCaNotTrusted, false, None));
        let nothing = bench.probes.make(&probe(CANDIDATE, Nothing)).await;
        assert_eq!(
            found(&nothing),
            (Class::ClientCertificateRequired, false, None),
            "{nothing:?}"
        );
        assert_eq!(nothing.handshake.unwrap().presented, None);
        let active = bench.probes.make(&probe(ACTIVE, LeafOnly)).await;
        assert!(active.accepted, "{active:?}");
        assert_eq!((receiver.connections(), receiver.requests().len()), (4, 2));
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_probe_neither_takes_nor_leaves_a_connection_or_a_session() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    bench.install(pki.bundle(&receiver.url()));
    assert_eq!(bench.deliver("x").await.class, Class::Delivered);
    for connections in [2, 3] {
        let report = bench.probes.make(&probe(ACTIVE, Chain)).await;
        assert_eq!(found(&report), (Class::Delivered, true, Some(204)));
        let record = report.handshake.unwrap();
        assert!(!record.resumed && !record.connection_reused, "{record:?}");
        assert_eq!(receiver.connections(), connections);
    }
    let record = bench.deliver("x").await.handshake.unwrap();
    assert!(record.connection_reused);
    assert_eq!(receiver.connections(), 3);
    bench.stop().await;
}

#[tokio::test]
async fn a_probe_leaves_the_sessions_of_deliveries_alone() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::answering(&bench.tasks, pki.strict().config(), |_| {
        let mut answer = answer(204, "");
        let headers = answer.headers_mut();
        headers.insert("connection", "close".parse().unwrap());
        std::future::ready(answer)
    })
    .await;
    bench.install(pki.bundle(&receiver.url()));
    assert!(!bench.deliver("x").await.handshake.unwrap().resumed);
    let report = bench.probes.make(&probe(ACTIVE, Chain)).await;
    assert!(report.accepted && !report.handshake.unwrap().resumed);
    assert!(bench.deliver("x").await.handshake.unwrap().resumed);
    bench.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_insist_is_seen() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let config = || Setup::new(pki.receiver.server(), Clients::Any).config();
    let receiver = Receiver::start(&bench.tasks, config(), 404).await;
    bench.install(pki.bundle(&receiver.url()));
    for presentation in [Chain, Nothing] {
        let report = bench.probes.make(&probe(ACTIVE, presentation)).await;
        assert_eq!(found(&report), (Class::HttpClientError, true, Some(404)));
        let record = report.handshake.unwrap();
        assert!(!record.client_certificate_requested && record.presented.is_none());
    }
    let before = receiver.requests().len();
    bench.install(Bundle {
        mtls_enforcement: MtlsEnforcement::Refuse,
        ..pki.bundle(&receiver.url())
    });
    let report = bench.probes.make(&probe(ACTIVE, Chain)).await;
    assert_eq!(found(&report), (Class::MtlsNotEnforced, false, None));
    assert_eq!(receiver.requests().len(), before);

    // A denial without a certificate may be the application's check of it.
    let receiver = Receiver::start(&bench.tasks, config(), 403).await;
    bench.install(pki.bundle(&receiver.url()));
    let report = bench.probes.make(&probe(ACTIVE, Nothing)).await;
    assert_eq!(found(&report), (Class::HttpClientError, false, Some(403)));
    assert!(report.detail.contains("No certificate was presented"));
    bench.stop().await;
}

#[tokio::test]
async fn a_page_that_refuses_the_certificate_is_no_acceptance() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let page = "<html><head><title>400 The SSL certificate error</title></head>";
    let receiver = Receiver::answering(&bench.tasks, pki.strict().config(), move |_| {
        std::future::ready(answer(400, page))
    })
    .await;
    bench.install(pki.bundle(&receiver.url()));
    let report = bench.probes.make(&probe(ACTIVE, Chain)).await;
    let expected = (Class::ClientCertificateRejected, false, Some(400));
    assert_eq!(found(&report), expected, "{report:?}");
    bench.stop().await;
}

#[tokio::test]
async fn the_chain_of_a_server_that_is_not_trusted_is_told() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let server = pki.stranger.server();
    let certificate = server.certificate.clone();
    let config = Setup::new(server, Clients::Of(&pki.account)).config();
    let receiver = Receiver::start(&bench.tasks, config, 204).await;
    bench.install(pki.bundle(&receiver.url()));
    let report = bench.probes.make(&probe(ACTIVE, Chain)).await;
    assert_eq!(found(&report), (Class::ServerCaNotTrusted, false, None));
    assert_eq!(report.server_chain, [certificate]);
    assert!(receiver.requests().is_empty());
    bench.stop().await;
}

#[tokio::test]
async fn what_the_agent_does_not_hold_or_must_not_use_is_not_presented() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let report = bench.probes.make(&probe(ACTIVE, Chain)).await;
    assert_eq!(found(&report), (Class::NotAttempted, false, None));
    assert!(report.detail.contains("no usable bundle"));

    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    let (revoked, expired) = (pki.account.client(), pki.account.expired_client());
    bench.install(Bundle {
        candidate: Some(credential(CANDIDATE, &revoked)),
        fallback: Some(credential(6, &expired)),
        ..pki.bundle(&receiver.url())
    });
    let stopped = bench.clients.revoke(&destination(), &[revoked.serial()]);
    stopped.ended().await;
    for (version, class, detail) in [
        (5, Class::NotAttempted, "this version"),
        (6, Class::ClientCertificateExpired, "nothing was sent"),
        (CANDIDATE, Class::ClientCertificateRevoked, "control plane"),
    ] {
        let report = bench.probes.make(&probe(version, Chain)).await;
        assert_eq!(found(&report), (class, false, None), "{version}");
        assert!(report.detail.contains(detail), "{report:?}");
    }
    assert_eq!(receiver.connections(), 0);
    // Without a certificate it does not matter which.
    let report = bench.probes.make(&probe(CANDIDATE, Nothing)).await;
    assert_eq!(report.class, Class::ClientCertificateRequired);
    bench.stop().await;
}

#[tokio::test]
async fn a_revocation_ends_a_probe_too() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let leaf = pki.account.client();
    let receiver = Receiver::answering(&bench.tasks, pki.strict().config(), |_| {
        std::future::pending()
    })
    .await;
    bench.install(Bundle {
        candidate: Some(credential(CANDIDATE, &leaf)),
        ..pki.bundle(&receiver.url())
    });
    let revoke = async {
        receiver.has_received(1).await;
        let stopped = bench.clients.revoke(&destination(), &[leaf.serial()]);
        assert_eq!(stopped.connections(), 1);
        stopped.ended().await;
    };
    let asked = probe(CANDIDATE, Chain);
    let (report, ()) = tokio::join!(bench.probes.make(&asked), revoke);
    assert_eq!(
        found(&report),
        (Class::ClientCertificateRevoked, false, None)
    );
    bench.stop().await;
}

#[tokio::test]
async fn a_few_probes_are_made_at_once_and_too_many_are_given_back() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let gate = Arc::new(Semaphore::new(0));
    let pass = Arc::clone(&gate);
    let receiver = Receiver::answering(&bench.tasks, pki.strict().config(), move |_| {
        let pass = Arc::clone(&pass);
        async move {
            pass.acquire().await.unwrap().forget();
            answer(204, "")
        }
    })
    .await;
    bench.install(pki.bundle(&receiver.url()));
    let (sender, mut reports) = mpsc::channel(80);
    for _ in 0..70 {
        let (probes, sender) = (bench.probes.clone(), sender.clone());
        bench.tasks.spawn("probe", OnFailure::Log, async move {
            sender.send(probes.make(&probe(ACTIVE, Chain)).await).await
        });
    }
    for _ in 0..6 {
        let report = reports.recv().await.unwrap();
        assert_eq!(report.class, Class::NotAttempted, "{report:?}");
    }
    receiver.has_received(4).await;
    gate.add_permits(64);
    for _ in 0..64 {
        let report = reports.recv().await.unwrap();
        assert!(report.accepted, "{report:?}");
    }
    let most = &receiver.seen.most_in_flight;
    assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 4);
    bench.stop().await;
}
