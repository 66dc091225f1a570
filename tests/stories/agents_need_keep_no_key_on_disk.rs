//! An agent's key comes from a file outside its data directory, as systemd's credentials are, and its journal's key
//! from the control plane, which it asks at each start. Whoever takes the disk, that file included, has nothing
//! once the agent is suspended: the control plane releases no key, and without it the journal does not open. A
//! join token in an argument is refused.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    process::{Finished, run},
    receiver::Receiver,
    setting::Setting,
    tools,
    wait::{PATIENCE, wait_for},
};
use serde_json::json;

fn countersign(arguments: &[&str], input: &[u8]) -> Finished {
    run(Command::new(tools::countersign()).args(arguments), input)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// An agent's configuration.
fn configuration(setting: &Setting, name: &str, kek: &Path, journal_key: &str) -> PathBuf {
    let file = setting.folder.join(format!("{name}.toml"));
    let toml = format!(
        "kek.file = '{}'\njournal.key = '{journal_key}'\n",
        kek.display()
    );
    fs::write(&file, toml).unwrap();
    file
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = run(Command::new("cp").arg("-a").arg(from).arg(to), b"");
    assert!(copied.status.success(), "{copied:?}");
}

#[test]
fn a_disk_alone_is_worth_nothing() {
    let mut setting = Setting::new("no-key-on-disk");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let account = setting.account("acme");
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let (data_dir, kek) = (
        setting.agent_data_dir("edge-1"),
        setting.folder.subfolder("credentials").join("kek"),
    );
    let (folder, file) = (text(&data_dir), text(&kek));
    let agents_url = setting.control_plane.agents_url();
    let enroll = [
        "agent",
        "enroll",
        "--data-dir",
        &folder,
        "--kek-file",
        &file,
    ];
    let to = ["--control-plane", &agents_url, "--name", "edge-1"];
    let enroll = [&enroll[..], &to].concat();
    let token = setting.join_token("one");
    let shown = countersign(&[&enroll[..], &["--token", &token]].concat(), b"");
    assert_eq!(shown.status.code(), Some(2), "{shown:?}");
    assert!(shown.stderr.contains("--token is refused"), "{shown:?}");
    assert!(!data_dir.exists());
    let piped = countersign(
        &[&enroll[..], &["--token-file", "-"]].concat(),
        token.as_bytes(),
    );
    assert!(piped.status.success(), "{piped:?}");
    assert!(kek.exists() && !data_dir.join("kek").exists());

    let toml = configuration(&setting, "edge-1", &kek, "control-plane");
    let flags = ["--config", &text(&toml)];
    let mut agent = Agent::start(&setting.folder, &data_dir, &flags);
    let deliver = |setting: &Setting| {
        let delivery = setting.submit(&destination, b"{}", "application/json");
        setting.wait_until_delivered(&delivery);
    };
    deliver(&setting);
    agent.kill9();
    // The key comes when there is somebody to ask.
    setting.control_plane.stop();
    agent.restart();
    wait_for("the agent to ask in vain", PATIENCE, || {
        agent
            .output()
            .contains("the journal's key is not released yet")
    });
    setting.control_plane.restart();
    deliver(&setting);
    assert!(
        !agent.output().contains("set aside"),
        "its journal was opened again"
    );
    let released = json!({"kind": "AUDIT_KIND_DISCLOSURE", "principal": "agents/edge-1"});
    let released = setting.api().ok("AuditService/ListAuditEvents", &released);
    let released = released["events"].as_array().unwrap();
    assert_eq!(released.len(), 2, "{released:?}");
    assert_eq!(released[0]["method"], "EnrollmentService/ReleaseJournalKey");

    agent.stop();
    let name = json!({"name": "agents/edge-1"});
    setting
        .api()
        .ok("AgentAdministrationService/SuspendAgent", &name);
    let refused = countersign(
        &["agent", "run", "--data-dir", &folder, flags[0], flags[1]],
        b"",
    );
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.all().contains("does not release the journal's key"),
        "{refused:?}"
    );
    // The agent's own key opens the identity, and not the journal.
    let stolen = setting.folder.join("stolen");
    copy_folder(&data_dir, &stolen);
    let toml = configuration(&setting, "stolen", &kek, "file");
    let thief = Agent::start(&setting.folder, &stolen, &["--config", &text(&toml)]);
    wait_for("the journal to be unreadable", PATIENCE, || {
        thief
            .output()
            .contains("the journal is unreadable and was set aside")
    });
    drop(thief);

    setting
        .api()
        .ok("AgentAdministrationService/ResumeAgent", &name);
    let _agent = Agent::start(&setting.folder, &data_dir, &flags);
    deliver(&setting);
}
