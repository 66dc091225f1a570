//! Where the agent goes and where it does not: public addresses alone unless its operator allows
//! more, whatever the URL, the resolver or a redirect says; and by a proxy where there is one.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{
    bench::{Bench, bundle},
    pki::Authority,
    proxy::{PASSWORD, StandIn, through},
    receiver::{Clients, Received, Receiver, Setup, answer},
};
use countersign_agent::{
    deliver::{Dialler, Lookup, Resolve},
    egress::{Egress, Policy},
};
use countersign_shared::{bundle::Bundle, class::FailureClass as Class, outcome::Outcome};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A receiver's authority and the account's.
struct Pki(Authority, Authority);

impl Pki {
    fn new() -> Self {
        Self(Authority::new("Receiver CA"), Authority::new("Acme"))
    }

    fn config(&self) -> ServerConfig {
        Setup::new(self.0.server(), Clients::Of(&self.1)).config()
    }

    fn bundle(&self, url: &str) -> Bundle {
        bundle(url, &self.1.client(), vec![self.0.der()])
    }
}

fn connections(receiver: &Receiver) -> usize {
    receiver.seen.connections.load(Ordering::SeqCst)
}

fn is_denied(outcome: &Outcome, by: &str) {
    assert_eq!(outcome.class, Class::EgressDenied, "{outcome:?}");
    assert!(outcome.detail.contains(by), "{outcome:?}");
    assert_eq!(outcome.handshake.as_ref().unwrap().peer_address, None);
    assert_eq!(outcome.http_status, None);
}

const BY_AGENT: &str = "The agent's configuration";
const BY_DESTINATION: &str = "allowed_ranges";

#[tokio::test]
async fn loopback_is_denied_by_default_however_it_is_written() {
    let bench = Bench::reaching(Dialler::new(Egress::default()));
    let pki = Pki::new();
    let receiver = Receiver::start(&bench.tasks, pki.config(), 204).await;
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "017700000001",
        "0177.0.0.1",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1]",
        "[::]",
        "0.0.0.0",
        "[64:ff9b::127.0.0.1]",
        "localhost",
        "LOCALHOST",
    ] {
        let url = format!("https://{host}:{}/", receiver.address.port());
        bench.install(pki.bundle(&url));
        is_denied(&bench.deliver("x").await, BY_AGENT);
    }
    assert_eq!(connections(&receiver), 0);
    bench.stop().await;
}

#[tokio::test]
async fn a_name_with_a_private_address_is_reached_when_the_operator_allows_it() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.config(), 204).await;
    let url = format!("https://localhost:{}/", receiver.address.port());
    bench.install(pki.bundle(&url));
    assert_eq!(bench.deliver("x").await.class, Class::Delivered);
    assert_eq!(connections(&receiver), 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_destination_narrows_and_never_adds() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.config(), 204).await;
    let within = |ranges: &[&str]| Bundle {
        allowed_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        ..pki.bundle(&receiver.url())
    };
    bench.install(within(&[]));
    assert_eq!(bench.deliver("x").await.class, Class::Delivered);
    // The open connection of the wider policy is not used.
    bench.install(within(&["10.0.0.0/8"]));
    is_denied(&bench.deliver("x").await, BY_DESTINATION);
    assert_eq!(connections(&receiver), 1);
    bench.install(within(&["10.0.0.0/8", "127.0.0.1/32"]));
    assert_eq!(bench.deliver("x").await.class, Class::Delivered);
    assert_eq!(connections(&receiver), 2);
    let bundle = within(&["127.0.0.0/8"]);
    bench.stop().await;

    let strict = Bench::reaching(Dialler::new(Egress::default()));
    strict.install(bundle);
    is_denied(&strict.deliver("x").await, BY_AGENT);
    strict.stop().await;
}

/// Answers with the first address once, and then with the second.
#[derive(Debug)]
struct Rebinding {
    answers: [[u8; 4]; 2],
    calls: AtomicUsize,
}

impl Resolve for Rebinding {
    fn resolve(&self, _: &str, port: u16) -> Lookup {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let address = SocketAddr::from((self.answers[call.min(1)], port));
        Box::pin(std::future::ready(Ok(vec![address])))
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_by_the_one_that_is_dialled() {
    let pki = Pki::new();
    let rebinding = Arc::new(Rebinding {
        answers: [[127, 0, 0, 1], [127, 0, 0, 2]],
        calls: AtomicUsize::new(0),
    });
    let egress = Egress {
        policy: Policy {
            allow: vec!["127.0.0.1/32".parse().unwrap()],
            deny: Vec::new(),
        },
        proxy: None,
    };
    let bench = Bench::reaching(Dialler::with_resolver(egress, rebinding.clone()));
    let closing = |_: Received| {
        let mut answer = answer(204, "");
        let headers = answer.headers_mut();
        headers.insert("connection", "close".parse().unwrap());
        std::future::ready(answer)
    };
    let receiver = Receiver::answering(&bench.tasks, pki.config(), closing).await;
    let url = format!("https://localhost:{}/", receiver.address.port());
    bench.install(pki.bundle(&url));
    assert_eq!(bench.deliver("x").await.class, Class::Delivered);
    is_denied(&bench.deliver("x").await, BY_AGENT);
    // Once for each connection: between judging and dialling nobody is asked again.
    assert_eq!(rebinding.calls.load(Ordering::SeqCst), 2);
    assert_eq!(receiver.requests().len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_redirect_to_an_internal_address_is_not_followed() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let internal = Receiver::start(&bench.tasks, pki.config(), 204).await;
    for status in [301, 302, 303, 307, 308] {
        let location = internal.url();
        let redirecting = move |_: Received| {
            let mut answer = answer(status, "");
            let headers = answer.headers_mut();
            headers.insert("location", location.parse().unwrap());
            std::future::ready(answer)
        };
        let receiver = Receiver::answering(&bench.tasks, pki.config(), redirecting).await;
        bench.install(pki.bundle(&receiver.url()));
        assert_eq!(bench.deliver("x").await.class, Class::HttpRedirect);
        assert_eq!(receiver.requests().len(), 1);
    }
    assert_eq!(connections(&internal), 0);
    bench.stop().await;
}

#[tokio::test]
async fn proxies_are_asked_for_the_address_that_was_judged_and_tls_goes_through() {
    let pki = Pki::new();
    for socks in [false, true] {
        let servers = Bench::new();
        let proxy = match socks {
            false => StandIn::http(&servers.tasks).await,
            true => StandIn::socks5(&servers.tasks).await,
        };
        let receiver = Receiver::start(&servers.tasks, pki.config(), 204).await;
        let bench = Bench::reaching(Dialler::new(Egress {
            policy: Policy {
                // So that the name has one address.
                allow: vec!["127.0.0.1/32".parse().unwrap()],
                deny: Vec::new(),
            },
            ..through(&proxy.url, Some(PASSWORD))
        }));
        let url = format!("https://localhost:{}/", receiver.address.port());
        bench.install(pki.bundle(&url));
        let outcome = bench.deliver("through").await;
        assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
        let record = outcome.handshake.unwrap();
        assert!(record.presented.is_some() && !outcome.mtls_not_enforced);
        assert_eq!(record.peer_address, Some(receiver.address.to_string()));
        assert_eq!(proxy.asked(), [receiver.address.to_string()]);
        assert_eq!(receiver.requests()[0].body, "through");

        // The policy holds with a proxy too: it is not even asked.
        bench.install(Bundle {
            allowed_ranges: vec!["10.0.0.0/8".parse().unwrap()],
            ..pki.bundle(&url)
        });
        is_denied(&bench.deliver("x").await, BY_DESTINATION);
        assert_eq!(proxy.asked().len(), 1);
        bench.stop().await;
        servers.stop().await;
    }
}

#[tokio::test]
async fn a_proxy_that_opens_nothing_is_told_apart_from_the_receiver() {
    let (servers, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&servers.tasks, pki.config(), 204).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_address = closed.local_addr().unwrap();
    drop(closed);
    let http = StandIn::http(&servers.tasks).await;
    let socks = StandIn::socks5(&servers.tasks).await;
    // Sends a head without an end.
    let endless = Receiver::accepting(&servers.tasks, |mut tcp| async move {
        tcp.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        loop {
            tcp.write_all(b"x: y\r\n").await?;
        }
    })
    .await;
    let mute = Receiver::accepting(&servers.tasks, |mut tcp| async move {
        let mut all = Vec::new();
        tcp.read_to_end(&mut all).await?;
        Ok(())
    })
    .await;
    let refused = "opened no connection";
    for (url, password, detail) in [
        (format!("http://{closed_address}"), None, "can't be reached"),
        (
            format!("socks5://{closed_address}"),
            None,
            "can't be reached",
        ),
        (
            "http://proxy.invalid:80".to_owned(),
            None,
            "can't be reached",
        ),
        (http.url.clone(), None, refused),
        (http.url.clone(), Some("wrong"), refused),
        (socks.url.clone(), None, refused),
        (socks.url.clone(), Some("wrong"), refused),
        (format!("http://{endless}"), None, refused),
        (format!("socks5://{endless}"), None, refused),
        // Silence ends with the attempt's time.
        (format!("http://{mute}"), None, ""),
        (format!("socks5://{mute}"), None, ""),
    ] {
        let bench = Bench::reaching(Dialler::new(through(&url, password)));
        bench.install(Bundle {
            attempt_timeout: Duration::from_secs(if detail.is_empty() { 1 } else { 20 }),
            ..pki.bundle(&receiver.url())
        });
        let outcome = bench.deliver("x").await;
        assert_eq!(
            outcome.class,
            Class::ConnectionTimeout,
            "{url}: {outcome:?}"
        );
        assert!(outcome.detail.contains(detail), "{url}: {outcome:?}");
        bench.stop().await;
    }
    assert_eq!(connections(&receiver), 0);
    servers.stop().await;
}

/// Notes which hosts were asked for, and knows none.
#[derive(Debug, Default)]
struct Unknown(Mutex<Vec<String>>);

impl Resolve for Unknown {
    fn resolve(&self, host: &str, _: u16) -> Lookup {
        self.0.lock().unwrap().push(host.to_owned());
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

#[tokio::test]
async fn the_host_is_resolved_by_the_agent_also_with_a_proxy() {
    let pki = Pki::new();
    let unknown = Arc::new(Unknown::default());
    let egress = through("http://127.0.0.1:9", None);
    let bench = Bench::reaching(Dialler::with_resolver(egress, unknown.clone()));
    bench.install(pki.bundle("https://receiver.example/"));
    assert_eq!(bench.deliver("x").await.class, Class::DnsFailure);
    assert_eq!(*unknown.0.lock().unwrap(), ["receiver.example"]);
    bench.stop().await;
}
