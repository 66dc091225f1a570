//! Somebody copies an agent's disk, its key included, and renews the identity as the agent itself would. When the
//! other copy renews, the control plane knows: both are suspended at once, neither is let in, and an alert and the
//! audit log say so. A join token that recovers gives the agent a new identity, and the thief's stays worthless.

use std::{path::Path, process::Command};

use countersign_agent::identity::{
    Identity, IdentityFile, OnDisk, kek_file, open_kek,
    renew::{RenewError, renew},
};
use countersign_tests::{
    agent::{Agent, enroll},
    certificates::TestCertificate,
    process::run,
    receiver::Receiver,
    setting::Setting,
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const EDGE: &str = "agents/edge-1";

/// Renews the identity in a data directory, as an agent does at half of its life.
fn renewed(data_dir: &Path, url: &str) -> Result<Identity, RenewError> {
    let kek = open_kek(&kek_file(data_dir, None)).unwrap();
    let file = IdentityFile::new(data_dir, &kek);
    let OnDisk::Enrolled(identity) = file.load().unwrap() else {
        panic!("no identity in {}", data_dir.display());
    };
    let url = url.parse().unwrap();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(renew(&identity, &url, &file))
}

fn cloned(setting: &Setting) -> Vec<Value> {
    let answer = setting.api().ok("AlertService/ListAlerts", &json!({}));
    let alerts = answer["alerts"].as_array().cloned().unwrap_or_default();
    let cause = "ALERT_CAUSE_AGENT_IDENTITY_CLONED";
    let cloned = alerts.into_iter().filter(|it| it["cause"] == cause);
    cloned.collect()
}

fn edge(setting: &Setting) -> Value {
    let method = "AgentAdministrationService/GetAgent";
    let answer = setting.api().ok(method, &json!({"name": EDGE}));
    answer["agent"].clone()
}

#[test]
fn both_copies_are_suspended_when_the_second_renews() {
    let setting = Setting::new("cloned");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let agents_url = setting.control_plane.agents_url();
    let honest = setting.agent("edge-1", &[]);
    setting.wait_until_connected("edge-1");
    let first = setting.submit(&destination, b"before", "text/plain");
    setting.wait_until_delivered(&first);

    let data_dir = honest.data_dir().to_owned();
    let stolen = setting.folder.join("stolen");
    // The agent goes on writing, and a file that is replaced while it is copied makes a copy fail.
    wait_for("a whole copy", PATIENCE, || {
        let _ = std::fs::remove_dir_all(&stolen);
        let copied = run(
            Command::new("cp").arg("-a").arg(&data_dir).arg(&stolen),
            b"",
        );
        copied.status.success()
    });
    renewed(&stolen, &agents_url).unwrap();
    assert!(cloned(&setting).is_empty(), "one of them may renew");
    assert_eq!(edge(&setting)["state"], "AGENT_STATE_ACTIVE");

    // The agent's own half-time.
    let refused = renewed(&data_dir, &agents_url).unwrap_err().to_string();
    assert!(refused.contains("PERMISSION_DENIED"), "{refused}");
    wait_for("the session to end", PATIENCE, || {
        edge(&setting)["connected"] != true
    });
    assert_eq!(edge(&setting)["state"], "AGENT_STATE_SUSPENDED");
    let alerts = cloned(&setting);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["resource"], EDGE);
    assert_eq!(alerts[0]["severity"], "ALERT_SEVERITY_CRITICAL");
    let thief = renewed(&stolen, &agents_url).unwrap_err().to_string();
    assert!(thief.contains("PERMISSION_DENIED"), "{thief}");
    // With a log of its own: the other one's says the same.
    let mut thief = Agent::start_alone(&stolen, &stolen, &[]);
    wait_for("the thief to be turned away", PATIENCE, || {
        thief.output().contains("is suspended")
    });
    thief.stop();
    let event = json!({"principal": EDGE, "kind": "AUDIT_KIND_REFUSAL"});
    wait_until("the refusal to be on record", PATIENCE, || {
        let method = "AuditService/ListAuditEvents";
        let events = setting.api().ok(method, &event)["events"].clone();
        let events = events.as_array().cloned().unwrap_or_default();
        let reasons = events.iter().map(|it| &it["reason"]);
        reasons
            .filter(|it| *it == "AGENT_IDENTITY_CLONED")
            .count()
            .checked_sub(1)
    });

    // What is accepted meanwhile waits; the agent comes back with a new identity, under its name.
    let waiting = setting.submit(&destination, b"meanwhile", "text/plain");
    drop(honest);
    let token = json!({"join_token": {"agent_id": "edge-1", "recovers": true}});
    let made = setting
        .api()
        .ok("AgentAdministrationService/CreateJoinToken", &token);
    let fresh = setting.agent_data_dir("edge-1-again");
    let joined = enroll(
        &fresh,
        &agents_url,
        made["token"].as_str().unwrap(),
        "edge-1",
    );
    assert!(joined.status.success(), "{joined:?}");
    if edge(&setting)["state"] != "AGENT_STATE_ACTIVE" {
        let resume = "AgentAdministrationService/ResumeAgent";
        setting.api().ok(resume, &json!({"name": EDGE}));
    }
    let _agent = Agent::start(&setting.folder, &fresh, &[]);
    setting.wait_until_delivered(&waiting);
    wait_for("the alert to be resolved", PATIENCE, || {
        cloned(&setting).is_empty()
    });

    // And the thief has an identity that nobody takes.
    let thief = renewed(&stolen, &agents_url).unwrap_err().to_string();
    assert!(thief.contains("PERMISSION_DENIED"), "{thief}");
    assert!(cloned(&setting).is_empty(), "an old copy suspends nobody");
}
