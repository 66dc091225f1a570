//! A connection that is being opened, and where it goes.

use countersign_shared::{name::DestinationName, time::SystemClock, tls};
use rustls::RootCertStore;
use tokio::net::TcpListener;
use tower::Service as _;

use super::*;
use crate::{
    deliver::standing::Standings,
    egress::{Egress, Policy},
};

/// An HTTP client may let a connection be opened in the background, where no attempt ends it.
#[tokio::test]
async fn a_connection_that_is_being_opened_ends_when_its_certificate_is_revoked() {
    let destination: DestinationName = "accounts/a/destinations/d".parse().unwrap();
    let standings = Standings::default();
    let egress = Egress {
        policy: Policy {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            deny: Vec::new(),
        },
        proxy: None,
    };
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut connector = Connector::new(Parts {
        dialler: Dialler::new(egress),
        config,
        sessions: Arc::new(Sessions::new(Arc::new(SystemClock))),
        policy: ConnectPolicy {
            enforcement: MtlsEnforcement::Deliver,
            allowed_ranges: Vec::new(),
        },
        standing: standings.of(&destination, "0a"),
        keeps_chain: false,
        metrics: Arc::default(),
    });
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("https://{}/", mute.local_addr().unwrap())
        .parse()
        .unwrap();
    let revoke = async {
        let held = mute.accept().await.unwrap();
        let pulled = standings.revoke(&destination, &["0a".into()]);
        (held, pulled)
    };
    let (connected, (_held, pulled)) = tokio::join!(connector.call(uri.clone()), revoke);
    let failure = connected.err().map(|error| error.failure);
    assert_eq!(failure, Some(ConnectFailure::Revoked));
    assert!(pulled.len() == 1 && pulled[0].is_closed());
    // And no other is begun.
    let failure = connector.call(uri).await.err().map(|error| error.failure);
    assert_eq!(failure, Some(ConnectFailure::Revoked));
}

#[test]
fn hosts_and_ports_come_out_of_urls() {
    for (uri, expected) in [
        ("https://a.example/x", ("a.example", 443)),
        ("https://a.example:8443", ("a.example", 8443)),
        ("https://[2001:db8::1]:1/", ("2001:db8::1", 1)),
    ] {
        assert_eq!(host_and_port(&uri.parse().unwrap()), expected);
    }
}
