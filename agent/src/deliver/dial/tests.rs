//! Dialling against listeners on loopback, and resolvers that say what a test wants.

use tokio::net::TcpListener;

use super::*;
use crate::deliver::lookup::Lookup;

/// Lets the agent connect to loopback.
fn open() -> Dialler {
    Dialler::new(Egress {
        policy: Policy {
            allow: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            deny: Vec::new(),
        },
        proxy: None,
    })
}

/// Answers every question with these addresses.
#[derive(Debug)]
struct Answers(&'static [&'static str]);

impl Resolve for Answers {
    fn resolve(&self, _: &str, port: u16) -> Lookup {
        let addresses = self.0.iter().map(|text| text.parse().unwrap());
        let addresses = addresses.map(|ip: IpAddr| SocketAddr::new(ip, port));
        Box::pin(std::future::ready(Ok(addresses.collect())))
    }
}

#[tokio::test]
async fn a_listener_is_found_and_a_closed_port_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // "localhost" may have ::1 as its first address, where nothing listens.
    let dialled = open().dial("localhost", address.port(), &[]).await.unwrap();
    assert_eq!(dialled.peer, address);
    drop(listener);
    let failure = open().dial("127.0.0.1", address.port(), &[]).await;
    assert_eq!(failure.unwrap_err(), DialFailure::Refused);
}

#[tokio::test]
async fn a_name_without_address_says_so() {
    let failure = open().dial("nothing.invalid", 443, &[]).await.unwrap_err();
    assert_eq!(failure, DialFailure::NoAddress);
}

#[tokio::test]
async fn denied_addresses_are_left_out_and_the_others_are_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let egress = open().egress;
    let mixed = Answers(&["127.0.0.2", "10.0.0.1", "::ffff:127.0.0.1"]);
    let dialler = Dialler::with_resolver(Egress::clone(&egress), Arc::new(mixed));
    let ranges = ["127.0.0.1/32".parse().unwrap()];
    let dialled = dialler.dial("mixed.example", address.port(), &ranges).await;
    // The address in the IPv4-mapped one is dialled, as it was judged.
    assert_eq!(dialled.unwrap().peer, address);

    let elsewhere = ["1.1.1.0/24".parse().unwrap()];
    let failure = dialler
        .dial("mixed.example", address.port(), &elsewhere)
        .await;
    let expected = DialFailure::Denied(Denied::ByDestination);
    assert_eq!(failure.unwrap_err(), expected);
    let private = Dialler::with_resolver(Egress::default(), Arc::new(Answers(&["127.0.0.1"])));
    let failure = private.dial("private.example", address.port(), &[]).await;
    assert_eq!(failure.unwrap_err(), DialFailure::Denied(Denied::ByAgent));
}

#[test]
fn addresses_share_the_time_that_is_left() {
    let now = Instant::now();
    let deadline = now + Duration::from_secs(12);
    assert_eq!(share(now, deadline, 3), now + Duration::from_secs(4));
    assert_eq!(share(now, deadline, 1), deadline);
    assert_eq!(share(deadline, deadline, 1), deadline);
    assert_eq!(
        telling(DialFailure::Refused, DialFailure::Unreachable),
        DialFailure::Refused
    );
}
