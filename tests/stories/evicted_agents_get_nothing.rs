//! An agent is evicted in the middle of its work: its session ends, what it had in hand goes to the other
//! agent and waits for no lease, and it is let in no more, not even when it is started again.

use countersign_tests::{
    certificates::TestCertificate,
    receiver::Receiver,
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

fn agent(setting: &Setting, method: &str) -> Value {
    let method = format!("AgentAdministrationService/{method}");
    let answer = setting.api().ok(&method, &json!({"name": "agents/edge-1"}));
    answer["agent"].clone()
}

#[test]
fn what_an_evicted_agent_had_goes_to_another_and_it_is_let_in_no_more() {
    // Longer than this story may take.
    let setting = Setting::with("evicted", "delivery.lease_seconds = 600", "info");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let mut evicted = setting.agent("edge-1", &[]);
    let _other = setting.agent("edge-2", &[]);
    let sender = Steady::start(&setting.control_plane, &destination, 50);
    wait_for("edge-1 to deliver", PATIENCE, || {
        let attempts = sender.attempts();
        let mut all = attempts.values().flatten();
        all.any(|attempt| attempt.agent == "agents/edge-1")
    });

    let answer = agent(&setting, "EvictAgent");
    assert_eq!(answer["state"], "AGENT_STATE_EVICTED");
    assert_eq!(answer["connected"], false);
    wait_for("it to be refused", PATIENCE, || {
        evicted.output().contains("was evicted")
    });
    sender.stop();
    wait_for("every delivery to be DELIVERED", PATIENCE, || {
        let deliveries = sender.deliveries();
        let mut states = deliveries.values().map(|it| it.state().as_str_name());
        states.all(|state| state == "DELIVERY_STATE_DELIVERED")
    });

    evicted.kill9();
    evicted.restart();
    let refusals = |output: &str| output.matches("was evicted").count();
    let before = refusals(&evicted.output());
    wait_for("it to be refused again", PATIENCE, || {
        refusals(&evicted.output()) > before
    });
    let found = agent(&setting, "GetAgent");
    assert_eq!(found["state"], "AGENT_STATE_EVICTED");
    assert_eq!(found["connected"], false);
    // Once more changes nothing.
    assert_eq!(agent(&setting, "EvictAgent")["state"], found["state"]);
}
