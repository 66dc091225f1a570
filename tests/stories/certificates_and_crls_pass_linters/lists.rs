//! Revocation lists: one of each as the authority signs it, and those that a control plane serves.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::{
    folder::Folder,
    http_get,
    issued::Issued,
    openssl::{openssl, openssl_ok},
    python::judge,
    setting::Setting,
};
use serde_json::{Map, Value, json};

use super::{
    KEY_IDENTIFIER, text,
    ways::{clients, path, verify},
};

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
        "/crl/shared/2.crl",
        "/trust/accounts/acme/2.crt",
        "/trust/shared/1.pem",
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

    let unknown = api.refused(method, &json!({"name": "certificateAuthorities/2"}));
    assert_eq!(unknown.code, "NOT_FOUND", "{unknown:?}");
    let wrong = api.refused(method, &json!({"name": account}));
    assert_eq!(wrong.fields(), ["name"], "{wrong:?}");
}
