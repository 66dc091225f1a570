//! Deliveries with ordering keys: a stream of them arrives in its order; one that is given up holds its
//! key, an alert says so, and the key goes on when it is sent again, given up by hand, or skipped.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    nginx::{Nginx, Setup},
    receiver::Receiver,
    receiver_script::ReceiverScript,
    sender::Sender,
    setting::{Setting, name_of},
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::{Value, json};

/// Attempts of a delivery until it is given up.
const ATTEMPTS: usize = 8;

#[test]
fn a_stream_arrives_in_its_order() {
    const DELIVERIES: i64 = 400;
    let setting = Setting::new("order-of-a-stream");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let _agents = [setting.agent("edge-1", &[]), setting.agent("edge-2", &[])];
    let payload = |sequence| format!(r#"{{"order":{sequence}}}"#);
    let sender = Sender::new(&setting.control_plane, &destination, DELIVERIES, payload)
        .with_ordering_keys(|sequence| match sequence % 4 {
            0 => String::new(),
            key => format!("key {key}"),
        });
    // Not as a tide that waits for the receiver: all at once.
    sender.has_arrived(usize::MAX / 2);
    sender.send_all();
    wait_for("all to arrive", PATIENCE, || {
        receiver.distinct() as i64 == DELIVERIES
    });
    let received = receiver.received();
    let mut last = [None; 4];
    for (sequence, name) in sender.accepted() {
        let (_, id) = name.rsplit_once('/').unwrap();
        let arrived = Some(received[id].after);
        let key = sequence as usize % 4;
        assert!(key == 0 || last[key] < arrived, "{sequence} came too early");
        last[key] = arrived;
    }
}

struct Stage {
    _agent: Agent,
    _nginx: Nginx,
    application: ReceiverScript,
    orders: String,
    setting: Setting,
}

#[test]
fn what_is_given_up_holds_its_key_until_somebody_decides() {
    let stage = stage();
    let [first, second, third] = [1, 2, 3].map(|number| stage.submit(number, "a"));
    stage.give_up(&first);
    stage.wait_for_alerts(1);
    let other = stage.submit(4, "b");
    stage.application.answer(204);
    stage.setting.wait_until_delivered(&other);
    for waiting in [&second, &third] {
        let delivery = stage.setting.delivery(waiting);
        assert_eq!(delivery["waits_for"], first.as_str());
        assert_eq!(delivery["state"], "DELIVERY_STATE_PENDING");
        assert_eq!(delivery["ordering_key"], "a");
    }
    let name = json!({"name": second});
    let refusal = stage.setting.api();
    let refusal = refusal.refused("DeliveryService/RetryDelivery", &name);
    assert_eq!(refusal.reason(), "FAILED_PRECONDITION");

    stage.call("DeliveryService/RetryDelivery", &first);
    stage.setting.wait_until_delivered(&third);
    let arrived = stage.arrived();
    assert_eq!(arrived[arrived.len() - 3..], [1, 2, 3]);
    stage.wait_for_alerts(0);

    // Given up by hand.
    stage.application.answer(500);
    let (fifth, sixth) = (stage.submit(5, "a"), stage.submit(6, "a"));
    stage.give_up(&fifth);
    stage.wait_for_alerts(1);
    stage.application.answer(204);
    let cancelled = stage.call("DeliveryService/CancelDelivery", &fifth);
    assert_eq!(cancelled["state"], "DELIVERY_STATE_CANCELLED");
    stage.setting.wait_until_delivered(&sixth);
    stage.wait_for_alerts(0);

    // Skipped, from the moment that the destination says so.
    stage.application.answer(500);
    let (seventh, eighth) = (stage.submit(7, "a"), stage.submit(8, "a"));
    stage.give_up(&seventh);
    stage.application.answer(204);
    let skip = json!({"destination": {
        "name": stage.orders,
        "ordering_failure": "ORDERING_FAILURE_SKIP",
    }});
    let api = stage.setting.api();
    let changed = api.ok("DestinationService/UpdateDestination", &skip);
    let now = &changed["destination"]["ordering_failure"];
    assert_eq!(now, "ORDERING_FAILURE_SKIP");
    stage.setting.wait_until_delivered(&eighth);
    let skipped = stage.setting.delivery(&seventh);
    assert_eq!(skipped["state"], "DELIVERY_STATE_DEAD_LETTER");
    stage.wait_for_alerts(0);
}

fn stage() -> Stage {
    let setting = Setting::new("order-holds");
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
    application.answer(500);
    Stage {
        _agent: setting.agent("edge-1", &[]),
        _nginx: nginx,
        application,
        orders,
        setting,
    }
}

impl Stage {
    fn submit(&self, number: u32, key: &str) -> String {
        let request = json!({
            "destination": self.orders,
            "payload": STANDARD.encode(number.to_string()),
            "content_type": "text/plain",
            "ordering_key": key,
        });
        let api = self.setting.api();
        let answer = api.ok("DeliveryService/SubmitDelivery", &request);
        name_of(&answer["delivery"])
    }

    fn call(&self, method: &str, delivery: &str) -> Value {
        let api = self.setting.api();
        api.ok(method, &json!({"name": delivery}))["delivery"].clone()
    }

    /// Lets every attempt of a delivery fail, without waiting for its schedule.
    fn give_up(&self, delivery: &str) {
        for attempt in 1..=ATTEMPTS {
            let what = format!("attempt {attempt} to fail");
            let seen = wait_until(&what, PATIENCE, || {
                let seen = self.setting.delivery(delivery);
                let waits = seen["state"] != "DELIVERY_STATE_LEASED";
                (waits && seen["attempt_count"] == attempt).then_some(seen)
            });
            if attempt < ATTEMPTS {
                assert_eq!(seen["state"], "DELIVERY_STATE_PENDING");
                self.call("DeliveryService/RetryDelivery", delivery);
            } else {
                assert_eq!(seen["state"], "DELIVERY_STATE_DEAD_LETTER");
            }
        }
    }

    fn wait_for_alerts(&self, count: usize) {
        let what = format!("{count} alerts of blocked keys");
        wait_for(&what, PATIENCE, || {
            let api = self.setting.api();
            let open = api.ok("AlertService/ListAlerts", &json!({}));
            let open = open["alerts"].as_array().cloned().unwrap_or_default();
            let blocked = open.iter().filter(|alert| {
                alert["cause"] == "ALERT_CAUSE_ORDERING_KEYS_BLOCKED"
                    && alert["resource"] == self.orders.as_str()
            });
            blocked.count() == count
        });
    }

    /// The numbers of what has arrived, in order.
    fn arrived(&self) -> Vec<u32> {
        let requests = self.application.requests();
        let bodies = requests.iter().map(|request| request.body.as_slice());
        let texts = bodies.map(|body| std::str::from_utf8(body).unwrap());
        texts.map(|text| text.parse().unwrap()).collect()
    }
}
