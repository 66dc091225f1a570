//! An agent is drained, and one is stopped, in the middle of their work: what they have not begun goes
//! to the other agent at once, nothing is attempted twice, and no delivery waits for a lease to end.

use std::time::Duration;

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    receiver::Receiver,
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::{Value, json};

/// Longer than this story may take.
const LEASE: Duration = Duration::from_secs(600);
/// Jobs that an agent attempts at once; it holds twice as many under lease.
const CONCURRENCY: usize = 4;

struct World {
    setting: Setting,
    receiver: Receiver,
    destination: String,
}

#[test]
fn a_drained_agent_and_a_stopped_one_leave_nothing_waiting() {
    let toml = format!("delivery.lease_seconds = {}", LEASE.as_secs());
    let setting = Setting::with("leaving-agents", &toml, "info");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let request = json!({
        "parent": account,
        "destination_id": "orders",
        "destination": {
            "url": receiver.url("/hooks"),
            "server_ca_pem": server.ca_pem,
            "concurrency_limit": CONCURRENCY,
        },
    });
    let method = "DestinationService/CreateDestination";
    let answer = setting.api().ok(method, &request);
    let destination = answer["destination"]["name"].as_str().unwrap().to_owned();
    let world = World {
        setting,
        receiver,
        destination,
    };
    let mut first = world.setting.agent("edge-1", &[]);
    let second = world.a_drained_agent_gives_back_what_it_has_not_begun();
    world.agents_change_under_load(&mut first);
    world.assert_each_was_attempted_once();
    drop(second);
}

impl World {
    fn a_drained_agent_gives_back_what_it_has_not_begun(&self) -> Agent {
        // Until the queue is given back nothing of it can begin.
        self.receiver.delay(Duration::from_secs(3600));
        for order in 0..2 * CONCURRENCY {
            let payload = format!(r#"{{"order":{order}}}"#);
            self.setting
                .submit(&self.destination, payload.as_bytes(), "application/json");
        }
        self.wait_for_arrivals(CONCURRENCY);
        wait_until("all to be leased", PATIENCE, || {
            (self.agent("edge-1")["leased_deliveries"] == 2 * CONCURRENCY).then_some(())
        });

        let second = self.setting.agent("edge-2", &[]);
        let drained = self.change("DrainAgent", "edge-1");
        assert_eq!(drained["state"], "AGENT_STATE_DRAINING");
        self.wait_for_arrivals(2 * CONCURRENCY);
        let left = self.agent("edge-1");
        assert_eq!(left["leased_deliveries"], CONCURRENCY);
        assert_eq!(left["state"], "AGENT_STATE_DRAINING");

        self.receiver.delay(Duration::from_millis(20));
        self.wait_for_state("edge-1", "AGENT_STATE_DRAINED");
        let resumed = self.change("ResumeAgent", "edge-1");
        assert_eq!(resumed["state"], "AGENT_STATE_ACTIVE");
        second
    }

    fn agents_change_under_load(&self, first: &mut Agent) {
        let sender = Steady::start(&self.setting.control_plane, &self.destination, 150);
        let goes_on = |more: usize| {
            let until = self.receiver.distinct() + more;
            self.wait_for_arrivals(until);
        };
        goes_on(100);
        self.change("DrainAgent", "edge-1");
        self.wait_for_state("edge-1", "AGENT_STATE_DRAINED");
        first.stop();
        let gone = self.agent("edge-1");
        assert_eq!(gone["state"], "AGENT_STATE_DRAINED", "it is remembered");
        assert_eq!(gone["connected"], false);
        goes_on(50);
        first.restart();
        self.setting.wait_until_connected("edge-1");
        assert_eq!(self.agent("edge-1")["state"], "AGENT_STATE_DRAINED");
        self.change("ResumeAgent", "edge-1");
        // Stopped while both are at work.
        for _ in 0..3 {
            wait_until("edge-1 to get jobs", PATIENCE, || {
                (self.agent("edge-1")["leased_deliveries"] != 0).then_some(())
            });
            first.stop();
            goes_on(30);
            first.restart();
            self.setting.wait_until_connected("edge-1");
        }
        sender.stop();
    }

    fn assert_each_was_attempted_once(&self) {
        let (account, _) = self.destination.split_once("/destinations/").unwrap();
        let request = json!({"parent": account, "page_size": 1000});
        let deliveries = wait_until("every delivery to be DELIVERED", PATIENCE, || {
            let answer = self
                .setting
                .api()
                .ok("DeliveryService/ListDeliveries", &request);
            let deliveries = answer["deliveries"].as_array().unwrap().clone();
            let done = |it: &Value| it["state"] == "DELIVERY_STATE_DELIVERED";
            deliveries.iter().all(done).then_some(deliveries)
        });
        let received = self.receiver.received();
        assert_eq!(received.len(), deliveries.len());
        for delivery in &deliveries {
            assert_eq!(delivery["attempt_count"], 1, "{delivery}");
            let (_, id) = delivery["name"].as_str().unwrap().rsplit_once('/').unwrap();
            assert_eq!(received[id].times, 1, "{delivery}");
        }
    }

    fn agent(&self, id: &str) -> Value {
        let request = json!({"name": format!("agents/{id}")});
        let method = "AgentAdministrationService/GetAgent";
        self.setting.api().ok(method, &request)["agent"].clone()
    }

    fn change(&self, method: &str, id: &str) -> Value {
        let request = json!({"name": format!("agents/{id}")});
        let method = format!("AgentAdministrationService/{method}");
        self.setting.api().ok(&method, &request)["agent"].clone()
    }

    fn wait_for_state(&self, id: &str, state: &str) {
        wait_until(&format!("{id} to be {state}"), PATIENCE, || {
            (self.agent(id)["state"] == state).then_some(())
        });
    }

    fn wait_for_arrivals(&self, count: usize) {
        wait_for(&format!("{count} arrivals"), PATIENCE, || {
            self.receiver.distinct() >= count
        });
    }
}
