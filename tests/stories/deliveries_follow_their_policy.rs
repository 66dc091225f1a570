//! A destination's own policy: after which waits a failed delivery is attempted again and until when,
//! how many attempts may begin in a second, and what goes out while its receiver is in trouble.

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    nginx::{Nginx, Setup},
    receiver_script::ReceiverScript,
    setting::Setting,
    times::{now, seconds},
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::{Value, json};

const DEAD_LETTERED: &str = "ALERT_CAUSE_DELIVERIES_DEAD_LETTERED";

struct Stage {
    _agent: Agent,
    _nginx: Nginx,
    application: ReceiverScript,
    orders: String,
    setting: Setting,
}

fn stage(story: &str, policy: &Value) -> Stage {
    let setting = Setting::new(story);
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
    let mut destination = policy.clone();
    destination["name"] = json!(orders);
    let request = json!({"destination": destination});
    let api = setting.api();
    api.ok("DestinationService/UpdateDestination", &request);
    Stage {
        _agent: setting.agent("edge-1", &["--log-filter", "info"]),
        _nginx: nginx,
        application,
        orders,
        setting,
    }
}

impl Stage {
    fn submit(&self) -> String {
        self.setting.submit(&self.orders, b"{}", "application/json")
    }

    fn wait_until_dead(&self, delivery: &str) -> Value {
        wait_until("a dead letter", PATIENCE, || {
            let delivery = self.setting.delivery(delivery);
            (delivery["state"] == "DELIVERY_STATE_DEAD_LETTER").then_some(delivery)
        })
    }

    fn attempts(&self, delivery: &str) -> Vec<Value> {
        let request = json!({"parent": delivery});
        let api = self.setting.api();
        let answer = api.ok("DeliveryService/ListAttempts", &request);
        answer["attempts"].as_array().unwrap().clone()
    }

    /// Causes of the open alerts.
    fn alerts(&self) -> Vec<String> {
        let answer = self.setting.api().ok("AlertService/ListAlerts", &json!({}));
        let alerts = answer["alerts"].as_array().cloned().unwrap_or_default();
        let causes = alerts.iter().map(|alert| alert["cause"].as_str().unwrap());
        causes.map(str::to_owned).collect()
    }

    fn flow(&self) -> Value {
        let request = json!({"name": self.orders});
        let api = self.setting.api();
        let answer = api.ok("DestinationService/GetDestination", &request);
        answer["destination"]["delivery_flow"].clone()
    }
}

fn at(time: &Value) -> f64 {
    seconds(time.as_str().unwrap())
}

#[test]
fn a_schedule_of_its_own_is_followed_to_its_end() {
    let policy = json!({"retry_policy": {"schedule": {"waits": ["1s", "1s"]}}});
    let stage = stage("own-schedule", &policy);
    stage.application.answer(500);
    let delivery = stage.submit();
    let dead = stage.wait_until_dead(&delivery);
    assert_eq!(dead["attempt_count"], 3);
    assert_eq!(stage.attempts(&delivery).len(), 3);
    // Somebody is told, until it was sent again.
    let told = || stage.alerts().contains(&DEAD_LETTERED.to_owned());
    wait_for("the alert", PATIENCE, told);
    stage.application.answer(204);
    let request = json!({"parent": "accounts/acme", "destination": stage.orders});
    let api = stage.setting.api();
    let replayed = api.ok("DeliveryService/ReplayDeliveries", &request);
    assert_eq!(replayed["count"], 1);
    stage.setting.wait_until_delivered(&delivery);
    wait_for("the alert to be resolved", PATIENCE, || !told());
}

#[test]
fn after_its_deadline_nothing_is_attempted() {
    let policy = json!({"retry_policy": {
        "backoff": {"first_wait": "1s", "factor": 1.0, "retries": 32}, "deadline": "3s"}});
    let stage = stage("deadline", &policy);
    stage.application.answer(500);
    let delivery = stage.submit();
    let dead = stage.wait_until_dead(&delivery);
    let accepted = at(&dead["create_time"]);
    for attempt in stage.attempts(&delivery) {
        assert!(at(&attempt["start_time"]) <= accepted + 3.0);
    }
    // What could not even be tried in time is not tried: its destination is disabled meanwhile.
    let (api, name) = (stage.setting.api(), json!({"name": stage.orders}));
    api.ok("DestinationService/DisableDestination", &name);
    let late = stage.submit();
    let accepted = at(&stage.setting.delivery(&late)["create_time"]);
    wait_for("its deadline to be over", PATIENCE, || {
        now() > accepted + 3.1
    });
    stage.application.answer(204);
    api.ok("DestinationService/EnableDestination", &name);
    let dead = stage.wait_until_dead(&late);
    assert_eq!(dead["attempt_count"], 0);
    assert_eq!(stage.attempts(&late).len(), 0);
}

#[test]
fn a_rate_limit_holds_and_loses_nothing() {
    let stage = stage("rate-limit", &json!({"rate_limit_per_second": 5}));
    let deliveries: Vec<_> = (0..12).map(|_| stage.submit()).collect();
    let started = deliveries.iter().map(|delivery| {
        stage.setting.wait_until_delivered(delivery);
        at(&stage.attempts(delivery)[0]["start_time"])
    });
    let mut started: Vec<f64> = started.collect();
    started.sort_unstable_by(f64::total_cmp);
    let took = started[11] - started[0];
    // Eleven more after the first, a fifth of a second each; an attempt may begin a little after its turn.
    assert!(took >= 2.0, "12 attempts in {took} s");
}

#[test]
fn a_receiver_in_trouble_is_probed_and_what_waits_loses_no_attempt() {
    let waits = vec!["1s"; 32];
    let policy = json!({"retry_policy": {"schedule": {"waits": waits}}});
    let stage = stage("breaker", &policy);
    stage.application.answer(503);
    let first: Vec<_> = (0..16).map(|_| stage.submit()).collect();
    wait_for("the breaker to open", PATIENCE, || {
        stage.flow()["state"] == "DELIVERY_FLOW_STATE_PROBING"
    });
    let failures = stage.flow()["failures_in_a_row"].as_i64().unwrap();
    let more: Vec<_> = (0..10).map(|_| stage.submit()).collect();
    wait_for("two probes", PATIENCE, || {
        stage.flow()["failures_in_a_row"].as_i64().unwrap() >= failures + 2
    });
    let untouched = more.iter().filter(|delivery| {
        let delivery = stage.setting.delivery(delivery);
        delivery["attempt_count"] == 0
    });
    assert!(
        untouched.count() >= 7,
        "one at a time, and the oldest first"
    );
    stage.application.answer(204);
    for delivery in first.iter().chain(&more) {
        stage.setting.wait_until_delivered(delivery);
    }
    assert_eq!(stage.flow()["state"], "DELIVERY_FLOW_STATE_OPEN");
}
