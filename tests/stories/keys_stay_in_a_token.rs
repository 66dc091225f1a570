//! The KEK and the root's key are in a SoftHSM token, made with the commands of the documentation, and so are those of
//! accounts' authorities, which are made and destroyed there. Deliveries go out, also after a restart and with the token's sessions gone; there is no key file; without the token
//! a start says what is missing, and changes nothing.

use std::fs;

use countersign_tests::{
    certificates::TestCertificate,
    control_plane,
    folder::Folder,
    openssl,
    ports::free_port,
    process::run,
    receiver::Receiver,
    setting::Setting,
    softhsm::{self, PIN},
};
use serde_json::json;

/// A token with both keys; gives the control plane's configuration.
fn make_token(folder: &Folder) -> String {
    softhsm::make_token(folder);
    softhsm::make_aes_key(folder, "countersign-kek");
    softhsm::make_ec_key(folder, "countersign-root");
    softhsm::settings(folder, "kek.token", "countersign-kek")
        + &softhsm::settings(folder, "certificates.root_token", "countersign-root")
        + &softhsm::place(folder, "certificates.authority_token")
}

#[test]
fn deliveries_go_out_with_keys_that_nobody_can_take() {
    let folder = Folder::new("token");
    let toml = make_token(&folder);
    let mut setting = Setting::in_folder(folder, &toml, "info");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let _agent = setting.agent("edge-1", &[]);
    let delivery = setting.submit(&destination, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);
    assert!(!setting.control_plane.data_dir().join("kek").exists());

    setting.control_plane.kill9();
    setting.control_plane.restart();
    // The root signs again, and the data keys are unwrapped again.
    setting.account("globex");
    let delivery = setting.submit(&destination, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);

    setting.control_plane.stop();
    let store = setting.control_plane.data_dir().join("store.sqlite");
    let before = fs::read(&store).unwrap();
    let tokens = setting.folder.join("tokens");
    let away = setting.folder.join("tokens-away");
    fs::rename(&tokens, &away).unwrap();
    fs::create_dir(&tokens).unwrap();
    let start = || {
        let mut command = control_plane::command(&setting.folder, free_port(), "info");
        run(&mut command, b"")
    };
    let refused = start();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.all().contains("has no token 'bank'"), "{refused:?}");
    assert!(!refused.all().contains(PIN), "{refused:?}");
    assert!(fs::read(&store).unwrap() == before, "the store was changed");
    fs::remove_dir(&tokens).unwrap();
    fs::rename(&away, &tokens).unwrap();
    setting.control_plane.restart();
    let delivery = setting.submit(&destination, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);
}

#[test]
fn authorities_keys_are_made_in_the_token_and_destroyed_with_the_account() {
    let folder = Folder::new("authority-token");
    let toml = make_token(&folder);
    let mut setting = Setting::in_folder(folder, &toml, "info");
    let account = setting.account("acme");
    let globex = setting.account("globex");
    let keys = |setting: &Setting, of: &str| {
        let mut keys = softhsm::private_keys(&setting.folder);
        keys.retain(|label| label.contains(of));
        keys.sort();
        keys
    };
    assert_eq!(keys(&setting, "acme"), ["countersign accounts/acme G1"]);
    // What is refused leaves none behind.
    let again = json!({"account_id": "acme", "request_id": "another"});
    setting
        .api()
        .refused("AccountService/CreateAccount", &again);
    assert_eq!(keys(&setting, "acme").len(), 1);

    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let _agent = setting.agent("edge-1", &[]);
    let delivery = setting.submit(&destination, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);
    // The next generation's key too; the one before signs for it.
    let prepare = json!({"parent": account});
    let method = "CertificateService/RotateCertificateAuthority";
    setting.api().ok(method, &prepare);
    let both = [
        "countersign accounts/acme G1",
        "countersign accounts/acme G2",
    ];
    assert_eq!(keys(&setting, "acme"), both);
    let list = "CertificateService/ListCertificateAuthorities";
    let authorities = setting.api().ok(list, &prepare);
    let first = &authorities["certificate_authorities"][0];
    let pem = first["trust_anchor_pem"].as_str().unwrap();
    assert!(openssl::text(pem).contains("Countersign Delivery CA"));

    // After a restart the same keys sign: certificates and a revocation list.
    setting.control_plane.kill9();
    setting.control_plane.restart();
    let other = setting.destination(&account, "other", &url, &server.ca_pem);
    let delivery = setting.submit(&other, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);
    let revoke = json!({"name": format!("{other}/clientCertificates/1"), "reason": "REVOCATION_REASON_KEY_COMPROMISE"});
    setting
        .api()
        .ok("CertificateService/RevokeClientCertificate", &revoke);

    let delete = json!({"name": account, "force": true});
    setting.api().ok("AccountService/DeleteAccount", &delete);
    assert_eq!(keys(&setting, "acme"), Vec::<String>::new());
    assert_eq!(keys(&setting, "globex").len(), 1);
    setting.destination(&globex, "orders", &url, &server.ca_pem);
}
