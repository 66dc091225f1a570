//! Attempts against real TLS servers in this process: what reaches the receiver, and what the agent
//! says of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{
    bench::{Bench, bundle},
    parties::Pki,
    receiver::{Answer, Clients, Receiver, Setup, answer},
};
use bytes::Bytes;
use countersign_shared::{
    bundle::{Bundle, Credential, MinimumTls, MtlsEnforcement},
    class::FailureClass as Class,
    signature,
    time::{ManualClock, Timestamp},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

const MEBIBYTE: usize = 1 << 20;

#[tokio::test]
async fn a_delivery_carries_both_proofs_and_the_record_says_so() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    let bundle = pki.bundle(&receiver.url());
    let secret = bundle.signing_secrets[0].clone();
    let leaf = countersign_shared::tls::certificate_facts(&bundle.active.chain[0]).unwrap();
    bench.install(bundle);

    let payload: Vec<u8> = (0..=255).cycle().take(3 * 256).collect();
    let outcome = bench.deliver(payload.clone()).await;
    assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
    assert_eq!(outcome.http_status, Some(204));
    assert!(!outcome.mtls_not_enforced);
    let record = outcome.handshake.unwrap();
    assert!(record.completed && record.client_certificate_requested);
    assert_eq!(record.tls_version.as_deref(), Some("TLSv1.3"));
    assert_eq!(record.alpn_protocol.as_deref(), Some("http/1.1"));
    let presented = record.presented.clone().unwrap();
    assert_eq!((presented.version, presented.serial), (7, leaf.serial));
    let server = record.server.clone().unwrap();
    assert!(server.issuer.contains("Receiver CA"), "{server:?}");
    assert!(record.acceptable_ca_names[0].contains("acme G1"));
    assert_eq!(record.peer_address, Some(receiver.address.to_string()));
    assert!(!record.connection_reused && !record.resumed);
    let timings = outcome.timings;
    assert!(timings.handshake.is_some() && timings.response.is_some());

    let received = receiver.requests().remove(0);
    assert_eq!(received.body, payload);
    assert_eq!(received.path, "/hook?x=1");
    let header = |name: &str| received.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("webhook-id"), outcome.delivery.to_string());
    assert_eq!(header("content-type"), "application/json");
    assert!(header("user-agent").starts_with("Countersign/"));
    let at: i64 = header("webhook-timestamp").parse().unwrap();
    let signature = header("webhook-signature");
    let id = header("webhook-id");
    assert!(signature::verify_v1(&secret, &id, at, &payload, &signature));

    // The second goes over the same connection, and the record is still that of its handshake.
    let second = bench.deliver("again").await;
    let record = second.handshake.unwrap();
    assert!(record.connection_reused && record.client_certificate_requested);
    assert!(second.timings.handshake.is_none());
    assert_eq!(receiver.seen.connections.load(Ordering::SeqCst), 1);
    assert_eq!(bench.metrics.connections_reused.get(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn http_2_is_spoken_where_the_receiver_chooses_it() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.strict().h2().config(), 204).await;
    bench.install(pki.bundle(&receiver.url()));
    let outcome = bench.deliver("one").await;
    assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
    let record = outcome.handshake.unwrap();
    assert_eq!(record.alpn_protocol.as_deref(), Some("h2"));
    assert_eq!(receiver.requests()[0].version, http::Version::HTTP_2);
    bench.stop().await;
}

/// Delivers `rounds` payloads of different sizes, each over a new connection; every one must end in
/// `class`.
async fn refused_with(pki: &Pki, config: fn(&Pki) -> ServerConfig, bundle: Bundle, class: Class) {
    for size in [0, 100, 4 * MEBIBYTE] {
        for _ in 0..4 {
            let bench = Bench::new();
            let receiver = Receiver::start(&bench.tasks, config(pki), 204).await;
            let mut bundle = bundle.clone();
            bundle.url = receiver.url().parse().unwrap();
            bench.install(bundle);
            let outcome = bench.deliver(vec![b'x'; size]).await;
            assert_eq!(outcome.class, class, "{size} bytes: {outcome:?}");
            assert!(receiver.requests().is_empty());
            bench.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_told_in_both_tls_versions() {
    let pki = Pki::new();
    let stranger = bundle(
        "https://x/",
        &pki.stranger.client(),
        vec![pki.receiver.der()],
    );
    let expected = Class::ClientCaNotTrusted;
    refused_with(
        &pki,
        |pki| pki.strict().config(),
        stranger.clone(),
        expected,
    )
    .await;
    let older = |pki: &Pki| pki.strict().tls12().config();
    refused_with(&pki, older, stranger.clone(), expected).await;
    let h2 = |pki: &Pki| pki.strict().h2().config();
    refused_with(&pki, h2, stranger, expected).await;
}

#[tokio::test]
async fn a_revoked_certificate_is_told() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let client = pki.account.client();
    let list = pki.account.revocation_list(&client);
    let setup = Setup::new(
        pki.receiver.server(),
        Clients::Unrevoked(&pki.account, list),
    );
    let receiver = Receiver::start(&bench.tasks, setup.config(), 204).await;
    bench.install(bundle(&receiver.url(), &client, vec![pki.receiver.der()]));
    let outcome = bench.deliver("x").await;
    assert_eq!(
        outcome.class,
        Class::ClientCertificateRevoked,
        "{outcome:?}"
    );
    assert_eq!(
        outcome.handshake.unwrap().alert.as_ref().unwrap().number,
        44
    );
    bench.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_told_by_the_receiver_and_by_the_agent_itself() {
    let pki = Pki::new();
    let client = pki.account.expired_client();
    // The agent's clock stands in the certificate's validity, the receiver's does not.
    let clock = ManualClock::at(Timestamp::from_unix_seconds(1_660_000_000));
    let bench = Bench::at(Arc::new(clock));
    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    let expired = bundle(&receiver.url(), &client, vec![pki.receiver.der()]);
    bench.install(expired.clone());
    let outcome = bench.deliver("x").await;
    assert_eq!(
        outcome.class,
        Class::ClientCertificateExpired,
        "{outcome:?}"
    );
    assert_eq!(
        outcome.handshake.unwrap().alert.as_ref().unwrap().number,
        45
    );
    bench.stop().await;

    let bench = Bench::new();
    bench.install(expired);
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::ClientCertificateExpired);
    assert!(outcome.handshake.is_none());
    assert!(outcome.detail.contains("nothing was sent"));
    bench.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_ask_is_flagged_or_refused_before_the_payload() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let config = Setup::new(pki.receiver.server(), Clients::Any).config();
    let receiver = Receiver::start(&bench.tasks, config, 204).await;
    bench.install(pki.bundle(&receiver.url()));
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::Delivered);
    assert!(outcome.mtls_not_enforced);
    assert_eq!(outcome.handshake.unwrap().presented, None);
    assert_eq!(receiver.requests().len(), 1);

    // The pooled connection of the laxer policy must not be used.
    bench.install(Bundle {
        mtls_enforcement: MtlsEnforcement::Refuse,
        ..pki.bundle(&receiver.url())
    });
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::MtlsNotEnforced, "{outcome:?}");
    assert!(outcome.handshake.unwrap().completed);
    assert_eq!(receiver.requests().len(), 1);
    bench.stop().await;
}

fn close(_: crate::support::receiver::Received) -> std::future::Ready<Answer> {
    let mut answer = answer(204, "");
    let headers = answer.headers_mut();
    headers.insert("connection", "close".parse().unwrap());
    std::future::ready(answer)
}

#[tokio::test]
async fn a_resumed_session_keeps_what_its_full_handshake_proved() {
    let pki = Pki::new();
    for setup in [pki.strict(), pki.strict().tls12()] {
        let bench = Bench::new();
        let receiver = Receiver::answering(&bench.tasks, setup.config(), close).await;
        bench.install(Bundle {
            mtls_enforcement: MtlsEnforcement::Refuse,
            ..pki.bundle(&receiver.url())
        });
        let full = bench.deliver("x").await.handshake.unwrap();
        let resumed = bench.deliver("x").await;
        assert_eq!(resumed.class, Class::Delivered, "{resumed:?}");
        let record = resumed.handshake.unwrap();
        assert!(!full.resumed && record.resumed, "{record:?}");
        assert!(record.client_certificate_requested && !record.connection_reused);
        assert_eq!(record.presented, full.presented);
        assert_eq!(record.server, full.server);
        assert_eq!(record.acceptable_ca_names, full.acceptable_ca_names);
        assert_eq!(receiver.seen.connections.load(Ordering::SeqCst), 2);
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_who_it_should_be_gets_nothing() {
    let pki = Pki::new();
    let cases = [
        (pki.stranger.server(), Class::ServerCaNotTrusted),
        (
            pki.receiver.server_for("other.example"),
            Class::ServerNameMismatch,
        ),
        (
            pki.receiver.expired_server(),
            Class::ServerCertificateExpired,
        ),
    ];
    for (server, class) in cases {
        let bench = Bench::new();
        let config = Setup::new(server, Clients::Of(&pki.account)).config();
        let receiver = Receiver::start(&bench.tasks, config, 204).await;
        bench.install(pki.bundle(&receiver.url()));
        let outcome = bench.deliver("x").await;
        assert_eq!(outcome.class, class, "{outcome:?}");
        let record = outcome.handshake.unwrap();
        assert!(record.server.is_some() && !record.completed);
        assert!(receiver.requests().is_empty());
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_receiver_without_tls_1_3_needs_leave() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.strict().tls12().config(), 204).await;
    bench.install(Bundle {
        minimum_tls: MinimumTls::Tls13,
        ..pki.bundle(&receiver.url())
    });
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::TlsVersionUnsupported, "{outcome:?}");
    bench.install(pki.bundle(&receiver.url()));
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
    let record = outcome.handshake.unwrap();
    assert_eq!(record.tls_version.as_deref(), Some("TLSv1.2"));
    assert!(record.client_certificate_requested && record.presented.is_some());
    bench.stop().await;
}

#[tokio::test]
async fn http_answers_have_their_classes() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let missing = "<html><head><title>400 No required SSL certificate was sent</title>";
    let wrong = "<html><head><title>400 The SSL certificate error</title></head>";
    let cases: [(u16, &'static str, Class); 10] = [
        (200, "thanks", Class::Delivered),
        (302, "", Class::HttpRedirect),
        (400, "no", Class::HttpClientError),
        (400, missing, Class::ClientCertificateRequired),
        (400, wrong, Class::ClientCertificateRejected),
        (403, "", Class::ClientIdentityForbidden),
        (404, "", Class::HttpClientError),
        (410, "", Class::HttpGone),
        (429, "", Class::HttpRateLimited),
        (503, "", Class::HttpServerError),
    ];
    for (status, body, class) in cases {
        let answering = move |_| {
            let mut answer = answer(status, body);
            let headers = answer.headers_mut();
            headers.insert("retry-after", "17".parse().unwrap());
            headers.insert("location", "https://127.0.0.1:1/".parse().unwrap());
            std::future::ready(answer)
        };
        let receiver = Receiver::answering(&bench.tasks, pki.strict().config(), answering).await;
        bench.install(pki.bundle(&receiver.url()));
        let outcome = bench.deliver("x").await;
        assert_eq!(outcome.class, class, "{status} {body}: {outcome:?}");
        assert_eq!(outcome.http_status, Some(status));
        assert_eq!(outcome.retry_after, Some(Duration::from_secs(17)));
        assert_eq!(receiver.requests().len(), 1);
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_huge_answer_is_not_read_to_its_end() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let huge = Bytes::from(vec![b'x'; 32 * MEBIBYTE]);
    let answering = move |_| {
        let mut answer = answer(200, "");
        *answer.body_mut() = huge.clone().into();
        std::future::ready(answer)
    };
    let receiver = Receiver::answering(&bench.tasks, pki.strict().config(), answering).await;
    bench.install(pki.bundle(&receiver.url()));
    assert_eq!(bench.deliver("x").await.class, Class::Delivered);
    // Its connection is not used again.
    assert_eq!(bench.deliver("x").await.class, Class::Delivered);
    assert_eq!(receiver.seen.connections.load(Ordering::SeqCst), 2);
    bench.stop().await;
}

#[tokio::test]
async fn receivers_that_are_not_there_or_do_not_speak_tls() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_url = format!("https://{}/", closed.local_addr().unwrap());
    drop(closed);
    let plain = Receiver::accepting(&bench.tasks, |mut tcp| async move {
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
        tcp.shutdown().await
    })
    .await;
    let closing = Receiver::accepting(&bench.tasks, |tcp| async move {
        drop(tcp);
        Ok(())
    })
    .await;
    for (url, class) in [
        (closed_url, Class::ConnectionRefused),
        ("https://nothing.invalid/".to_owned(), Class::DnsFailure),
        (format!("https://{plain}/"), Class::TlsHandshakeFailed),
        (format!("https://{closing}/"), Class::TlsHandshakeFailed),
    ] {
        bench.install(pki.bundle(&url));
        let outcome = bench.deliver("x").await;
        assert_eq!(outcome.class, class, "{url}: {outcome:?}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn silence_is_told_apart_by_where_it_began() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let mute = Receiver::accepting(&bench.tasks, |tcp| async move {
        let _held = tcp;
        std::future::pending().await
    })
    .await;
    let slow = Receiver::answering(&bench.tasks, pki.strict().config(), |_| {
        std::future::pending::<Answer>()
    })
    .await;
    for (url, class) in [
        (format!("https://{mute}/"), Class::ConnectionTimeout),
        (slow.url(), Class::RequestTimeout),
    ] {
        bench.install(Bundle {
            attempt_timeout: Duration::from_millis(300),
            ..pki.bundle(&url)
        });
        let outcome = bench.deliver("x").await;
        assert_eq!(outcome.class, class, "{outcome:?}");
        assert!(outcome.handshake.unwrap().peer_address.is_some());
    }
    bench.stop().await;
}

#[tokio::test]
async fn an_end_without_an_answer_is_a_refusal_unless_the_certificate_was_accepted() {
    let pki = Pki::new();
    for (tickets, class) in [
        (0, Class::ClientCertificateRejected),
        (2, Class::ConnectionLost),
    ] {
        let bench = Bench::new();
        let mut config = pki.strict().config();
        config.send_tls13_tickets = tickets;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = Receiver::accepting(&bench.tasks, move |tcp| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(tcp).await?;
                stream.read_u8().await?;
                stream.shutdown().await
            }
        })
        .await;
        bench.install(pki.bundle(&format!("https://{address}/")));
        let outcome = bench.deliver("x").await;
        assert_eq!(outcome.class, class, "{outcome:?}");
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_request_that_meets_a_closing_connection_is_sent_over_another() {
    let pki = Pki::new();
    let bench = Bench::new();
    let acceptor = TlsAcceptor::from(Arc::new(pki.strict().config()));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let address = Receiver::accepting(&bench.tasks, move |tcp| {
        let (acceptor, number) = (acceptor.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            let mut stream = acceptor.accept(tcp).await?;
            // The third connection, a new one, is closed without an answer as well.
            if number < 2 {
                let mut request = [0; 4096];
                assert_ne!(stream.read(&mut request).await?, 0);
                stream.write_all(b"HTTP/1.1 204 Done\r\n\r\n").await?;
            }
            stream.read_u8().await?;
            stream.shutdown().await
        }
    })
    .await;
    bench.install(pki.bundle(&format!("https://{address}/")));
    for connection in 1..=2 {
        let outcome = bench.deliver("x").await;
        assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
        assert!(!outcome.handshake.unwrap().connection_reused);
        assert_eq!(connections.load(Ordering::SeqCst), connection);
    }
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::ConnectionLost, "{outcome:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 3);
    bench.stop().await;
}

#[tokio::test]
async fn what_is_not_http_is_told() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let acceptor = TlsAcceptor::from(Arc::new(pki.strict().config()));
    let address = Receiver::accepting(&bench.tasks, move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(tcp).await?;
            stream.read_u8().await?;
            stream.write_all(b"220 mail.example ESMTP\r\n").await?;
            stream.shutdown().await
        }
    })
    .await;
    bench.install(pki.bundle(&format!("https://{address}/")));
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::HttpServerError, "{outcome:?}");
    assert!(outcome.detail.contains("not HTTP"));
    bench.stop().await;
}

#[tokio::test]
async fn bundles_that_can_not_work_are_refused_with_the_reason() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let good = pki.bundle("https://a.example/");
    let cases: [(&str, Bundle); 4] = [
        (
            "not for the private key",
            Bundle {
                active: Credential {
                    private_key: pki.account.client().key.into(),
                    ..good.active.clone()
                },
                ..good.clone()
            },
        ),
        (
            "not a usable PKCS#8 key",
            Bundle {
                active: Credential {
                    private_key: vec![1, 2, 3].into(),
                    ..good.active.clone()
                },
                ..good.clone()
            },
        ),
        (
            "not an X.509 certificate",
            Bundle {
                active: Credential {
                    chain: vec![vec![1, 2, 3].into()],
                    ..good.active.clone()
                },
                ..good.clone()
            },
        ),
        (
            "certificate 2 can't be used",
            Bundle {
                server_cas: vec![pki.receiver.der(), vec![1].into()],
                ..good.clone()
            },
        ),
    ];
    for (reason, bad) in cases {
        let error = bench.try_install(bad).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    bench.stop().await;
}
