//! An agent reports success for what another agent has in hand, and for leases that were never given; another
//! refuses a bundle. Somebody with the store's file puts one destination's secret in another's place, changes a
//! bit of a payload, and cuts a key short. Nothing of it is believed, everything else goes on, and each is in
//! the audit log.

use std::{collections::BTreeSet, net::TcpListener, process::Command};

use bytes::Bytes;
use countersign_proto::v1::{
    BundleAcknowledgement, BundleStatus, FailureClass, Outcome, OutcomeReport, connect_request,
    connect_response,
};
use countersign_shared::{
    digest,
    time::{Clock as _, SystemClock},
    wire::timestamp_to_wire,
};
use countersign_tests::{
    certificates::TestCertificate,
    false_agent::FalseAgent,
    process::run,
    receiver::Receiver,
    setting::Setting,
    tools,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

/// The refusals on record of somebody: method and reason.
fn refusals(setting: &Setting, principal: &str) -> BTreeSet<(String, String)> {
    let request = json!({"kind": "AUDIT_KIND_REFUSAL", "principal": principal, "page_size": 1000});
    let answer = setting.api().ok("AuditService/ListAuditEvents", &request);
    let events = answer["events"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = events
        .iter()
        .map(|event| (text(&event["method"]), text(&event["reason"])));
    pairs.collect()
}

fn wait_for_refusals(setting: &Setting, principal: &str, expected: &[(&str, &str)]) {
    let owned = |(method, reason): &(&str, &str)| ((*method).to_owned(), (*reason).to_owned());
    let expected: BTreeSet<_> = expected.iter().map(owned).collect();
    wait_for("refusals on record", PATIENCE, || {
        let found = refusals(setting, principal);
        assert!(found.is_subset(&expected), "{found:#?}");
        found == expected
    });
}

fn state(setting: &Setting, delivery: &str) -> Value {
    let answer = setting
        .api()
        .ok("DeliveryService/GetDelivery", &json!({"name": delivery}));
    answer["delivery"]["state"].clone()
}

/// The 16 bytes of a delivery's id.
fn id_of(delivery: &str) -> Vec<u8> {
    let digits: String = delivery.rsplit('/').next().unwrap().replace('-', "");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn an_agent_settles_only_what_it_was_given() {
    let setting = Setting::new("forged");
    let account = setting.account("acme");
    // Accepts connections and never says a word: what goes there stays in hand.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let destination = setting.destination(&account, "orders", &url, "");
    let _agent = setting.agent("edge-1", &[]);
    let delivery = setting.submit(&destination, b"{}", "application/json");
    wait_for("the delivery to be leased", PATIENCE, || {
        state(&setting, &delivery) == "DELIVERY_STATE_LEASED"
    });

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (folder, token) = (
        setting.agent_data_dir("edge-2"),
        setting.join_token("false"),
    );
    runtime.block_on(async {
        let url = setting.control_plane.agents_url();
        let mut agent = FalseAgent::connect(&folder, &url, &token, "edge-2").await;
        let id: Bytes = id_of(&delivery).into();
        let success = |epoch| Outcome {
            delivery_id: id.clone(),
            epoch,
            class: FailureClass::Delivered.into(),
            http_status: 200,
            start_time: Some(timestamp_to_wire(SystemClock.now())),
            ..Outcome::default()
        };
        // The first lease there is, one that will come, and one far off.
        let outcomes = vec![success(1), success(2), success(i64::MAX)];
        let report = OutcomeReport { outcomes };
        agent
            .say(connect_request::Message::OutcomeReport(report))
            .await;
        // It may forget them: it would say them for ever otherwise.
        while !matches!(
            agent.next().await,
            connect_response::Message::OutcomeAcknowledgement(_)
        ) {}
        let refused = BundleAcknowledgement {
            destination: destination.clone(),
            generation: 1,
            status: BundleStatus::Refused.into(),
            reason: "generation 2 is in use, which is newer".to_owned(),
        };
        agent
            .say(connect_request::Message::BundleAcknowledgement(refused))
            .await;
        let outcomes = "AgentSessionService/Connect outcomes";
        let bundle = format!("AgentSessionService/Connect bundle of {destination}");
        let expected = [
            (outcomes, "LEASE_OF_ANOTHER_AGENT"),
            (outcomes, "LEASE_NEVER_GIVEN"),
            (bundle.as_str(), "BUNDLE_REFUSED"),
        ];
        wait_for_refusals(&setting, "agents/edge-2", &expected);
    });
    assert_eq!(state(&setting, &delivery), "DELIVERY_STATE_LEASED");
    let attempts = setting
        .api()
        .ok("DeliveryService/ListAttempts", &json!({"parent": delivery}));
    assert_eq!(attempts["attempts"], json!([]), "{attempts}");
    assert!(
        refusals(&setting, "agents/edge-1").is_empty(),
        "who was only slow is not accused"
    );
}

#[test]
fn what_was_altered_in_the_store_does_not_open() {
    let mut setting = Setting::new("altered");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let account = setting.account("acme");
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let make =
        |setting: &Setting, id: &str| setting.destination(&account, id, &url, &server.ca_pem);
    let (whole, swapped, cut) = (
        make(&setting, "whole"),
        make(&setting, "swapped"),
        make(&setting, "cut"),
    );
    let submit = |setting: &Setting, to: &str| setting.submit(to, b"{}", "application/json");
    let good = submit(&setting, &whole);
    let altered = submit(&setting, &whole);
    let waiting = [submit(&setting, &swapped), submit(&setting, &cut)];
    setting.control_plane.stop();

    alter(&setting, &digest::hex(&id_of(&altered)));
    setting.control_plane.restart();
    let _agent = setting.agent("edge-1", &[]);
    setting.wait_until_delivered(&good);
    let payload = format!("open payload of {}", altered.rsplit('/').next().unwrap());
    let secret = format!("open {swapped}/signingSecrets/1");
    let key = format!("open key of {cut}/clientCertificates/1");
    let expected = [payload.as_str(), &secret, &key].map(|method| (method, "DOES_NOT_OPEN"));
    wait_for_refusals(&setting, "system/vault", &expected);
    for delivery in [&altered, &waiting[0], &waiting[1]] {
        let attempts = setting
            .api()
            .ok("DeliveryService/ListAttempts", &json!({"parent": delivery}));
        assert_eq!(attempts["attempts"], json!([]), "{delivery}: {attempts}");
    }
    // The one that was altered does not stand in the way of others.
    let next = submit(&setting, &whole);
    setting.wait_until_delivered(&next);
}

/// Another's secret for `swapped`, a bit of a payload, half of the key of `cut`.
fn alter(setting: &Setting, payload: &str) {
    let edit = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
keys = dict(db.execute('SELECT id, key FROM destinations'))
one = lambda query, *values: db.execute(query, values).fetchone()[0]
other = one('SELECT sealed FROM signing_secrets WHERE destination = ?', keys['whole'])
db.execute('UPDATE signing_secrets SET sealed = ? WHERE destination = ?', (other, keys['swapped']))
key = one('SELECT sealed_key FROM client_certificates WHERE destination = ?', keys['cut'])
db.execute('UPDATE client_certificates SET sealed_key = ? WHERE destination = ?', (key[:len(key) // 2], keys['cut']))
id = bytes.fromhex(sys.argv[2])
sealed = bytearray(one('SELECT sealed FROM payloads WHERE id = ?', id))
sealed[len(sealed) // 2] ^= 1
db.execute('UPDATE payloads SET sealed = ? WHERE id = ?', (bytes(sealed), id))
db.commit()
";
    let store = setting.control_plane.data_dir().join("store.sqlite");
    let mut python = Command::new(tools::python());
    let finished = run(python.arg("-c").arg(edit).arg(store).arg(payload), b"");
    assert!(finished.status.success(), "{finished:?}");
}
