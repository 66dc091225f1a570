//! Which ways lead from a certificate to what is trusted.

use countersign_tests::{folder::Folder, issued::Issued, openssl::openssl, python::judge};
use serde_json::{Map, json};

use super::{KEYS, text};

/// A way from a leaf to what a receiver, or we ourselves, trust.
pub(super) struct Path {
    anchor: &'static str,
    between: &'static [&'static str],
    pub(super) leaves: Vec<String>,
    purpose: &'static str,
}

pub(super) fn clients(authority: &str) -> Vec<String> {
    KEYS.iter()
        .map(|key| format!("{authority}-{key}"))
        .collect()
}

pub(super) fn path(
    anchor: &'static str,
    between: &'static [&'static str],
    leaves: Vec<String>,
) -> Path {
    Path {
        anchor,
        between,
        leaves,
        purpose: "sslclient",
    }
}

/// Every way that has to be found.
fn ways() -> Vec<Path> {
    let server = Path {
        purpose: "sslserver",
        ..path("server-anchor", &[], vec!["server".to_owned()])
    };
    vec![
        path("acme-g1-anchor", &[], clients("acme-g1")),
        path("acme-g2-anchor", &[], clients("acme-g2")),
        // A receiver that knows the older generation only, while the newer one signs.
        path("acme-g1-anchor", &["acme-g2-cross"], clients("acme-g2")),
        // One that installed the newer gets the cross certificate all the same.
        path("acme-g2-anchor", &["acme-g2-cross"], clients("acme-g2")),
        path("shared-g1-anchor", &[], clients("shared-g1")),
        // For audit.
        path("root", &["acme-g2-provenance"], clients("acme-g2")),
        path("root", &["shared-g1-provenance"], clients("shared-g1")),
        path("root", &["agents-provenance"], vec!["agent".to_owned()]),
        path("agents-anchor", &[], vec!["agent".to_owned()]),
        server,
    ]
}

/// Ways that nobody may find.
fn no_ways() -> Vec<Path> {
    vec![
        path("acme-g1-anchor", &[], clients("acme-g2")),
        path("acme-g2-anchor", &[], clients("acme-g1")),
        path(
            "acme-g1-anchor",
            &["acme-g2-provenance"],
            clients("acme-g2"),
        ),
        path("shared-g1-anchor", &[], clients("acme-g1")),
        path("agents-anchor", &[], clients("acme-g1")),
        path("server-anchor", &[], vec!["agent".to_owned()]),
    ]
}

/// What `openssl verify` says, with these arguments besides.
pub(super) fn verify(issued: &Issued, way: &Path, leaf: &str, more: &[&str]) -> (bool, String) {
    let anchor = text(issued.file(way.anchor));
    let between = way.between.iter().map(|name| text(issued.file(name)));
    let untrusted: Vec<String> = between
        .flat_map(|it| ["-untrusted".to_owned(), it])
        .collect();
    let untrusted: Vec<&str> = untrusted.iter().map(String::as_str).collect();
    let leaf = text(issued.file(leaf));
    let fixed = [
        "verify",
        "-x509_strict",
        "-no-CApath",
        "-no-CAstore",
        "-purpose",
        way.purpose,
        "-CAfile",
        &anchor,
    ];
    let finished = openssl(&[&fixed[..], &untrusted, more, &[&leaf]].concat(), &[]);
    (finished.status.success(), finished.stderr)
}

#[test]
fn openssl_finds_every_way_that_there_should_be_and_no_other() {
    let folder = Folder::new("ways");
    let issued = Issued::everything(&folder);
    for (ways, expected) in [(ways(), true), (no_ways(), false)] {
        for way in &ways {
            for leaf in &way.leaves {
                let (verified, said) = verify(&issued, way, leaf, &[]);
                assert_eq!(verified, expected, "{leaf} to {}: {said}", way.anchor);
            }
        }
    }
}

#[test]
fn cryptography_finds_the_same_ways() {
    let folder = Folder::new("ways-in-python");
    let issued = Issued::everything(&folder);
    let chains = |ways: &[Path]| {
        let mut chains = Map::new();
        for way in ways {
            for leaf in &way.leaves {
                let chain = json!({
                    "anchor": issued.file(way.anchor),
                    "between": way.between.iter().map(|it| issued.file(it)).collect::<Vec<_>>(),
                    "leaf": issued.file(leaf),
                    "server_name": if way.purpose == "sslserver" { "localhost" } else { "" },
                });
                chains.insert(
                    format!("{leaf} to {} by {:?}", way.anchor, way.between),
                    chain,
                );
            }
        }
        let answer = judge("verify_chain.py", &json!({"chains": chains, "lists": {}}));
        let answer = answer["chains"].as_object().unwrap().clone();
        assert_eq!(answer.len(), chains.len());
        answer
    };
    for (way, said) in chains(&ways()) {
        assert_eq!(said, "verified", "{way}");
    }
    for (way, said) in chains(&no_ways()) {
        assert_ne!(said, "verified", "{way}");
    }
}
