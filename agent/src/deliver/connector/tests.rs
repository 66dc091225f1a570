//! A connection that is being opened, and where it goes.

use super::*;
use crate::{
    deliver::standing::Standings,
    egress::{Egress, Policy},
};
use countersign_shared::{name::DestinationName, time::SystemClock, tls};
use rustls::RootCertStore;
use tokio::net::TcpListener;

/// Nothing but its cord ends what hangs in the middle of being opened.
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
    let connector = Connector {
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
    };
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", mute.local_addr().unwrap());
    let target = Target::new(&url.parse().unwrap()).unwrap();
    let progress = Progress::default();
    let revoke = async {
        let held = mute.accept().await.unwrap();
        let pulled = standings.revoke(&destination, &["0a".into()]);
        (held, pulled)
    };
    let (connected, (_held, pulled)) = tokio::join!(connector.connect(&target, &progress), revoke);
    let failure = connected.err();
    assert_eq!(failure, Some(ConnectFailure::Revoked));
    assert!(pulled.len() == 1 && pulled[0].is_closed());
    // And no other is begun.
    let failure = connector.connect(&target, &progress).await.err();
    assert_eq!(failure, Some(ConnectFailure::Revoked));
}
