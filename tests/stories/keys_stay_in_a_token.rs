//! The KEK and the root's key are in a SoftHSM token, made with the commands of the documentation. Deliveries
//! go out, also after a restart and with the token's sessions gone; there is no key file; without the token
//! a start says what is missing, and changes nothing.

use std::{fs, process::Command};

use countersign_tests::{
    certificates::TestCertificate,
    control_plane::{self, SOFTHSM_CONF},
    folder::Folder,
    ports::free_port,
    process::run,
    receiver::Receiver,
    setting::Setting,
};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "a pin of sorts";

fn with_tokens(folder: &Folder, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.env("SOFTHSM2_CONF", folder.join(SOFTHSM_CONF));
    let finished = run(command.args(arguments), b"");
    assert!(finished.status.success(), "{program}: {finished:?}");
}

/// A token with both keys; gives the control plane's configuration.
fn make_token(folder: &Folder) -> String {
    let tokens = folder.subfolder("tokens");
    let conf = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(folder.join(SOFTHSM_CONF), conf).unwrap();
    let initialize = [
        "--init-token",
        "--free",
        "--label",
        "bank",
        "--so-pin",
        "officer",
        "--pin",
        PIN,
    ];
    with_tokens(folder, "softhsm2-util", &initialize);
    let login = [
        "--module",
        MODULE,
        "--token-label",
        "bank",
        "--login",
        "--pin",
        PIN,
    ];
    let aes = [
        "--keygen",
        "--key-type",
        "AES:32",
        "--sensitive",
        "--label",
        "countersign-kek",
    ];
    with_tokens(folder, "pkcs11-tool", &[&login[..], &aes].concat());
    let ec = [
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--sensitive",
        "--usage-sign",
        "--label",
        "countersign-root",
    ];
    with_tokens(folder, "pkcs11-tool", &[&login[..], &ec].concat());
    let pin = folder.join("pin");
    countersign_shared::files::create_private(&pin, format!("{PIN}\n").as_bytes()).unwrap();
    let key = |table: &str, key: &str| {
        let pin = pin.display();
        format!(
            "[{table}]\nmodule = '{MODULE}'\ntoken = 'bank'\nkey = '{key}'\npin_file = '{pin}'\n"
        )
    };
    key("kek.token", "countersign-kek") + &key("certificates.root_token", "countersign-root")
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
