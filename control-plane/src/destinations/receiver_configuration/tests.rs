//! What every text must say, and that nothing that a server could take for syntax gets into one.

use super::*;

const KINDS: [ServerKind; 8] = [
    ServerKind::Nginx,
    ServerKind::HaProxy,
    ServerKind::Apache,
    ServerKind::Caddy,
    ServerKind::Envoy,
    ServerKind::AwsAlb,
    ServerKind::GoogleCloud,
    ServerKind::Cloudflare,
];

fn destination(account: &str) -> DestinationName {
    format!("accounts/{account}/destinations/orders")
        .parse()
        .unwrap()
}

fn made(kind: ServerKind, account: &str) -> ReceiverConfiguration {
    let destination = destination(account);
    let names = ClientNames::dedicated("example.internal", &destination);
    receiver_configuration(kind, &destination, &names, &[vec![1; 100], vec![2; 100]]).unwrap()
}

#[test]
fn every_text_requires_trusts_and_checks() {
    let uri = "spiffe://example.internal/account/acme/destination/orders";
    let subject = "countersign-delivery.acme";
    for (kind, required, trusted, checked) in [
        (
            ServerKind::Nginx,
            "ssl_verify_client on;",
            "ssl_client_certificate /etc/countersign/acme-ca.pem;",
            subject,
        ),
        (
            ServerKind::HaProxy,
            "verify required",
            "ca-file /etc/countersign/acme-ca.pem",
            subject,
        ),
        (
            ServerKind::Apache,
            "SSLVerifyClient require",
            "SSLCACertificateFile /etc/countersign/acme-ca.pem",
            uri,
        ),
        (
            ServerKind::Caddy,
            "mode require_and_verify",
            "trust_pool file /etc/countersign/acme-ca.pem",
            uri,
        ),
        (
            ServerKind::Envoy,
            "require_client_certificate: true",
            "trusted_ca: { filename: /etc/countersign/acme-ca.pem }",
            uri,
        ),
        (ServerKind::AwsAlb, "Mode=verify", "acme-ca.pem", subject),
        (
            ServerKind::GoogleCloud,
            "clientValidationMode: REJECT_INVALID",
            "pemCertificate: |",
            uri,
        ),
        (
            ServerKind::Cloudflare,
            "not cf.tls_client_auth.cert_verified",
            "acme-ca.pem",
            subject,
        ),
    ] {
        let text = made(kind, "acme").text;
        for expected in [required, trusted, checked, "403", "Revocation: ", "CHANGE"] {
            assert!(text.contains(expected), "{kind:?}: {expected}\n{text}");
        }
        assert!(!text.contains("optional"), "{kind:?}");
        assert!(!text.contains("{{"), "{kind:?}: {text}");
    }
}

#[test]
fn chains_with_a_cross_certificate_are_short_enough() {
    for (kind, depth) in [
        (ServerKind::Nginx, "ssl_verify_depth 2;"),
        (ServerKind::Apache, "SSLVerifyDepth 2"),
        (ServerKind::Envoy, "max_verify_depth: 2"),
    ] {
        assert!(made(kind, "acme").text.contains(depth), "{kind:?}");
    }
}

#[test]
fn the_trust_anchors_come_with_the_file_that_the_text_names() {
    for kind in KINDS {
        let made = made(kind, "acme");
        let anchors = made.trust_anchor_pem.matches("BEGIN CERTIFICATE").count();
        assert_eq!(anchors, 2, "{kind:?}");
        assert!(made.trust_anchor_file.ends_with("acme-ca.pem"));
        let embedded = made.text.matches("      -----BEGIN CERTIFICATE").count();
        if kind == ServerKind::GoogleCloud {
            assert_eq!(embedded, 2, "{}", made.text);
        } else {
            assert!(made.text.contains(&made.trust_anchor_file), "{kind:?}");
        }
        assert!(made.steps.len() >= 3, "{kind:?}");
    }
}

#[test]
fn names_in_clouds_are_no_longer_than_these_take() {
    let longest = "a".repeat(63);
    let text = made(ServerKind::AwsAlb, &longest).text;
    let name = format!("--name countersign-{} ", "a".repeat(20));
    assert!(text.contains(&name), "{text}");
    // Cut at a hyphen, a name does not end with it.
    let hyphen = format!("{}-b", "a".repeat(19));
    let text = made(ServerKind::AwsAlb, &hyphen).text;
    assert!(text.contains(&format!("--name countersign-{} ", "a".repeat(19))));
}

#[test]
fn what_a_server_could_take_for_syntax_is_refused() {
    let destination = destination("acme");
    for bad in [
        "", "a;b", "a b", "a\nb", "\"", "'", "{x}", "$x", "a#b", "é", "a\\b",
    ] {
        let names = ClientNames {
            common_name: bad.to_owned(),
            dns: None,
            uri: "spiffe://x/y".to_owned(),
        };
        for kind in KINDS {
            let refused = receiver_configuration(kind, &destination, &names, &[]);
            assert_eq!(
                refused,
                Err(ReceiverConfigurationError::Name(bad.to_owned()))
            );
        }
    }
}
