//! A new KEK takes the place of the old one: with both configured the control plane starts, goes on delivering
//! and wraps every data key anew. It is killed in the middle of that, more than once, and goes on. In the end
//! the old KEK is not needed any more, and no delivery has failed.

use std::fs;

use countersign_tests::{
    certificates::TestCertificate,
    control_plane::command,
    ports::free_port,
    process::run,
    receiver::Receiver,
    setting::Setting,
    wait::{PATIENCE, wait_for},
};
use serde_json::json;

const ACCOUNTS: usize = 20;

#[test]
fn a_new_kek_takes_over_and_no_delivery_fails() {
    let mut setting = Setting::new("new-kek");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let account = setting.account("acme");
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    for number in 0..ACCOUNTS {
        setting.account(&format!("account-{number}"));
    }
    let _agent = setting.agent("edge-1", &[]);
    let mut deliveries = Vec::new();
    let submit = |setting: &Setting, deliveries: &mut Vec<String>| {
        deliveries.push(setting.submit(&destination, b"{}", "application/json"));
    };
    submit(&setting, &mut deliveries);
    setting.control_plane.stop();

    let old = setting.control_plane.data_dir().join("kek");
    let new = setting.folder.join("new-kek");
    let only_new = format!("kek.file = '{}'\n", new.display());
    let both = format!("{only_new}kek.previous.file = '{}'\n", old.display());
    let toml = setting.folder.join("control-plane.toml");
    fs::write(&toml, &both).unwrap();
    // Killed a little later each time, while the work, which is over within a fraction of a second, goes on.
    for submissions in 0..3 {
        setting.control_plane.restart();
        for _ in 0..submissions {
            submit(&setting, &mut deliveries);
        }
        setting.control_plane.kill9();
    }
    setting.control_plane.restart();
    submit(&setting, &mut deliveries);
    wait_for("all of it to be wrapped anew", PATIENCE, || {
        let audit = json!({"principal": "system/KEK", "page_size": 1000});
        let events = setting.api().ok("AuditService/ListAuditEvents", &audit);
        // Each data key, the installation's and the shared authority's among them, and then the installation.
        events["events"]
            .as_array()
            .is_some_and(|it| it.len() >= ACCOUNTS + 3)
    });
    setting.control_plane.stop();

    fs::remove_file(&old).unwrap();
    fs::write(&toml, &only_new).unwrap();
    setting.control_plane.restart();
    submit(&setting, &mut deliveries);
    for delivery in &deliveries {
        setting.wait_until_delivered(delivery);
        let attempt = setting.first_attempt(delivery);
        assert_eq!(attempt["class"], "FAILURE_CLASS_DELIVERED", "{attempt}");
    }
    setting.control_plane.stop();

    // The old one, or a third one, is of no use.
    fs::write(&toml, format!("kek.file = '{}'\n", old.display())).unwrap();
    let refused = run(&mut command(&setting.folder, free_port(), "info"), b"");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!old.exists(), "nothing is made where a KEK is missing");
}
