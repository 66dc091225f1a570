//! What a handshake passes on, and how it names things.

use super::*;

#[test]
fn a_resumed_session_passes_on_what_the_full_handshake_saw() {
    let full = Handshake::default();
    let presented = PresentedCertificate {
        version: 3,
        serial: "0a".into(),
    };
    full.requested(&[b"a", b"b"], &[b"b".to_vec()], Some(presented.clone()));
    full.seen().full = true;
    let facts = full.session_given();
    assert!(facts.requested && full.has_ticket());
    assert_eq!(facts.issuer_named, Some(true));

    // Resumed: its own record knows nothing, and its tickets carry the source's facts.
    let resumed = Handshake::default();
    resumed.offers_session(Arc::clone(&facts));
    assert!(Arc::ptr_eq(&resumed.session_given(), &facts));

    // Offered but not taken: the server verified again and did not ask this time.
    let refused = Handshake::default();
    refused.offers_session(facts);
    refused.seen().full = true;
    assert!(!refused.session_given().requested);
}

#[test]
fn an_authority_is_ours_when_its_name_is_byte_for_byte_in_the_request() {
    let ours = [b"ours".to_vec(), b"cross".to_vec()];
    for (named, expected) in [
        (&[][..], None),
        (&[&b"another"[..]][..], Some(false)),
        (&[&b"another"[..], b"cross"][..], Some(true)),
    ] {
        let handshake = Handshake::default();
        handshake.requested(named, &ours, None);
        assert_eq!(handshake.issuer_named(), expected, "{named:?}");
    }
}

#[test]
fn attempts_over_one_connection_share_a_record_until_an_alert_comes() {
    let handshake = Handshake::default();
    handshake.connected("a:1".to_owned(), Duration::ZERO, Duration::ZERO);
    let first = handshake.record(true);
    assert!(!first.connection_reused);
    let (second, third) = (handshake.record(false), handshake.record(false));
    assert!(second.connection_reused && second.peer_address == first.peer_address);
    assert!(std::ptr::eq(&*second, &*third));
    let alert = Alert {
        number: 45,
        name: "certificate_expired".to_owned(),
    };
    handshake.alerted(alert.clone());
    assert_eq!(handshake.record(false).alert, Some(alert));
}

#[test]
fn suites_have_their_iana_names() {
    assert_eq!(
        iana_suite("TLS13_AES_256_GCM_SHA384"),
        "TLS_AES_256_GCM_SHA384"
    );
    assert_eq!(
        iana_suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    );
}
