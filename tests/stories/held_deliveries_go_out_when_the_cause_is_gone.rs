//! A receiver that does not trust the account's authority costs deliveries time and nothing else: they
//! are held, each attempt is there to be looked at, and none uses up the schedule. When the receiver
//! installs the trust anchor, or the destination is put right, all of them go at once, and not when
//! each would have been tried again.

use std::collections::HashMap;

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    nginx::{Nginx, Setup},
    receiver_script::ReceiverScript,
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

struct Stage {
    _agent: Agent,
    nginx: Nginx,
    application: ReceiverScript,
    server: TestCertificate,
    acme: String,
    orders: String,
    setting: Setting,
}

/// A destination of `acme` whose receiver trusts another account.
fn stage(story: &str) -> Stage {
    let setting = Setting::new(story);
    let (acme, globex) = (setting.account("acme"), setting.account("globex"));
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let application = ReceiverScript::start(setting.folder.subfolder("application"));
    let setup = Setup {
        server: &server,
        client_authorities: &setting.trust_bundle(&globex),
        application: application.port(),
    };
    let nginx = Nginx::start(setting.folder.subfolder("nginx"), &setup);
    let orders = setting.destination(&acme, "orders", &nginx.url("/hooks"), &server.ca_pem);
    Stage {
        _agent: setting.agent("edge-1", &["--log-filter", "info"]),
        nginx,
        application,
        server,
        acme,
        orders,
        setting,
    }
}

impl Stage {
    fn submit(&self) -> String {
        self.setting.submit(&self.orders, b"{}", "application/json")
    }

    fn attempts(&self, delivery: &str) -> Vec<Value> {
        let request = json!({"parent": delivery});
        let answer = self
            .setting
            .api()
            .ok("DeliveryService/ListAttempts", &request);
        answer["attempts"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until `delivery` is held after its attempt with this number; gives the delivery.
    fn held(&self, delivery: &str, attempt: usize) -> Value {
        wait_until("the delivery to be held", PATIENCE, || {
            let found = self.setting.delivery(delivery);
            let held = found["held"] == true && found["attempt_count"] == attempt;
            held.then_some(found)
        })
    }

    /// Submits deliveries that are held; gives each with when it would be tried again by itself.
    fn several_held(&self) -> HashMap<String, String> {
        let deliveries: Vec<_> = (0..5).map(|_| self.submit()).collect();
        let held = deliveries.into_iter().map(|delivery| {
            let found = self.held(&delivery, 1);
            assert_eq!(found["state"], "DELIVERY_STATE_PENDING");
            assert_eq!(found["last_class"], "FAILURE_CLASS_CLIENT_CA_NOT_TRUSTED");
            assert_ne!(found["resolution"], "");
            (delivery, text(&found["next_attempt_time"]))
        });
        held.collect()
    }

    /// Each is delivered, by its next attempt, before it would have been tried by itself; but for those
    /// that were tried by themselves before `change`, which a slow machine can bring about.
    fn all_go_at_once(&self, held: &HashMap<String, String>, change: &str) {
        for (delivery, by_itself) in held {
            self.setting.wait_until_delivered(delivery);
            let delivered = self.setting.delivery(delivery);
            assert_eq!(delivered["held"], false);
            // Times in UTC, as texts: to the second they sort as they follow each other.
            let settled = text(&delivered["settle_time"]);
            assert!(
                settled < *by_itself || by_itself.as_str() < change,
                "at {settled}, and not at {by_itself}"
            );
        }
    }
}

fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    assert!(!text.is_empty(), "no text: {value}");
    text.to_owned()
}

#[test]
fn one_that_gets_through_lets_all_the_others_follow() {
    let stage = stage("held-receiver");
    // More attempts than a schedule has: asked for by hand, each is refused, and it is still held.
    let tried = stage.submit();
    for attempt in 1..10 {
        stage.held(&tried, attempt);
        let name = json!({"name": tried});
        stage
            .setting
            .api()
            .ok("DeliveryService/RetryDelivery", &name);
    }
    stage.held(&tried, 10);
    let attempts = stage.attempts(&tried);
    assert_eq!(attempts.len(), 10);
    for attempt in &attempts {
        assert_eq!(attempt["class"], "FAILURE_CLASS_CLIENT_CA_NOT_TRUSTED");
        assert_eq!(attempt["handshake"]["client_certificate_requested"], true);
    }
    let held = stage.several_held();
    assert!(stage.application.requests().is_empty());

    let bundle = stage.setting.trust_bundle(&stage.acme);
    stage.nginx.trust_at_last(&bundle);
    // Nobody tells us. Some delivery or other is the first to find out.
    let mut later = Vec::new();
    let change = wait_until("a delivery to get through", PATIENCE, || {
        let delivery = stage.submit();
        let attempt = stage.setting.first_attempt(&delivery);
        later.push(delivery);
        (attempt["class"] == "FAILURE_CLASS_DELIVERED").then(|| text(&attempt["start_time"]))
    });
    stage.all_go_at_once(&held, &change);
    for delivery in later.iter().chain([&tried]) {
        stage.setting.wait_until_delivered(delivery);
    }
    let arrived = stage.application.requests().len();
    assert_eq!(arrived, held.len() + later.len() + 1, "each once");
}

#[test]
fn a_destination_that_is_put_right_lets_them_all_go() {
    let stage = stage("held-destination");
    let held = stage.several_held();
    let setup = Setup {
        server: &stage.server,
        client_authorities: &stage.setting.trust_bundle(&stage.acme),
        application: stage.application.port(),
    };
    let right = Nginx::start(stage.setting.folder.subfolder("right"), &setup);
    let update = json!({"destination": {"name": stage.orders, "url": right.url("/hooks")}});
    let updated = stage
        .setting
        .api()
        .ok("DestinationService/UpdateDestination", &update);
    let change = text(&updated["destination"]["update_time"]);
    stage.all_go_at_once(&held, &change);
    assert_eq!(stage.application.requests().len(), held.len());
    for delivery in held.keys() {
        assert_eq!(stage.attempts(delivery).len(), 2);
    }
}
