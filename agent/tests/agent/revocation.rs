//! Revoked certificates: their connections end at once, idle or busy, and nothing goes out with them
//! any more.

use std::{sync::Arc, time::Duration};

use crate::support::{
    bench::{Bench, bundle, destination},
    parties::{Pki, credential},
    pki::Leaf,
    receiver::{Answer, Receiver, Setup, answer},
};
use countersign_agent::deliver::Stopped;
use countersign_shared::{
    bundle::{Bundle, MtlsEnforcement},
    class::FailureClass as Class,
    outcome::Outcome,
};
use tokio::{
    io::AsyncReadExt as _,
    sync::{Semaphore, mpsc},
};
use tokio_rustls::TlsAcceptor;

fn revoked_here(outcome: &Outcome) {
    assert_eq!(
        outcome.class,
        Class::ClientCertificateRevoked,
        "{outcome:?}"
    );
    assert!(outcome.detail.contains("control plane"), "{outcome:?}");
}

/// Waits until what was stopped has ended: soon, and not only when the pool gives an unused
/// connection up after 30 s or the attempt is over after 20 s.
async fn soon(stopped: Stopped) {
    let ended = tokio::time::timeout(Duration::from_secs(10), stopped.ended());
    ended.await.expect("a connection is still open");
}

fn ours(pki: &Pki, url: &str, leaf: &Leaf) -> Bundle {
    bundle(url, leaf, vec![pki.receiver.der()])
}

/// A receiver that answers as many requests as the semaphore has permits.
async fn gated(bench: &Bench, setup: Setup<'_>) -> (Receiver, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let pass = Arc::clone(&gate);
    let receiver = Receiver::answering(&bench.tasks, setup.config(), move |_| {
        let pass = Arc::clone(&pass);
        async move {
            pass.acquire().await.unwrap().forget();
            answer(204, "")
        }
    });
    (receiver.await, gate)
}

fn closing(_: crate::support::receiver::Received) -> std::future::Ready<Answer> {
    let mut answer = answer(204, "");
    let headers = answer.headers_mut();
    headers.insert("connection", "close".parse().unwrap());
    std::future::ready(answer)
}

#[tokio::test]
async fn idle_connections_are_closed_and_no_session_is_resumed() {
    let pki = Pki::new();
    for keeps in [true, false] {
        let (bench, leaf) = (Bench::new(), pki.account.client());
        let config = pki.strict().config();
        let receiver = if keeps {
            Receiver::start(&bench.tasks, config, 204).await
        } else {
            Receiver::answering(&bench.tasks, config, closing).await
        };
        bench.install(ours(&pki, &receiver.url(), &leaf));
        assert_eq!(bench.deliver("x").await.class, Class::Delivered);

        let stopped = bench.clients.revoke(&destination(), &[leaf.serial()]);
        assert_eq!(stopped.connections(), usize::from(keeps));
        soon(stopped).await;
        let outcome = bench.deliver("x").await;
        revoked_here(&outcome);
        assert_eq!(outcome.handshake, None);
        assert_eq!(receiver.connections(), 1);

        // Nor under another policy, where the client is another one.
        bench.install(Bundle {
            mtls_enforcement: MtlsEnforcement::Refuse,
            ..ours(&pki, &receiver.url(), &leaf)
        });
        revoked_here(&bench.deliver("x").await);
        assert_eq!((receiver.connections(), receiver.requests().len()), (1, 1));

        // Another certificate works.
        bench.install(ours(&pki, &receiver.url(), &pki.account.client()));
        assert_eq!(bench.deliver("x").await.class, Class::Delivered);
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_connections_end_at_once() {
    let pki = Pki::new();
    let setups: [fn(&Pki) -> Setup<'_>; 3] = [
        |pki| pki.strict(),
        |pki| pki.strict().tls12(),
        |pki| pki.strict().h2(),
    ];
    for setup in setups {
        let (bench, leaf) = (Bench::new(), pki.account.client());
        let (receiver, gate) = gated(&bench, setup(&pki)).await;
        bench.install(ours(&pki, &receiver.url(), &leaf));
        for _ in 0..100 {
            bench.lanes.take(bench.job(vec![b'x'; 10_000]));
        }
        receiver.has_received(64).await;
        let stopped = bench.clients.revoke(&destination(), &[leaf.serial()]);
        assert!(stopped.connections() >= 1);
        soon(stopped).await;
        // The receiver never answers: 64 are cut off, the others are not begun.
        for _ in 0..100 {
            revoked_here(&bench.next().await);
        }
        assert_eq!(receiver.requests().len(), 64);
        assert_eq!(bench.metrics.in_flight.get(), 0);
        gate.add_permits(100);
        revoked_here(&bench.deliver("x").await);
        assert_eq!(receiver.requests().len(), 64);
        bench.stop().await;
    }
}

#[tokio::test]
async fn what_waits_for_the_receiver_to_read_or_to_shake_hands_ends_too() {
    let pki = Pki::new();
    for shakes_hands in [true, false] {
        let (bench, leaf) = (Bench::new(), pki.account.client());
        let acceptor = TlsAcceptor::from(Arc::new(pki.strict().config()));
        let (reached, mut reaching) = mpsc::channel(1);
        let address = Receiver::accepting(&bench.tasks, move |tcp| {
            let (acceptor, reached) = (acceptor.clone(), reached.clone());
            async move {
                if shakes_hands {
                    let mut stream = acceptor.accept(tcp).await?;
                    // It reads the beginning and no more.
                    stream.read_u8().await?;
                    reached.send(()).await.unwrap();
                    std::future::pending().await
                } else {
                    let _held = tcp;
                    reached.send(()).await.unwrap();
                    std::future::pending().await
                }
            }
        })
        .await;
        bench.install(ours(&pki, &format!("https://{address}/"), &leaf));
        bench.lanes.take(bench.job(vec![b'x'; 16 << 20]));
        reaching.recv().await.unwrap();
        let stopped = bench.clients.revoke(&destination(), &[leaf.serial()]);
        assert_eq!(stopped.connections(), 1);
        soon(stopped).await;
        revoked_here(&bench.next().await);
        bench.stop().await;
    }
}

#[tokio::test]
async fn attempts_go_on_with_a_fallback_that_is_not_revoked() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let (new, old) = (pki.account.client(), pki.account.client());
    let (receiver, gate) = gated(&bench, pki.strict()).await;
    let rotating = Bundle {
        active: credential(8, &new),
        fallback: Some(credential(7, &old)),
        ..pki.bundle(&receiver.url())
    };
    bench.install(rotating.clone());
    bench.lanes.take(bench.job("x"));
    receiver.has_received(1).await;
    let stopped = bench.clients.revoke(&destination(), &[new.serial()]);
    gate.add_permits(10);
    soon(stopped).await;
    let both = [bench.next().await, bench.deliver("x").await];
    bench.install(rotating);
    for outcome in both.into_iter().chain([bench.deliver("x").await]) {
        assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
        assert_eq!(
            outcome
                .handshake
                .unwrap()
                .presented
                .as_ref()
                .unwrap()
                .version,
            7
        );
        let refused = outcome.refused.unwrap();
        let class = Class::ClientCertificateRevoked;
        assert_eq!((refused.version, refused.class), (8, class));
    }
    assert_eq!(receiver.connections(), 2);

    // Both.
    let _ = bench.clients.revoke(&destination(), &[old.serial()]);
    revoked_here(&bench.deliver("x").await);
    assert_eq!(receiver.connections(), 2);
    bench.stop().await;
}

#[tokio::test]
async fn a_revocation_that_overtakes_its_bundle_holds() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let leaf = pki.account.client();
    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    let stopped = bench.clients.revoke(&destination(), &[leaf.serial()]);
    assert_eq!(stopped.connections(), 0);
    soon(stopped).await;
    bench.install(ours(&pki, &receiver.url(), &leaf));
    revoked_here(&bench.deliver("x").await);
    assert_eq!(receiver.connections(), 0);
    bench.stop().await;
}
