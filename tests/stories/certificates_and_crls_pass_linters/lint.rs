//! What pkilint says.

use countersign_tests::{
    folder::Folder,
    issued::{Issued, Signed},
    python::judge,
};
use serde_json::{Map, Value, json};

use super::{KEY_IDENTIFIER, KEYS, is_client};

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
