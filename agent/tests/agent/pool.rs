//! Connections that wait for their next request: which are used again, and how the others end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{
    bench::{Bench, bundle},
    parties::Pki,
    receiver::{Receiver, answer},
};
use countersign_shared::{class::FailureClass as Class, outcome::Outcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Barrier, mpsc},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

const ANSWER: &[u8] = b"HTTP/1.1 204 Done\r\n\r\n";

fn reused(outcome: &Outcome) -> bool {
    assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
    outcome.handshake.as_ref().unwrap().connection_reused
}

/// A receiver that tells of each connection whether it was closed as TLS wants it, with
/// close_notify.
async fn watched(bench: &Bench, pki: &Pki) -> (SocketAddr, mpsc::UnboundedReceiver<bool>) {
    let (ended, ends) = mpsc::unbounded_channel();
    let acceptor = TlsAcceptor::from(Arc::new(pki.strict().config()));
    let address = Receiver::accepting(&bench.tasks, move |tcp| {
        let (acceptor, ended) = (acceptor.clone(), ended.clone());
        async move {
            let mut stream = acceptor.accept(tcp).await?;
            let mut request = [0; 4096];
            loop {
                match stream.read(&mut request).await {
                    // Requests are small and come at once.
                    Ok(1..) => stream.write_all(ANSWER).await?,
                    end => {
                        ended.send(end.is_ok()).unwrap();
                        return Ok(());
                    }
                }
            }
        }
    })
    .await;
    (address, ends)
}

#[tokio::test]
async fn what_waits_too_long_is_closed_and_what_does_not_is_used_again() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let (address, mut ends) = watched(&bench, &pki).await;
    bench.install(pki.bundle(&format!("https://{address}/")));
    assert!(!reused(&bench.deliver("x").await));
    bench.clients.sweep(Instant::now());
    assert!(reused(&bench.deliver("x").await));

    bench
        .clients
        .sweep(Instant::now() + Duration::from_secs(31));
    assert_eq!(ends.recv().await, Some(true));
    assert!(!reused(&bench.deliver("x").await));
    assert!(ends.try_recv().is_err(), "the new one is open");
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_nobody_uses_any_more_takes_leave() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let (address, mut ends) = watched(&bench, &pki).await;
    bench.install(pki.bundle(&format!("https://{address}/")));
    assert!(!reused(&bench.deliver("x").await));
    // With another certificate.
    bench.install(pki.bundle(&format!("https://{address}/")));
    assert_eq!(ends.recv().await, Some(true));
    assert!(!reused(&bench.deliver("x").await));
    bench.stop().await;
}

#[tokio::test]
async fn a_destination_that_moves_is_delivered_to_where_it_is() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let leaf = pki.account.client();
    let start = || Receiver::start(&bench.tasks, pki.strict().config(), 204);
    let (first, second) = (start().await, start().await);
    for receiver in [&first, &second, &first] {
        bench.install(bundle(&receiver.url(), &leaf, vec![pki.receiver.der()]));
        assert_eq!(bench.deliver("x").await.class, Class::Delivered);
    }
    let requests = [first.requests().len(), second.requests().len()];
    assert_eq!(requests, [2, 1]);
    bench.stop().await;
}

/// Of many that their receiver has closed meanwhile: more than a request is sent again.
#[tokio::test]
async fn connections_that_ended_while_they_waited_cost_no_delivery() {
    const MANY: usize = 8;
    let (bench, pki) = (Bench::new(), Pki::new());
    let acceptor = TlsAcceptor::from(Arc::new(pki.strict().config()));
    let together = Arc::new(Barrier::new(MANY));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = Receiver::accepting(&bench.tasks, move |tcp| {
        let (acceptor, together) = (acceptor.clone(), Arc::clone(&together));
        let is_early = count.fetch_add(1, Ordering::SeqCst) < MANY;
        async move {
            let mut stream = acceptor.accept(tcp).await?;
            let mut request = [0; 4096];
            assert_ne!(stream.read(&mut request).await?, 0);
            if is_early {
                together.wait().await;
            }
            stream.write_all(ANSWER).await?;
            if is_early {
                // Without a word in HTTP, and from here on.
                stream.shutdown().await?;
            }
            let _ = stream.read_u8().await;
            Ok(())
        }
    })
    .await;
    bench.install(pki.bundle(&format!("https://{address}/")));
    for _ in 0..MANY {
        bench.lanes.take(bench.job("x"));
    }
    for _ in 0..MANY {
        assert!(!reused(&bench.next().await));
    }
    assert!(!reused(&bench.deliver("x").await));
    assert_eq!(connections.load(Ordering::SeqCst), MANY + 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_connection_of_http_2_takes_many_requests_at_once() {
    const MANY: usize = 8;
    let (bench, pki) = (Bench::new(), Pki::new());
    let together = Arc::new(Barrier::new(MANY));
    let receiver = Receiver::answering(&bench.tasks, pki.strict().h2().config(), move |_| {
        let together = Arc::clone(&together);
        async move {
            together.wait().await;
            answer(204, "")
        }
    })
    .await;
    bench.install(pki.bundle(&receiver.url()));
    let mut opened = 0;
    for round in 0..3 {
        for _ in 0..MANY {
            bench.lanes.take(bench.job("x"));
        }
        for _ in 0..MANY {
            let outcome = bench.next().await;
            assert!(reused(&outcome) || round == 0);
        }
        if round == 0 {
            opened = receiver.connections();
        }
        assert_eq!(receiver.connections(), opened, "none after the first round");
    }
    // It is given up like others.
    bench
        .clients
        .sweep(Instant::now() + Duration::from_secs(31));
    for _ in 0..MANY {
        bench.lanes.take(bench.job("x"));
    }
    let mut fresh = 0;
    for _ in 0..MANY {
        fresh += usize::from(!reused(&bench.next().await));
    }
    assert!(fresh >= 1);
    bench.stop().await;
}
