//! Intermediates of a bank's own PKI, made with openssl, become the installation's root (with its key in a file that is
//! then taken away, or in a SoftHSM token), or the next generation of an account's authority. openssl follows client
//! certificates up to the bank's root, and a receiver that has the account's anchor alone takes them. What can't be an
//! authority is refused with the reason, and another root later.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use countersign_tests::{
    certificates::TestCertificate,
    control_plane,
    folder::Folder,
    openssl::openssl_ok,
    ports::free_port,
    process::{Finished, run},
    receiver::Receiver,
    scanner::Scanner,
    setting::Setting,
    softhsm,
};
use serde_json::{Value, json};

/// A PKI: the root, and an intermediate whose key is in a file or somewhere else.
struct Bank {
    folder: PathBuf,
}

impl Bank {
    fn new(folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        let bank = Self {
            folder: folder.to_owned(),
        };
        bank.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:3072",
            "-nodes",
            "-keyout",
            "root.key",
            "-out",
            "root.pem",
            "-days",
            "3650",
            "-subj",
            "/C=DE/O=Bank/CN=Bank Root CA",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ]);
        bank
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Runs openssl; words that end like files are files of the bank.
    fn openssl(&self, words: &[&str]) -> String {
        let is_file = |word: &&str| {
            let end = Path::new(word).extension().and_then(|it| it.to_str());
            matches!(end, Some("pem" | "key" | "csr" | "cnf" | "der")) && !word.contains('/')
        };
        let words: Vec<String> = words
            .iter()
            .map(|word| {
                if is_file(word) {
                    self.file(word)
                } else {
                    (*word).to_owned()
                }
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        openssl_ok(&words, &[])
    }

    /// Signs an intermediate with these constraints, for a new key in a file.
    fn intermediate(&self, name: &str, constraints: &str) {
        let p384 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
        self.intermediate_with(name, constraints, &p384, None);
    }

    /// As [`Bank::intermediate`], with another kind of key, or for a public key.
    fn intermediate_with(
        &self,
        name: &str,
        constraints: &str,
        kind: &[&str],
        public_key: Option<&str>,
    ) {
        let cnf = format!(
            "basicConstraints=critical,{constraints}\nkeyUsage=critical,keyCertSign,cRLSign\n\
             subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        );
        fs::write(self.file("ext.cnf"), cnf).unwrap();
        let (key, request, certificate) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
        );
        let subject = "/C=DE/O=Bank/OU=Webhooks/CN=Bank Delivery CA 7";
        let out = [
            "-nodes", "-keyout", &key, "-out", &request, "-subj", subject,
        ];
        self.openssl(&[&["req", "-new", "-newkey"], kind, &out].concat());
        let mut sign = vec![
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-out",
            &certificate,
            "-days",
            "1825",
            "-extfile",
            "ext.cnf",
        ];
        if let Some(public_key) = public_key {
            sign.extend(["-force_pubkey", public_key]);
        }
        self.openssl(&sign);
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.file(&key), private).unwrap();
    }
}

fn settings(bank: &Bank, name: &str) -> String {
    let (certificate, key) = (
        bank.file(&format!("{name}.pem")),
        bank.file(&format!("{name}.key")),
    );
    format!("[certificates]\nroot_certificate_file = '{certificate}'\nroot_key_file = '{key}'\n")
}

/// A delivery goes out to a receiver that has this anchor alone, and openssl follows the client certificate up to the
/// bank's root, by way of what is in the file `chain.pem`, and to the anchor.
fn delivers(setting: &Setting, bank: &Bank, account: &str, anchor: &str) {
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, anchor);
    let url = receiver.url("/hooks");
    let destination = setting.destination(account, "orders", &url, &server.ca_pem);
    let _agent = setting.agent("edge-1", &[]);
    let delivery = setting.submit(&destination, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);
    let name = json!({"name": format!("{destination}/clientCertificates/1")});
    let got = setting
        .api()
        .ok("CertificateService/GetClientCertificate", &name);
    let leaf = got["client_certificate"]["certificate_pem"]
        .as_str()
        .unwrap();
    fs::write(bank.file("leaf.pem"), leaf).unwrap();
    fs::write(bank.file("anchor.pem"), anchor).unwrap();
    let verify = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"];
    bank.openssl(
        &[
            &verify[..],
            &["root.pem", "-untrusted", "chain.pem", "leaf.pem"],
        ]
        .concat(),
    );
    bank.openssl(&[&verify[..], &["anchor.pem", "leaf.pem"]].concat());
}

/// An account's authorities, the oldest first.
fn authorities(setting: &Setting, account: &str) -> Vec<Value> {
    let method = "CertificateService/ListCertificateAuthorities";
    let answer = setting.api().ok(method, &json!({"parent": account}));
    let mut all = answer["certificate_authorities"]
        .as_array()
        .unwrap()
        .clone();
    all.sort_by_key(|it| it["generation"].as_i64());
    all
}

/// What an account of an installation does whose root is the bank's.
fn works_below_the_bank(setting: &Setting, bank: &Bank) {
    let account = setting.account("acme");
    let authority = &authorities(setting, &account)[0];
    let chain = authority["provenance_chain_pem"].as_str().unwrap();
    fs::write(bank.file("chain.pem"), chain).unwrap();
    delivers(
        setting,
        bank,
        &account,
        authority["trust_anchor_pem"].as_str().unwrap(),
    );
}

fn start(setting: &Setting) -> Finished {
    let mut command = control_plane::command(&setting.folder, free_port(), "info");
    run(&mut command, b"")
}

#[test]
fn with_its_key_in_a_file_until_it_is_sealed() {
    let folder = Folder::new("imported");
    let bank = Bank::new(&folder.join("bank"));
    bank.intermediate("ca", "CA:TRUE,pathlen:1");
    let mut setting = Setting::in_folder(folder, &settings(&bank, "ca"), "info");
    // It is sealed in the store now.
    fs::remove_file(bank.file("ca.key")).unwrap();
    works_below_the_bank(&setting, &bank);
    setting.control_plane.stop();
    setting.control_plane.restart();
    setting.account("globex");

    setting.control_plane.stop();
    bank.intermediate("other", "CA:TRUE");
    fs::copy(bank.file("other.pem"), bank.file("ca.pem")).unwrap();
    let refused = start(&setting);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.all().contains("is not this installation's root"),
        "{refused:?}"
    );
}

#[test]
fn what_can_not_be_a_root_is_refused_and_makes_nothing() {
    let folder = Folder::new("no-root");
    let bank = Bank::new(&folder.join("bank"));
    bank.intermediate("last", "CA:TRUE,pathlen:0");
    bank.intermediate("leaf", "CA:FALSE");
    bank.intermediate("ca", "CA:TRUE");
    bank.intermediate("swapped", "CA:TRUE");
    fs::copy(bank.file("last.key"), bank.file("swapped.key")).unwrap();
    fs::write(
        bank.file("both.pem"),
        [
            fs::read(bank.file("ca.pem")).unwrap(),
            fs::read(bank.file("root.pem")).unwrap(),
        ]
        .concat(),
    )
    .unwrap();
    fs::copy(bank.file("ca.key"), bank.file("both.key")).unwrap();
    for (name, reason) in [
        ("last", "pathlen:0"),
        ("leaf", "CA:TRUE"),
        ("swapped", "public keys differ"),
        ("both", "holds 2 certificates"),
        ("absent", "No such file"),
    ] {
        let work = folder.subfolder(name);
        fs::write(work.join("control-plane.toml"), settings(&bank, name)).unwrap();
        let mut command = control_plane::command(&work, free_port(), "info");
        let key_file = work.join("admin.key");
        let refused = run(command.arg("--admin-key-file").arg(&key_file), b"");
        assert_eq!(refused.status.code(), Some(1), "{name}: {refused:?}");
        assert!(refused.all().contains(reason), "{name}: {refused:?}");
        assert!(!key_file.exists(), "{name}: a key was handed out");
    }
}

#[test]
fn with_its_key_in_a_token() {
    let folder = Folder::new("imported-token");
    softhsm::make_token(&folder);
    softhsm::make_ec_key(&folder, "bank-ca");
    let bank = Bank::new(&folder.join("bank"));
    softhsm::read_public_key(&folder, "bank-ca", Path::new(&bank.file("token.der")));
    bank.openssl(&[
        "pkey",
        "-pubin",
        "-inform",
        "DER",
        "-in",
        "token.der",
        "-out",
        "token.pem",
    ]);
    bank.intermediate_with("ca", "CA:TRUE,pathlen:2", &["rsa:2048"], Some("token.pem"));
    let certificate = bank.file("ca.pem");
    let toml = format!("certificates.root_certificate_file = '{certificate}'\n")
        + &softhsm::settings(&folder, "certificates.root_token", "bank-ca");
    let mut setting = Setting::in_folder(folder, &toml, "info");
    works_below_the_bank(&setting, &bank);
    setting.control_plane.kill9();
    setting.control_plane.restart();
    setting.account("globex");
}

#[test]
fn an_accounts_authority_can_be_one_of_the_bank() {
    let setting = Setting::new("imported-authority");
    let bank = Bank::new(&setting.folder.join("bank"));
    bank.intermediate_with("ca", "CA:TRUE,pathlen:0", &["rsa:2048"], None);
    let api = setting.api();
    let account = setting.account("acme");
    let text = |name: &str| fs::read_to_string(bank.file(name)).unwrap();
    let import = |certificate: &str, key: &str| {
        json!({
            "parent": account,
            "imported": {"certificate_pem": text(certificate), "private_key_pem": text(key)},
        })
    };
    let rotate = "CertificateService/RotateCertificateAuthority";
    bank.intermediate("leaf", "CA:FALSE");
    for (certificate, key, field) in [
        ("leaf.pem", "leaf.key", "imported.certificate_pem"),
        ("ca.pem", "leaf.key", "imported.certificate_pem"),
        ("ca.pem", "ca.csr", "imported.private_key_pem"),
        ("ca.key", "ca.key", "imported.certificate_pem"),
    ] {
        let refused = api.refused(rotate, &import(certificate, key));
        assert_eq!(refused.fields(), [field], "{refused:?}");
        assert!(!refused.message.contains("BEGIN"), "{refused:?}");
    }
    let mut shared = import("ca.pem", "ca.key");
    shared["parent"] = json!("shared");
    api.refused(rotate, &shared);

    api.ok(rotate, &import("ca.pem", "ca.key"));
    let parent = json!({"parent": account});
    // Nobody has a certificate yet, so nothing holds it up.
    api.ok("CertificateService/AdvanceRotation", &parent);
    let all = authorities(&setting, &account);
    let imported = &all[1];
    assert_eq!(
        imported["state"], "CERTIFICATE_AUTHORITY_STATE_ACTIVE",
        "{imported}"
    );
    assert_eq!(
        imported["provenance_chain_pem"].as_str().unwrap().trim(),
        text("ca.pem").trim()
    );
    assert_eq!(
        imported["subject"],
        "C=DE, O=Bank, OU=Webhooks, CN=Bank Delivery CA 7"
    );

    fs::copy(bank.file("ca.pem"), bank.file("chain.pem")).unwrap();
    delivers(
        &setting,
        &bank,
        &account,
        imported["trust_anchor_pem"].as_str().unwrap(),
    );

    let mut scanner = Scanner::for_private_keys();
    scanner.text("the imported key", text("ca.key").trim());
    let log = setting.control_plane.output();
    assert_eq!(scanner.find(log.as_bytes()), Vec::<&str>::new());
    for entry in fs::read_dir(setting.control_plane.data_dir()).unwrap() {
        let found = scanner.find(&fs::read(entry.unwrap().path()).unwrap());
        assert_eq!(found, Vec::<&str>::new());
    }
}
