//! A destination with `max_offline`: its agent loses the control plane while the receiver is slow, goes on alone with what
//! it holds, though the receiver fails for a while and the agent is killed and starts anew, and though a lease of the
//! usual length would have ended long ago. When the control plane is back it hears of all of it, and nothing goes out
//! again.

use std::{collections::HashSet, net::SocketAddr};

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    http_get,
    nginx::{Nginx, Setup},
    ports::free_port,
    receiver_script::ReceiverScript,
    setting::Setting,
    times::now,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

/// How long a lease lasts otherwise, in seconds.
const USUAL: f64 = 2.0;

struct Stage {
    agent: Agent,
    http: SocketAddr,
    _nginx: Nginx,
    application: ReceiverScript,
    orders: String,
    setting: Setting,
}

fn stage(story: &str) -> Stage {
    let settings = format!("delivery.lease_seconds = {USUAL}");
    let setting = Setting::with(story, &settings, "info");
    let acme = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let application = ReceiverScript::start(setting.folder.subfolder("application"));
    let setup = Setup {
        server: &server,
        client_authorities: &setting.trust_bundle(&acme),
        application: application.port(),
    };
    let nginx = Nginx::start(setting.folder.subfolder("nginx"), &setup);
    let orders = setting.destination(&acme, "orders", &nginx.url("/hooks"), &server.ca_pem);
    // One at a time, so that the others wait at the agent.
    let destination = json!({"name": orders, "max_offline": "3600s", "concurrency_limit": 1});
    let request = json!({"destination": destination});
    let api = setting.api();
    let answer = api.ok("DestinationService/UpdateDestination", &request);
    assert_eq!(answer["destination"]["max_offline"], "3600s");
    let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = http.to_string();
    let agent = setting.agent(
        "edge-1",
        &["--log-filter", "info", "--listen-http", &listen],
    );
    Stage {
        agent,
        http,
        _nginx: nginx,
        application,
        orders,
        setting,
    }
}

impl Stage {
    /// Submits deliveries and waits until the agent has them.
    fn hand_over(&self, count: usize) -> Vec<String> {
        let submit = |_| self.setting.submit(&self.orders, b"{}", "application/json");
        let deliveries: Vec<String> = (0..count).map(submit).collect();
        wait_for("all to be leased", PATIENCE, || {
            let leased =
                |it: &String| self.setting.delivery(it)["state"] == "DELIVERY_STATE_LEASED";
            deliveries.iter().all(leased)
        });
        deliveries
    }

    /// How many jobs the agent has on its disk.
    fn kept(&self) -> Option<u32> {
        let page = http_get::get(self.http, "/metrics").ok()?.body;
        let page = String::from_utf8(page).ok()?;
        let mut lines = page.lines();
        let line = lines.find(|line| line.starts_with("countersign_agent_kept_jobs "))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The `webhook-id` of every request after the first `from`.
    fn ids(&self, from: usize) -> Vec<String> {
        let requests = self.application.requests();
        let id = |it: &countersign_tests::receiver_script::Request| {
            it.header("webhook-id").unwrap().to_owned()
        };
        requests.iter().skip(from).map(id).collect()
    }

    fn last_attempt(&self, delivery: &str) -> Value {
        let request = json!({"parent": delivery});
        let api = self.setting.api();
        let answer = api.ok("DeliveryService/ListAttempts", &request);
        answer["attempts"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone()
    }
}

#[test]
fn jobs_outlive_the_control_plane_and_the_agent() {
    let mut stage = stage("cut-off");
    stage.application.delay(3.0);
    let deliveries = stage.hand_over(6);
    let handed_over = now();
    // The first may have been answered meanwhile; the others wait, and are on disk.
    wait_for("the jobs on disk", PATIENCE, || stage.kept() >= Some(4));
    stage.setting.control_plane.kill9();

    stage.application.answer(503);
    stage.application.delay(0.0);
    wait_for("failures of four more", PATIENCE, || {
        stage.ids(0).iter().collect::<HashSet<_>>().len() >= 5
    });
    stage.agent.kill9();
    wait_for("a usual lease to be over", PATIENCE, || {
        now() > handed_over + 2.0 * USUAL
    });
    let before = stage.ids(0).len();
    stage.application.answer(204);
    stage.agent.restart();
    wait_for("all that waited", PATIENCE, || {
        stage.ids(before).iter().collect::<HashSet<_>>().len() >= 4
    });
    assert!(
        stage
            .agent
            .output()
            .contains("going on with jobs of before")
    );

    stage.setting.control_plane.restart();
    for delivery in &deliveries {
        stage.setting.wait_until_delivered(delivery);
        assert_eq!(stage.setting.delivery(delivery)["attempt_count"], 1);
    }
    let after = stage.ids(before);
    let distinct: HashSet<&String> = after.iter().collect();
    assert_eq!(after.len(), distinct.len(), "delivered again: {after:?}");
    wait_for("nothing to be kept", PATIENCE, || stage.kept() == Some(0));
}

#[test]
fn attempts_made_alone_are_counted_and_end_when_there_is_a_session() {
    let mut stage = stage("alone");
    stage.application.delay(3.0);
    let first = stage.hand_over(1).remove(0);
    stage.setting.control_plane.kill9();
    stage.application.answer(503);
    stage.application.delay(0.0);
    // The first attempt and one that is made alone.
    wait_for("two attempts that fail", PATIENCE, || {
        stage.agent.output().matches("attempt failed").count() >= 2
    });
    stage.application.answer(204);
    wait_for("one that is answered well", PATIENCE, || {
        stage.ids(0).len() >= 3
    });
    stage.setting.control_plane.restart();
    stage.setting.wait_until_delivered(&first);
    let attempt = stage.last_attempt(&first);
    assert_eq!(attempt["number"], 1);
    assert_eq!(attempt["unrecorded_attempts"], 2);
    let came = stage.ids(0).len();

    // One that fails again and again is told as it is when there is somebody to tell.
    stage.setting.wait_until_connected("edge-1");
    stage.application.answer(503);
    stage.application.delay(3.0);
    let second = stage.hand_over(1).remove(0);
    stage.setting.control_plane.kill9();
    wait_for("an attempt", PATIENCE, || {
        stage.ids(0).len() > came && stage.agent.output().matches("attempt failed").count() >= 3
    });
    stage.setting.control_plane.restart();
    let attempt = stage.setting.first_attempt(&second);
    assert_eq!(attempt["class"], "FAILURE_CLASS_HTTP_SERVER_ERROR");
}
