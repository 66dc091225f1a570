//! An operator suspends an agent in the middle of its work: its session and its leases end at once, others
//! take over, it is let in no more, and is back as soon as it is resumed. A join token that recovers gives
//! an agent a new identity under its name, and one that is bound to addresses is refused from others.

use countersign_tests::{
    agent::{Agent, enroll},
    certificates::TestCertificate,
    receiver::Receiver,
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

const EDGE: &str = "agents/edge-1";

fn agent(setting: &Setting, method: &str) -> Value {
    let method = format!("AgentAdministrationService/{method}");
    let answer = setting.api().ok(&method, &json!({"name": EDGE}));
    answer["agent"].clone()
}

#[test]
fn a_suspended_agent_gets_nothing_and_is_back_when_it_is_resumed() {
    // Longer than this story may take.
    let setting = Setting::with("suspended", "delivery.lease_seconds = 600", "info");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let suspended = setting.agent("edge-1", &[]);
    let _other = setting.agent("edge-2", &[]);
    let sender = Steady::start(&setting.control_plane, &destination, 50);
    let delivers = |from: usize| {
        let attempts = sender.attempts();
        let all = attempts.values().flatten();
        all.filter(|attempt| attempt.agent == EDGE).count() > from
    };
    wait_for("edge-1 to deliver", PATIENCE, || delivers(0));

    let answer = agent(&setting, "SuspendAgent");
    assert_eq!(answer["state"], "AGENT_STATE_SUSPENDED");
    assert_eq!(answer["connected"], false);
    wait_for("it to be refused", PATIENCE, || {
        suspended.output().contains("is suspended")
    });
    assert_eq!(
        agent(&setting, "GetAgent")["leased_deliveries"]
            .as_i64()
            .unwrap_or(0),
        0
    );

    let resumed = agent(&setting, "ResumeAgent");
    assert_eq!(resumed["state"], "AGENT_STATE_ACTIVE");
    setting.wait_until_connected("edge-1");
    let before = sender
        .attempts()
        .values()
        .flatten()
        .filter(|it| it.agent == EDGE)
        .count();
    wait_for("edge-1 to deliver again", PATIENCE, || delivers(before));
    sender.stop();
    wait_for("every delivery to be DELIVERED", PATIENCE, || {
        let deliveries = sender.deliveries();
        let mut states = deliveries.values().map(|it| it.state().as_str_name());
        states.all(|state| state == "DELIVERY_STATE_DELIVERED")
    });
}

fn token(setting: &Setting, token: &Value) -> String {
    let request = json!({"join_token": token});
    let made = setting
        .api()
        .ok("AgentAdministrationService/CreateJoinToken", &request);
    made["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_that_recovers_gives_a_new_identity_and_ends_the_old_one() {
    let setting = Setting::new("recovered");
    let url = setting.control_plane.agents_url();
    let old = setting.agent("edge-1", &[]);
    setting.wait_until_connected("edge-1");
    let created = agent(&setting, "GetAgent")["create_time"].clone();

    let elsewhere =
        json!({"agent_id": "edge-1", "recovers": true, "source_ranges": ["192.0.2.0/24"]});
    let folder = setting.agent_data_dir("new-host");
    let refused = enroll(&folder, &url, &token(&setting, &elsewhere), "edge-1");
    assert!(!refused.status.success());
    assert!(refused.all().contains("source_ranges"), "{refused:?}");
    assert!(
        agent(&setting, "GetAgent")["connected"] == true,
        "nothing has changed"
    );

    // The same data directory goes on with the same key.
    let here = json!({"agent_id": "edge-1", "recovers": true, "source_ranges": ["127.0.0.0/8"]});
    let recovered = enroll(&folder, &url, &token(&setting, &here), "edge-1");
    assert!(recovered.status.success(), "{recovered:?}");
    wait_for("the old identity to be refused", PATIENCE, || {
        old.output().contains("was replaced by another")
    });
    let _new = Agent::start(&setting.folder, &folder, &[]);
    setting.wait_until_connected("edge-1");
    assert_eq!(
        agent(&setting, "GetAgent")["create_time"],
        created,
        "the same agent"
    );

    let bad = json!({"join_token": {"recovers": true, "source_ranges": ["here"]}});
    let refusal = setting
        .api()
        .refused("AgentAdministrationService/CreateJoinToken", &bad);
    assert_eq!(
        refusal.fields(),
        ["join_token.source_ranges", "join_token.agent_id"]
    );
}
