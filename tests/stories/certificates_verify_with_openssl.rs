//! The certificates, judged by openssl: who verifies against whom, and every fact of the profile.

use std::{fs, path::PathBuf};

use countersign_tests::{
    openssl::{fact, openssl, text, verifies_as_client},
    python::judge,
    setting::Setting,
};
use serde_json::{Value, json};

/// An account's certificates, in files.
struct Certificates {
    anchor: String,
    leaf: String,
    provenance_chain: String,
    /// When the destination was made.
    create_time: String,
    /// As the API tells of the client certificate.
    api: Value,
    files: PathBuf,
}

fn certificates(setting: &Setting, id: &str) -> Certificates {
    let account = setting.account(id);
    let destination = setting.destination(&account, "orders", "https://receiver.example/", "");
    let api = setting.api();
    let name = json!({"name": format!("{destination}/clientCertificates/1")});
    let certificate = api.ok("CertificateService/GetClientCertificate", &name);
    let parent = json!({"parent": account});
    let authorities = api.ok("CertificateService/ListCertificateAuthorities", &parent);
    let authority = &authorities["certificate_authorities"][0];
    let destination = api.ok(
        "DestinationService/GetDestination",
        &json!({"name": destination}),
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let made = Certificates {
        anchor: text(&authority["trust_anchor_pem"]),
        leaf: text(&certificate["client_certificate"]["certificate_pem"]),
        provenance_chain: text(&authority["provenance_chain_pem"]),
        create_time: text(&destination["destination"]["create_time"]),
        api: certificate["client_certificate"].clone(),
        files: setting.folder.subfolder(id),
    };
    assert_eq!(setting.trust_bundle(&account).trim(), made.anchor.trim());
    assert_eq!(made.api["issuer"], authority["name"]);
    made
}

impl Certificates {
    fn file(&self, name: &str, pem: &str) -> PathBuf {
        let path = self.files.join(name);
        fs::write(&path, pem).unwrap();
        path
    }

    fn anchor_file(&self) -> PathBuf {
        self.file("anchor.pem", &self.anchor)
    }

    fn leaf_file(&self) -> PathBuf {
        self.file("leaf.pem", &self.leaf)
    }

    /// The provenance certificate and the root.
    fn provenance(&self) -> [String; 2] {
        let end = "-----END CERTIFICATE-----\n";
        let parts: Vec<String> = self
            .provenance_chain
            .split_inclusive(end)
            .map(str::to_owned)
            .collect();
        parts
            .try_into()
            .expect("the provenance certificate and the root")
    }
}

#[test]
fn a_leaf_verifies_against_its_own_accounts_anchor_alone() {
    let setting = Setting::new("verify");
    let acme = certificates(&setting, "acme");
    let globex = certificates(&setting, "globex");
    for (ours, other) in [(&acme, &globex), (&globex, &acme)] {
        assert!(verifies_as_client(&ours.anchor_file(), &ours.leaf_file()));
        assert!(!verifies_as_client(&other.anchor_file(), &ours.leaf_file()));
    }
    let leaf = acme.leaf_file().display().to_string();
    let anchor = acme.anchor_file().display().to_string();
    let as_server = ["verify", "-purpose", "sslserver", "-CAfile", &anchor, &leaf];
    assert!(
        !openssl(&as_server, &[]).status.success(),
        "it must not do for a server"
    );
}

#[test]
fn the_same_authority_is_signed_by_the_root_for_audit() {
    let setting = Setting::new("provenance");
    let acme = certificates(&setting, "acme");
    let globex = certificates(&setting, "globex");
    let [provenance, root] = acme.provenance();
    assert_eq!(
        globex.provenance()[1],
        root,
        "one installation has one root"
    );
    let root_file = acme.file("root.pem", &root).display().to_string();
    let provenance_file = acme
        .file("provenance.pem", &provenance)
        .display()
        .to_string();
    let verify = [
        "verify",
        "-x509_strict",
        "-CAfile",
        &root_file,
        &provenance_file,
    ];
    assert!(openssl(&verify, &[]).status.success());
    for what in ["subject", "pubkey"] {
        let of = |pem: &str| {
            let flag = format!("-{what}");
            openssl(&["x509", "-noout", &flag], pem.as_bytes()).stdout
        };
        assert_eq!(of(&provenance), of(&acme.anchor), "{what}");
    }
    // For our own verification: the leaf leads to the root through it.
    let leaf = acme.leaf_file().display().to_string();
    let through = [
        "verify",
        "-purpose",
        "sslclient",
        "-CAfile",
        &root_file,
        "-untrusted",
    ];
    let arguments = [&through[..], &[&provenance_file, &leaf]].concat();
    assert!(openssl(&arguments, &[]).status.success());
    let root_text = text(&root);
    assert_contains(&root_text, &["CA:TRUE, pathlen:2", "CN=Countersign Root"]);
}

fn assert_contains(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "no '{part}' in:\n{text}");
    }
}

/// The lines after `title` in openssl's text, as one.
fn extension<'a>(text: &'a str, title: &str) -> &'a str {
    let mut lines = text.lines().skip_while(|line| !line.contains(title));
    lines
        .next()
        .unwrap_or_else(|| panic!("no {title} in:\n{text}"));
    lines.next().unwrap().trim()
}

#[test]
fn a_client_certificate_has_the_profile_of_one() {
    let setting = Setting::new("leaf-profile");
    let acme = certificates(&setting, "acme");
    let text = text(&acme.leaf);
    assert_eq!(
        extension(&text, "X509v3 Extended Key Usage:"),
        "TLS Web Client Authentication"
    );
    assert_eq!(
        extension(&text, "X509v3 Key Usage: critical"),
        "Digital Signature"
    );
    assert_eq!(
        extension(&text, "X509v3 Basic Constraints: critical"),
        "CA:FALSE"
    );
    let uri = "spiffe://countersign.internal/account/acme/destination/orders";
    assert_eq!(
        extension(&text, "X509v3 Subject Alternative Name:"),
        format!("URI:{uri}")
    );
    assert_contains(
        &text,
        &[
            "Subject: CN=countersign-delivery.acme",
            "Issuer: CN=Countersign Delivery CA — acme G1",
            "X509v3 Subject Key Identifier:",
            "X509v3 Authority Key Identifier:",
            "NIST CURVE: P-256",
            "Signature Algorithm: ecdsa-with-SHA256",
            "Version: 3",
        ],
    );
    assert_eq!(acme.api["uri"], uri);
    let serial = fact(&acme.leaf, "serial");
    assert_eq!(acme.api["serial_number"], serial.to_lowercase());
    // 127 random bits have fewer than 24 hexadecimal digits once in four billion; 20 octets are 40.
    assert!((24..=40).contains(&serial.len()), "{serial}");
    assert!(!serial.starts_with('-'), "{serial}");
}

/// Start and end of validity, in seconds, and what openssl's texts were.
fn validity(pem: &str, also: &str) -> (f64, f64, f64) {
    let question = json!({
        "start": fact(pem, "startdate"),
        "end": fact(pem, "enddate"),
        "also": also,
    });
    let answer = judge("clock.py", &question);
    let time = |name: &str| answer["times"][name].as_f64().unwrap();
    (time("start"), time("end"), time("also"))
}

const MINUTE: f64 = 60.0;
const DAY: f64 = 86_400.0;

#[test]
fn validity_is_ninety_days_and_ten_years_backdated_by_ten_minutes() {
    let setting = Setting::new("validity");
    let acme = certificates(&setting, "acme");
    // Counted from the issue or from the backdated start: both are 90 days.
    let backdating = 11.0 * MINUTE;
    let (start, end, created) = validity(&acme.leaf, &acme.create_time);
    let (back, life) = (created - start, end - start);
    assert!(
        (9.0 * MINUTE..=backdating).contains(&back),
        "backdated by {back} s"
    );
    assert!(
        (90.0 * DAY..=90.0 * DAY + backdating).contains(&life),
        "lives {} days",
        life / DAY
    );
    for certificate in [&acme.anchor, &acme.provenance()[0]] {
        let (start, end, created) = validity(certificate, &acme.create_time);
        let years = (end - start) / DAY / 365.25;
        assert!((9.99..=10.01).contains(&years), "{years} years");
        assert!(
            created - start >= 9.0 * MINUTE,
            "backdated by {} s",
            created - start
        );
    }
}

#[test]
fn a_trust_anchor_has_the_profile_of_one() {
    let setting = Setting::new("anchor-profile");
    let acme = certificates(&setting, "acme");
    let text = text(&acme.anchor);
    assert_eq!(
        extension(&text, "X509v3 Basic Constraints: critical"),
        "CA:TRUE, pathlen:1"
    );
    assert_eq!(
        extension(&text, "X509v3 Key Usage: critical"),
        "Certificate Sign, CRL Sign"
    );
    assert_contains(
        &text,
        &[
            "Subject: CN=Countersign Delivery CA — acme G1",
            "Issuer: CN=Countersign Delivery CA — acme G1",
            "X509v3 Subject Key Identifier:",
            "NIST CURVE: P-256",
        ],
    );
    assert!(!text.contains("Name Constraints"), "{text}");
    assert!(!text.contains("Extended Key Usage"), "{text}");
}

#[test]
fn a_destination_gets_the_kind_of_key_that_it_asks_for() {
    let setting = Setting::new("keys");
    let account = setting.account("acme");
    let anchor = setting.folder.join("anchor.pem");
    fs::write(&anchor, setting.trust_bundle(&account)).unwrap();
    let api = setting.api();
    for (id, algorithm, printed) in [
        ("p384", "KEY_ALGORITHM_ECDSA_P384", "NIST CURVE: P-384"),
        (
            "rsa2048",
            "KEY_ALGORITHM_RSA_2048",
            "Public-Key: (2048 bit)",
        ),
        (
            "rsa3072",
            "KEY_ALGORITHM_RSA_3072",
            "Public-Key: (3072 bit)",
        ),
    ] {
        let destination = json!({"url": "https://receiver.example/", "key_algorithm": algorithm});
        let request = json!({"parent": account, "destination_id": id, "destination": destination});
        api.ok("DestinationService/CreateDestination", &request);
        let name = format!("{account}/destinations/{id}/clientCertificates/1");
        let found = api.ok(
            "CertificateService/GetClientCertificate",
            &json!({"name": name}),
        );
        let found = &found["client_certificate"];
        assert_eq!(found["key_algorithm"], algorithm);
        let pem = found["certificate_pem"].as_str().unwrap();
        assert_contains(&text(pem), &[printed, "TLS Web Client Authentication"]);
        let leaf = setting.folder.join("leaf.pem");
        fs::write(&leaf, pem).unwrap();
        assert!(verifies_as_client(&anchor, &leaf), "{id}");
    }
}
