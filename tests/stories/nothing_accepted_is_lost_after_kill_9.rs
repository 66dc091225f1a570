//! Five thousand deliveries, and the power goes: first at the control plane, then at the agent. The
//! sender goes on where it had no answer. Everything that was accepted arrives, under one
//! `webhook-id` each, and the store says so.

use std::{collections::BTreeMap, thread, time::Duration};

use countersign_tests::{
    certificates::TestCertificate, receiver::Receiver, sender::Sender, setting::Setting,
    wait::wait_for,
};
use serde_json::json;

const DELIVERIES: i64 = 5_000;
/// Reached only when something is lost.
const DEADLINE: Duration = Duration::from_secs(180);

#[test]
fn five_thousand_deliveries_survive_two_power_cuts() {
    let mut setting = Setting::with("kill-9", "delivery.lease_seconds = 3", "info");
    let account = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let mut agent = setting.agent("edge-1", &["--log-filter", "info"]);

    let sender = Sender::new(&setting.control_plane, &destination, DELIVERIES, payload);
    thread::scope(|scope| {
        let sending = scope.spawn(|| sender.send_all());
        let _ended = sender.ends_with_this_scope();
        let wait_for_arrivals = |count: usize| {
            wait_for(&format!("{count} arrivals"), DEADLINE, || {
                let arrived = receiver.distinct();
                sender.has_arrived(arrived);
                assert!(
                    arrived < count || !sending.is_finished(),
                    "all was sent before the kill"
                );
                arrived >= count
            });
        };
        wait_for_arrivals(1_600);
        setting.control_plane.kill9();
        setting.control_plane.restart();
        sender.connect_to(setting.control_plane.listeners().api);

        wait_for_arrivals(3_300);
        agent.kill9();
        agent.restart();

        wait_for("the rest", DEADLINE, || {
            sender.has_arrived(receiver.distinct());
            sending.is_finished()
        });
        sending.join().expect("the sender");
    });

    assert_all_arrived(&sender, &receiver);
    assert_all_settled(&setting, &account);
}

fn assert_all_arrived(sender: &Sender, receiver: &Receiver) {
    let accepted = sender.accepted();
    assert_eq!(accepted.len() as i64, DELIVERIES);
    let expected: BTreeMap<&str, i64> = accepted
        .iter()
        .map(|(sequence, name)| (name.rsplit('/').next().unwrap(), *sequence))
        .collect();
    assert_eq!(
        expected.len() as i64,
        DELIVERIES,
        "two deliveries share a name"
    );
    wait_for("every accepted delivery to arrive", DEADLINE, || {
        receiver.distinct() >= expected.len()
    });
    let received = receiver.received();
    for (id, sequence) in &expected {
        let arrived = received.get(*id).unwrap_or_else(|| panic!("{id} was lost"));
        assert!(arrived.same_body, "{id} came with different bodies");
        assert_eq!(arrived.body, payload(*sequence));
    }
    let unknown: Vec<_> = received
        .keys()
        .filter(|id| !expected.contains_key(id.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "delivered, but accepted under no such name: {unknown:?}"
    );
}

fn assert_all_settled(setting: &Setting, account: &str) {
    wait_for("the store to say DELIVERED for all", DEADLINE, || {
        let states = states(setting, account);
        assert_eq!(
            states.len() as i64,
            DELIVERIES,
            "the store has another number of deliveries"
        );
        states
            .values()
            .all(|state| state == "DELIVERY_STATE_DELIVERED")
    });
}

/// Every delivery of the account with its state, page by page.
fn states(setting: &Setting, account: &str) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    let mut token = String::new();
    loop {
        let request = json!({"parent": account, "page_size": 1000, "page_token": token});
        let page = setting.api().ok("DeliveryService/ListDeliveries", &request);
        for delivery in page["deliveries"].as_array().unwrap() {
            let text = |field: &str| delivery[field].as_str().unwrap().to_owned();
            states.insert(text("name"), text("state"));
        }
        page["next_page_token"]
            .as_str()
            .unwrap()
            .clone_into(&mut token);
        if token.is_empty() {
            return states;
        }
    }
}

fn payload(sequence: i64) -> String {
    format!(r#"{{"order":{sequence}}}"#)
}
