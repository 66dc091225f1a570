//! An agent as it is installed connects to public addresses alone: a receiver on a private one gets
//! not even a connection, whatever the destination asks for. Then the agent's operator allows the
//! range, and what had waited is delivered. A destination can narrow that again.

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    receiver::Receiver,
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

struct Stage {
    destination: String,
    receiver: Receiver,
    setting: Setting,
}

fn stage(story: &str) -> Stage {
    let setting = Setting::new(story);
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    Stage {
        destination: setting.destination(&account, "orders", &url, &server.ca_pem),
        receiver,
        setting,
    }
}

impl Stage {
    fn submit(&self) -> String {
        self.setting
            .submit(&self.destination, b"{}", "application/json")
    }

    fn allow(&self, ranges: &[&str]) {
        let request = json!({
            "destination": {"name": self.destination, "allowed_ranges": ranges},
            "update_mask": {"paths": ["allowed_ranges"]},
        });
        let api = self.setting.api();
        let answer = api.ok("DestinationService/UpdateDestination", &request);
        assert_eq!(answer["destination"]["allowed_ranges"], json!(ranges));
    }

    fn retry(&self, delivery: &str) {
        let request = json!({"name": delivery});
        let api = self.setting.api();
        api.ok("DeliveryService/RetryDelivery", &request);
    }

    /// Waits for the attempt with this number; it must have been denied.
    fn denied(&self, delivery: &str, number: usize, word: &str) {
        let request = json!({"parent": delivery});
        let attempt: Value = wait_until("the attempt to end", PATIENCE, || {
            let api = self.setting.api();
            let answer = api.ok("DeliveryService/ListAttempts", &request);
            let mut attempts = answer["attempts"].as_array().cloned().unwrap_or_default();
            (attempts.len() == number).then(|| attempts.pop()).flatten()
        });
        assert_eq!(attempt["class"], "FAILURE_CLASS_EGRESS_DENIED", "{attempt}");
        assert!(
            attempt["detail"].as_str().unwrap().contains(word),
            "{attempt}"
        );
        let resolution = attempt["resolution"].as_str().unwrap();
        assert!(resolution.contains("egress.allow"), "{attempt}");
        assert_eq!(attempt["handshake"]["peer_address"], "", "{attempt}");
        let state = self.setting.delivery(delivery)["state"].clone();
        assert_eq!(state, "DELIVERY_STATE_PENDING");
    }
}

#[test]
fn until_the_operator_allows_them() {
    let stage = stage("egress");
    let data_dir = stage.setting.enrolled("edge-1");
    let mut agent = Agent::start_alone(&stage.setting.folder, &data_dir, &[]);
    stage.setting.wait_until_connected("edge-1");
    let delivery = stage.submit();
    stage.denied(&delivery, 1, "egress.allow");
    // The destination's word is not enough: changing it lets what is held try again, in vain.
    stage.allow(&["127.0.0.0/8"]);
    stage.denied(&delivery, 2, "egress.allow");
    assert_eq!(stage.receiver.distinct(), 0);
    let log = agent.output();
    assert!(log.contains("127.0.0.1"), "{log}");

    agent.stop();
    let flags = ["--egress-allow", "127.0.0.0/8"];
    let _agent = Agent::start_alone(&stage.setting.folder, &data_dir, &flags);
    stage.setting.wait_until_connected("edge-1");
    stage.retry(&delivery);
    stage.setting.wait_until_delivered(&delivery);
    assert_eq!(stage.receiver.distinct(), 1);

    stage.allow(&["10.0.0.0/8"]);
    let narrowed = stage.submit();
    stage.denied(&narrowed, 1, "allowed_ranges");
    assert_eq!(stage.receiver.distinct(), 1);
}
