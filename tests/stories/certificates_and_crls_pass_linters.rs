//! Every kind of certificate and revocation list, judged by a linter (pkilint), by OpenSSL and by
//! Python's `cryptography`: one of each as the authority signs it, and the lists that a running
//! control plane serves.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::{
    folder::Folder,
    http_get,
    issued::{Issued, Signed},
    openssl::{openssl, openssl_ok},
    python::judge,
    setting::Setting,
};
use serde_json::{Map, Value, json};

/// Key identifiers are a SHA-256 over the whole public key (SubjectPublicKeyInfo), cut to 20 octets.
/// RFC 5280 section 4.2.1.2 leaves the method open; the linter notes that it is none with a name.
const KEY_IDENTIFIER: &str = "NOTICE pkix.unknown_subject_key_identifier_calculation_method";
/// The linter has a list of URI schemes, and `spiffe` is not on it. An identity is what this URI is.
const SPIFFE_URI: &str = "ERROR pkix.invalid_uri_syntax";
/// `localhost` is one label: the linter asks for a public name. The server certificate is for whatever
/// names the operator sets.
const LOCALHOST: &str = "ERROR pkix.invalid_domain_name_syntax";

/// All that the linter may say about the certificate `name`, and has to.
fn expected(name: &str) -> Vec<&'static str> {
    if name == "server" {
        vec![LOCALHOST, KEY_IDENTIFIER]
    } else if is_client(name) || name == "agent" {
        vec![SPIFFE_URI, KEY_IDENTIFIER]
    } else {
        vec![KEY_IDENTIFIER]
    }
}

const KEYS: [&str; 4] = ["p256", "p384", "rsa2048", "rsa3072"];

fn is_client(name: &str) -> bool {
    KEYS.iter().any(|key| name.ends_with(key))
}

fn files(signed: &[Signed]) -> Map<String, Value> {
    let named = |it: &Signed| (it.name.clone(), json!(it.file));
    signed.iter().map(named).collect()
}

#[test]
fn the_linter_finds_nothing_but_what_is_meant_to_be() {
    let folder = Folder::new("lint");
    let issued = Issued::everything(&folder);
    let pair = |it: &Signed| (it.name.clone(), json!([issued.file(&it.signer), it.file]));
    let pairs: Map<String, Value> = issued.certificates.iter().map(pair).collect();
    let question = json!({
        "certificates": files(&issued.certificates),
        "lists": files(&issued.lists),
        "pairs": pairs,
    });
    let answer = judge("lint.py", &question);
    for certificate in &issued.certificates {
        let name = certificate.name.as_str();
        assert_eq!(
            answer["certificates"][name],
            json!(expected(name)),
            "{name}"
        );
        assert_eq!(answer["pairs"][name], json!([]), "{name} and its signer");
    }
    for list in &issued.lists {
        assert_eq!(answer["lists"][&list.name], json!([]), "{}", list.name);
    }
    let clients = issued.certificates.iter().filter(|it| is_client(&it.name));
    assert_eq!(
        clients.count(),
        3 * KEYS.len(),
        "each kind of key of each authority"
    );
}

#[test]
fn the_linter_sees_what_is_wrong() {
    let folder = Folder::new("lint-wrong");
    let issued = Issued::everything(&folder);
    // The second generation's signature is not the first one's.
    let pair = json!([issued.file("acme-g1-anchor"), issued.file("acme-g2-p256")]);
    let question = json!({"certificates": {}, "lists": {}, "pairs": {"wrong": pair}});
    let answer = judge("lint.py", &question);
    let found = answer["pairs"]["wrong"].as_array().unwrap();
    assert!(!found.is_empty(), "{answer}");
}

/// A way from a leaf to what a receiver, or we ourselves, trust.
struct Path {
    anchor: &'static str,
    between: &'static [&'static str],
    leaves: Vec<String>,
    purpose: &'static str,
}

fn clients(authority: &str) -> Vec<String> {
    KEYS.iter()
        .map(|key| format!("{authority}-{key}"))
        .collect()
}

fn path(anchor: &'static str, between: &'static [&'static str], leaves: Vec<String>) -> Path {
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

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

/// What `openssl verify` says, with these arguments besides.
fn verify(issued: &Issued, way: &Path, leaf: &str, more: &[&str]) -> (bool, String) {
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

#[test]
fn a_revocation_list_refuses_what_is_on_it_and_nothing_else() {
    let folder = Folder::new("lists");
    let issued = Issued::everything(&folder);
    let lists = issued.lists.iter();
    let lists: Map<String, Value> = lists
        .map(|it| (it.name.clone(), json!([it.file, issued.file(&it.signer)])))
        .collect();
    let answer = judge("verify_chain.py", &json!({"chains": {}, "lists": lists}));
    for list in &issued.lists {
        let read = &answer["lists"][&list.name];
        let expected = match list.name.as_str() {
            "acme-g2-crl" => vec![issued.revoked.clone(), "1".to_owned(), "7f".repeat(20)],
            _ => Vec::new(),
        };
        assert_eq!(
            *read,
            json!({"signed": true, "number": 7, "serials": expected})
        );
        let (file, signer) = (text(list.file.clone()), text(issued.file(&list.signer)));
        let arguments = ["crl", "-noout", "-verify", "-CAfile", &signer, "-in", &file];
        // It says so on standard error, and its status is 0 in any case.
        assert!(
            openssl(&arguments, &[]).stderr.contains("verify OK"),
            "{}",
            list.name
        );
    }

    // Receivers that check lists look at every certificate of the chain: both generations' lists.
    let both = folder.join("both.pem");
    let read = |name: &str| fs::read_to_string(issued.file(name)).unwrap();
    fs::write(&both, read("acme-g1-crl") + &read("acme-g2-crl")).unwrap();
    let (both, newer) = (text(both), text(issued.file("acme-g2-crl")));
    let way = path("acme-g1-anchor", &["acme-g2-cross"], clients("acme-g2"));
    let check =
        |list: &str, leaf: &str| verify(&issued, &way, leaf, &["-crl_check_all", "-CRLfile", list]);
    for leaf in &way.leaves {
        let (verified, said) = check(&both, leaf);
        assert_eq!(verified, leaf != "acme-g2-p384", "{leaf}: {said}");
    }
    let (_, said) = check(&both, "acme-g2-p384");
    assert!(said.contains("certificate revoked"), "{said}");
    let (verified, said) = check(&newer, "acme-g2-p256");
    assert!(
        !verified && said.contains("unable to get certificate CRL"),
        "{said}"
    );
}

#[test]
fn a_control_plane_serves_good_lists_from_an_accounts_birth_on() {
    let setting = Setting::new("served-lists");
    let account = setting.account("acme");
    let name = format!("{account}/certificateAuthorities/1");
    let api = setting.api();
    let method = "CertificateService/GetCertificateRevocationList";
    let list = api.ok(method, &json!({"name": name}));
    assert_eq!(list["number"], "1");
    let pem = list["crl_pem"].as_str().unwrap();
    let der = STANDARD.decode(list["crl"].as_str().unwrap()).unwrap();

    let http = setting.control_plane.listeners().http;
    let served = |path: &str| http_get::get(http, path).unwrap();
    let in_der = served("/crl/accounts/acme/1.crl");
    assert_eq!((in_der.status, &in_der.body), (200, &der));
    let head = in_der.head.to_lowercase();
    for header in [
        "content-type: application/pkix-crl",
        "cache-control: max-age=60",
        "etag: \"",
    ] {
        assert!(head.contains(header), "{head}");
    }
    for path in ["/crl/accounts/acme/1.pem", "/crl/accounts/acme.pem"] {
        assert_eq!(served(path).body, pem.as_bytes(), "{path}");
    }
    for missing in [
        "/crl/accounts/acme/2.crl",
        "/crl/accounts/acme/1.txt",
        "/crl/accounts/nobody.pem",
        "/crl/accounts/acme",
        "/crl/shared.pem",
        "/crl/shared/1.crl",
        "/trust/shared.pem",
    ] {
        assert_eq!(served(missing).status, 404, "{missing}");
    }

    let (anchor, file) = (
        setting.folder.join("anchor.pem"),
        setting.folder.join("list.pem"),
    );
    fs::write(&anchor, setting.trust_bundle(&account)).unwrap();
    fs::write(&file, pem).unwrap();
    let (signer, list) = (text(anchor.clone()), text(file.clone()));
    let arguments = ["crl", "-noout", "-verify", "-CAfile", &signer, "-in", &list];
    assert!(openssl(&arguments, &[]).stderr.contains("verify OK"));
    let question =
        json!({"certificates": {"anchor": anchor}, "lists": {"list": file}, "pairs": {}});
    let answer = judge("lint.py", &question);
    assert_eq!(answer["lists"]["list"], json!([]));
    assert_eq!(answer["certificates"]["anchor"], json!([KEY_IDENTIFIER]));
    let printed = openssl_ok(&["crl", "-noout", "-text", "-in", &list], &[]);
    assert!(printed.contains("No Revoked Certificates"), "{printed}");

    let unknown = api.refused(method, &json!({"name": "certificateAuthorities/1"}));
    assert_eq!(unknown.code, "NOT_FOUND", "{unknown:?}");
    let wrong = api.refused(method, &json!({"name": account}));
    assert_eq!(wrong.fields(), ["name"], "{wrong:?}");
}
