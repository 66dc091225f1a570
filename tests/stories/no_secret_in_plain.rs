//! After a delivery with debug logs, every file of both data directories, every log line and every
//! metrics page is searched for keys, tokens and secrets, in every form. None is there; only the KEK
//! lies in its own file.

use std::{fs, net::SocketAddr, path::Path};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use countersign_shared::{digest::unhex, random};
use countersign_tests::{
    agent::{Agent, enroll},
    certificates::TestCertificate,
    folder::Folder,
    http_get,
    ports::free_port,
    receiver::Receiver,
    scanner::Scanner,
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use serde_json::json;

#[test]
fn keys_tokens_and_secrets_are_nowhere_in_plain() {
    let setting = Setting::with("secrets", "", "debug");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let token = setting.join_token("edge");
    let data_dir = setting.agent_data_dir("edge-1");
    let enrolled = enroll(
        &data_dir,
        &setting.control_plane.agents_url(),
        &token,
        "edge-1",
    );
    assert!(enrolled.status.success(), "{enrolled:?}");
    let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = http.to_string();
    let flags = ["--log-filter", "debug", "--listen-http", &listen];
    let agent = Agent::start(&setting.folder, &data_dir, &flags);
    let delivery = setting.submit(&destination, br#"{"order":1}"#, "application/json");
    setting.wait_until_delivered(&delivery);
    let secret = reveal(&setting, &destination);

    let mut scanner = Scanner::for_private_keys();
    add_signing_secret(&mut scanner, &secret);
    add_token(&mut scanner, &token);
    add_api_key(&mut scanner, &setting.control_plane.admin_key());
    let data_dirs = [setting.control_plane.data_dir(), data_dir];
    for data_dir in &data_dirs {
        scanner.bytes("KEK", &read_kek(&data_dir.join("kek")));
    }

    let mut found = Vec::new();
    for (name, text) in [
        ("output of enroll", enrolled.all()),
        (
            "output of the control plane",
            setting.control_plane.output(),
        ),
        ("output of the agent", agent.output()),
        (
            "metrics of the control plane",
            metrics(setting.control_plane.listeners().http),
        ),
        ("metrics of the agent", metrics(http)),
    ] {
        assert!(!text.is_empty() || name == "output of enroll", "no {name}");
        found.extend(
            scanner
                .find(text.as_bytes())
                .iter()
                .map(|what| format!("{name}: {what}")),
        );
    }
    for data_dir in &data_dirs {
        let in_files = scanner.find_in_files(data_dir);
        // A KEK lies in its own file, which shows that the search finds what is there.
        let (own, elsewhere): (Vec<_>, Vec<_>) = in_files
            .into_iter()
            .partition(|line| line.starts_with("kek: KEK"));
        assert_eq!(own.len(), 1, "{own:?}");
        found.extend(elsewhere);
    }
    assert!(found.is_empty(), "{found:#?}");
    // Nor do they leave an image of their memory behind when they crash.
    for process in [setting.control_plane.id(), agent.id()] {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let core = limits.lines().find(|line| line.contains("core file size"));
        let core: Vec<_> = core.unwrap().split_whitespace().skip(4).take(2).collect();
        assert_eq!(core, ["0", "0"]);
    }
}

fn reveal(setting: &Setting, destination: &str) -> String {
    let request = json!({"name": format!("{destination}/signingSecrets/-")});
    let answer = setting
        .api()
        .ok("DestinationService/RevealSigningSecret", &request);
    answer["signing_secret"].as_str().unwrap().to_owned()
}

fn metrics(address: SocketAddr) -> String {
    wait_until("the metrics page", PATIENCE, || {
        let answer = http_get::get(address, "/metrics").ok()?;
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).ok()
    })
}

fn add_signing_secret(scanner: &mut Scanner, secret: &str) {
    let base64 = secret.strip_prefix("whsec_").expect("whsec_ and base64");
    scanner.text("signing secret, as text", base64);
    scanner.bytes("signing secret", &STANDARD.decode(base64).unwrap());
}

fn add_token(scanner: &mut Scanner, token: &str) {
    scanner.text("join token", token.trim());
    let secret = token
        .trim()
        .split('.')
        .nth(1)
        .expect("csj_<id>.<secret>.<pin>");
    scanner.text("secret of the join token, as text", secret);
    scanner.bytes(
        "secret of the join token",
        &URL_SAFE_NO_PAD.decode(secret).unwrap(),
    );
}

/// Whatever its form: the whole, and what comes after a mark that may stand before the secret part.
fn add_api_key(scanner: &mut Scanner, key: &str) {
    scanner.text("API key", key);
    let after_point = key.rsplit('.').next();
    let after_prefixes = [2, 3].map(|parts| key.splitn(parts, '_').last());
    let parts = after_prefixes.into_iter().chain([after_point]).flatten();
    for part in parts.filter(|part| part.len() >= 22) {
        scanner.text("secret of the API key, as text", part);
        let decoded = [unhex(part), URL_SAFE_NO_PAD.decode(part).ok()];
        for raw in decoded.into_iter().flatten() {
            scanner.bytes("secret of the API key", &raw);
        }
    }
}

/// The 32 bytes in a KEK file: as they are, or in hexadecimal or base64 after a prefix.
fn read_kek(path: &Path) -> Vec<u8> {
    let content = fs::read(path).unwrap();
    if content.len() == 32 {
        return content;
    }
    let text = String::from_utf8(content).expect("a KEK file is 32 bytes or text");
    let words = text.split(|letter: char| letter.is_whitespace() || letter == ':');
    let decoded = words.flat_map(|word| {
        let unpadded = word.trim_end_matches('=');
        [
            unhex(word),
            STANDARD.decode(word).ok(),
            URL_SAFE_NO_PAD.decode(unpadded).ok(),
        ]
    });
    let mut keys = decoded.flatten().filter(|bytes| bytes.len() == 32);
    keys.next().expect("32 bytes in the KEK file")
}

#[test]
fn the_scanner_finds_every_form_that_is_planted() {
    let secret = random::bytes::<32>();
    let mut scanner = Scanner::for_private_keys();
    scanner.bytes("secret", &secret);
    scanner.text("token", "csj_edge.hunter2");
    let folder = Folder::new("scanner");
    let clean = folder.subfolder("clean");
    fs::write(clean.join("file"), random::bytes::<4096>()).unwrap();
    assert_eq!(scanner.find_in_files(&clean), Vec::<String>::new());

    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut plants: Vec<Vec<u8>> = vec![
        [b"before".as_slice(), &secret, b"after"].concat(),
        hex.clone().into_bytes(),
        hex.to_uppercase().into_bytes(),
        b"x csj_edge.hunter2 y".to_vec(),
        pkcs8_key("PEM"),
        pkcs8_key("DER"),
        STANDARD.encode(pkcs8_key("DER")).into_bytes(),
        sec1_key(),
    ];
    for before in ["", "a", "ab", "abc"] {
        let longer = [before.as_bytes(), &secret, b"behind"].concat();
        plants.push(STANDARD.encode(&longer).into_bytes());
        plants.push(URL_SAFE_NO_PAD.encode(&longer).into_bytes());
    }
    for (number, plant) in plants.iter().enumerate() {
        let planted = folder.subfolder(&number.to_string());
        // Far behind the start, and in a folder of its own.
        let content = [&random::bytes::<70_000>()[..], plant].concat();
        fs::create_dir(planted.join("deep")).unwrap();
        fs::write(planted.join("deep/file"), content).unwrap();
        let found = scanner.find_in_files(&planted);
        assert!(!found.is_empty(), "plant {number} was not found");
        assert!(found[0].starts_with("deep/file: "), "{found:?}");
    }
}

/// A fresh P-256 key in PKCS#8, as openssl writes it.
fn pkcs8_key(form: &str) -> Vec<u8> {
    openssl_to_file(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-outform",
        form,
    ])
}

/// A fresh P-256 key in SEC1 in DER.
fn sec1_key() -> Vec<u8> {
    openssl_to_file(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-outform",
        "DER",
    ])
}

fn openssl_to_file(arguments: &[&str]) -> Vec<u8> {
    let folder = Folder::new("openssl");
    let path = folder.join("key").display().to_string();
    countersign_tests::openssl::openssl_ok(&[arguments, &["-out", &path]].concat(), &[]);
    fs::read(path).unwrap()
}
