//! The receiver against real TLS clients on the loopback interface.

use std::{io, net::SocketAddr};

use countersign_shared::{
    signature::{self, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER},
    time::{ManualClock, Timestamp},
    tls as shared_tls,
};
use http_body_util::Full;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{door::Door, record::Verdict, *};
use crate::{
    demo_pki::{self, testing},
    mutual_tls::Demand,
};

const BODY: &[u8] = b"{\"order\":1001}";

/// A receiver that trusts the authority of `client`.
struct Bench {
    address: SocketAddr,
    ca_pem: String,
    client: testing::Client,
    secret: SecretBytes,
    now: Timestamp,
    door: Door,
    events: mpsc::Receiver<Event>,
    tasks: Tasks,
}

impl Bench {
    async fn start() -> Self {
        // Certificates are judged by the host's clock, everything else by this one.
        let now = countersign_shared::time::SystemClock.now();
        let client = testing::client("countersign-delivery.demo", "spiffe://x/demo", now);
        let identity = demo_pki::server_for_loopback(now).unwrap();
        let ca_pem = identity.ca_pem.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let secret = signature::generate_secret();
        let (tasks, _failures) = Tasks::new();
        let anchors = std::slice::from_ref(&client.anchor);
        let door = Door::new(identity, Demand::signed_by(anchors)).unwrap();
        let clock = Arc::new(ManualClock::at(now));
        let manner = Manner {
            secret: secret.clone(),
            takes: Duration::ZERO,
        };
        let events = start(listener, door.watch(), manner, clock, &tasks);
        Self {
            address,
            ca_pem,
            client,
            secret,
            now,
            door,
            events,
            tasks,
        }
    }

    fn client_config(&self, client: Option<&testing::Client>, alpn: &[u8]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for ca in shared_tls::certificates_from_pem(&self.ca_pem).unwrap() {
            roots.add(ca).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(shared_tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => builder
                .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
                .unwrap(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    async fn connect(
        &self,
        config: ClientConfig,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    }

    fn webhook(&self, signed_at: Timestamp, body: &'static [u8]) -> Request<Full<Bytes>> {
        let signature = signature::sign_v1([&self.secret], "d-1", signed_at, BODY);
        Request::post("https://localhost/webhooks")
            .header("host", "localhost")
            .header(ID_HEADER, "d-1")
            .header(TIMESTAMP_HEADER, signed_at.as_unix_seconds())
            .header(SIGNATURE_HEADER, signature)
            .body(Full::from(body))
            .unwrap()
    }

    async fn stop(self) {
        self.tasks.stop(Duration::from_secs(10)).await.unwrap();
    }
}

/// Sends a request on a new HTTP/1.1 connection; the connection ends with it.
async fn post(bench: &Bench, request: Request<Full<Bytes>>) -> StatusCode {
    let config = bench.client_config(Some(&bench.client), b"http/1.1");
    let stream = bench.connect(config).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let exchange = async {
        let status = sender.send_request(request).await.unwrap().status();
        drop(sender);
        status
    };
    let (status, _) = tokio::join!(exchange, connection);
    status
}

async fn refused(bench: &mut Bench, client: Option<&testing::Client>) -> &'static str {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let config = bench.client_config(client, b"http/1.1");
    // In TLS 1.3 the client learns of the refusal only when it reads.
    let failed = match bench.connect(config).await {
        Err(error) => error,
        Ok(mut stream) => {
            let _ = stream.write_all(b"POST /webhooks HTTP/1.1\r\n\r\n").await;
            stream.read_u8().await.unwrap_err()
        }
    };
    assert!(
        failed.to_string().to_lowercase().contains("alert"),
        "{failed}"
    );
    match bench.events.recv().await.unwrap() {
        Event::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_refuses_whoever_has_no_certificate_of_the_account() {
    let mut bench = Bench::start().await;
    assert_eq!(
        refused(&mut bench, None).await,
        "it presented no client certificate"
    );
    // The same names, signed by an authority of the same name: only the key differs.
    let stranger = testing::client("countersign-delivery.demo", "spiffe://x/demo", bench.now);
    let reason = refused(&mut bench, Some(&stranger)).await;
    assert!(
        [
            "its client certificate is of another authority",
            "its client certificate is not valid"
        ]
        .contains(&reason),
        "{reason}"
    );
    bench.stop().await;
}

#[tokio::test]
async fn it_takes_signed_webhooks_and_tells_what_it_saw() {
    let mut bench = Bench::start().await;
    let status = post(&bench, bench.webhook(bench.now, BODY)).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let Some(Event::Received(reception)) = bench.events.recv().await else {
        panic!("nothing received");
    };
    assert_eq!(reception.verdict, Verdict::Verified);
    assert_eq!(
        (reception.id.as_str(), reception.body_bytes),
        ("d-1", BODY.len())
    );
    let connection = &reception.connection;
    let serial = shared_tls::certificate_facts(&bench.client.chain[0])
        .unwrap()
        .serial;
    assert_eq!(connection.peer.serial, serial);
    assert_eq!(connection.peer.common_name, "countersign-delivery.demo");
    assert_eq!(connection.tls_version, "TLSv1.3");
    assert_eq!(connection.key_exchange_group, "X25519MLKEM768");
    assert!(
        connection.cipher_suite.starts_with("TLS_AES_"),
        "{connection:?}"
    );
    bench.stop().await;
}

#[tokio::test]
async fn it_refuses_what_is_tampered_with_stale_or_elsewhere() {
    let mut bench = Bench::start().await;
    let tampered = bench.webhook(bench.now, b"{\"order\":9999}");
    let stale = bench.webhook(bench.now.minus(Duration::from_secs(301)), BODY);
    let cases = [
        (tampered, Verdict::Signature),
        (stale, Verdict::Stale(Duration::from_secs(301))),
    ];
    for (request, expected) in cases {
        assert_eq!(post(&bench, request).await, StatusCode::UNAUTHORIZED);
        let Some(Event::Received(reception)) = bench.events.recv().await else {
            panic!("nothing received");
        };
        // The clock's fraction of a second is in it too.
        match (reception.verdict, expected) {
            (Verdict::Stale(off), Verdict::Stale(limit)) => assert!(off >= limit),
            (got, expected) => assert_eq!(got, expected),
        }
    }
    let mut elsewhere = bench.webhook(bench.now, BODY);
    *elsewhere.uri_mut() = "https://localhost/".parse().unwrap();
    assert_eq!(post(&bench, elsewhere).await, StatusCode::NOT_FOUND);
    let mut read = bench.webhook(bench.now, BODY);
    *read.method_mut() = http::Method::GET;
    assert_eq!(post(&bench, read).await, StatusCode::METHOD_NOT_ALLOWED);
    bench.stop().await;
}

#[tokio::test]
async fn it_speaks_http_2_when_asked_and_closes_idle_connections_on_stop() {
    let mut bench = Bench::start().await;
    let config = bench.client_config(Some(&bench.client), b"h2");
    let io = TokioIo::new(bench.connect(config).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let mut connection = pin!(connection);
    let status = tokio::select! {
        response = sender.send_request(bench.webhook(bench.now, BODY)) => response.unwrap().status(),
        ended = connection.as_mut() => panic!("{ended:?}"),
    };
    assert_eq!(status, StatusCode::NO_CONTENT);
    let Some(Event::Received(reception)) = bench.events.recv().await else {
        panic!("nothing received");
    };
    assert!(reception.connection.http2);
    let (stopped, _) = tokio::join!(bench.tasks.stop(Duration::from_secs(10)), connection);
    stopped.unwrap();
}

#[tokio::test]
async fn what_it_demands_can_change_while_it_runs() {
    let mut bench = Bench::start().await;
    let config = bench.client_config(Some(&bench.client), b"h2");
    let io = TokioIo::new(bench.connect(config).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, open) = handshake.await.unwrap();
    let mut open = pin!(open);
    tokio::select! {
        response = sender.send_request(bench.webhook(bench.now, BODY)) => {
            assert_eq!(response.unwrap().status(), StatusCode::NO_CONTENT);
        }
        ended = open.as_mut() => panic!("{ended:?}"),
    }
    let Some(Event::Received(reception)) = bench.events.recv().await else {
        panic!("nothing received");
    };
    let serial = reception.connection.peer.serial.clone();
    bench
        .door
        .change(|demand| _ = demand.barred.insert(serial.clone()))
        .unwrap();
    // What was open is closed, in order.
    open.await.unwrap();
    let client = testing::Client {
        anchor: bench.client.anchor.clone(),
        chain: bench.client.chain.clone(),
        key: bench.client.key.clone_key(),
    };
    assert_eq!(
        refused(&mut bench, Some(&client)).await,
        "it refuses this client certificate by a rule of its own"
    );
    bench.door.change(|demand| demand.barred.clear()).unwrap();
    let status = post(&bench, bench.webhook(bench.now, BODY)).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    bench.stop().await;
}
