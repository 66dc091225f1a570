//! An installation outgrows its machine: `countersign store copy` moves the embedded store to a PostgreSQL
//! server, and everything goes on there: deliveries that wait, the agent's identity, certificates, the audit
//! log. A second copy changes nothing.

use std::{fs, process::Command};

use countersign_tests::{
    certificates::TestCertificate,
    postgres::Postgres,
    process::{Finished, run},
    receiver::Receiver,
    setting::Setting,
    tools,
    wait::{PATIENCE, wait_for},
};
use serde_json::json;

fn store(setting: &Setting, arguments: &[&str]) -> Finished {
    let mut command = Command::new(tools::countersign());
    command.arg("store").args(arguments);
    command
        .arg("--config")
        .arg(setting.folder.join("control-plane.toml"));
    run(&mut command, b"")
}

#[test]
fn everything_goes_on_there() {
    let database = Postgres::start();
    let mut setting = Setting::new("moves");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let mut agent = setting.agent("edge-1", &[]);
    let delivered = setting.submit(&destination, b"{\"order\":1}", "application/json");
    setting.wait_until_delivered(&delivered);
    agent.stop();
    let waiting = setting.submit(&destination, b"{\"order\":2}", "application/json");

    let refused = store(&setting, &["check"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("store.url is not set"),
        "{refused:?}"
    );
    fs::write(
        setting.folder.join("control-plane.toml"),
        database.settings(&setting.folder),
    )
    .unwrap();
    let empty = store(&setting, &["check"]);
    assert!(empty.status.success(), "{empty:?}");
    assert!(empty.stdout.contains("installation: none yet"), "{empty:?}");

    let data_dir = setting.control_plane.data_dir();
    let from = ["copy", "--from", data_dir.to_str().unwrap()];
    let running = store(&setting, &from);
    assert!(running.stderr.contains("in use by another"), "{running:?}");
    setting.control_plane.stop();
    let before = fs::read(data_dir.join("store.sqlite")).unwrap();
    let copied = store(&setting, &from);
    assert!(copied.status.success(), "{copied:?}");
    assert!(copied.stdout.contains("the same in both"), "{copied:?}");
    let again = store(&setting, &from);
    assert!(again.stderr.contains("installation already"), "{again:?}");
    assert_eq!(fs::read(data_dir.join("store.sqlite")).unwrap(), before);
    let there = store(&setting, &["check"]);
    assert!(there.stdout.contains("sealed with KEK"), "{there:?}");
    let migrated = store(&setting, &["migrate"]);
    assert!(migrated.stdout.contains("nothing to do"), "{migrated:?}");

    setting.control_plane.restart();
    agent.restart();
    setting.wait_until_delivered(&waiting);
    assert_eq!(
        setting.delivery(&delivered)["state"],
        "DELIVERY_STATE_DELIVERED"
    );
    // What is new gets numbers of its own.
    let second = setting.destination(&account, "second", &url, &server.ca_pem);
    let newest = setting.submit(&second, b"{\"order\":3}", "application/json");
    setting.wait_until_delivered(&newest);
    wait_for("all three to have arrived", PATIENCE, || {
        receiver.distinct() == 3
    });
    let verified = setting.api().ok("AuditService/VerifyAuditLog", &json!({}));
    assert_eq!(verified["intact"], true, "{verified}");
}

#[test]
fn a_server_of_a_newer_version_is_refused() {
    let database = Postgres::start();
    let setting = Setting::new("newer");
    fs::write(
        setting.folder.join("control-plane.toml"),
        database.settings(&setting.folder),
    )
    .unwrap();
    assert!(
        store(&setting, &["migrate"])
            .stdout
            .contains("made the tables")
    );
    // One that this version can serve beside, and one that it can't.
    database.ask("UPDATE countersign.schema_version SET version = 9, beside = 1");
    let beside = store(&setting, &["migrate"]);
    assert!(beside.status.success(), "{beside:?}");
    database.ask("UPDATE countersign.schema_version SET beside = 9");
    let refused = store(&setting, &["migrate"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("newer version of Countersign"),
        "{refused:?}"
    );
    let kept = database.ask("SELECT version FROM countersign.schema_version");
    assert_eq!(kept, "9");
}
