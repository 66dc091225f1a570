//! Nobody delivers, and the backlog fills. What is beyond its bound is refused, with a reason that names
//! the bound and a time to try again; on a stream the other messages are taken all the same. The bound
//! holds after a power cut, and room is there again as soon as something is settled.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_proto::v1::{
    SubmitDeliveriesRequest, SubmitDeliveryRequest, submit_deliveries_response::Result as Answer,
};
use countersign_tests::{
    client, http_get,
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

const BOUNDS: &str = "
    [delivery]
    max_backlog_per_destination = 3
    max_backlog_per_account = 5
";

fn submission(destination: &str) -> Value {
    json!({"destination": destination, "payload": STANDARD.encode(b"{}")})
}

/// Whether the metrics page has this line.
fn metric(setting: &Setting, line: &str) -> bool {
    let listeners = setting.control_plane.listeners();
    let page = http_get::get(listeners.http, "/metrics").unwrap().body;
    let page = String::from_utf8(page).unwrap();
    page.lines().any(|found| found == line)
}

/// Submits to each destination in turn over one stream; gives the reason of each refusal by its place,
/// empty for what was taken.
async fn stream(setting: &Setting, destinations: Vec<String>) -> HashMap<i64, String> {
    let plane = &setting.control_plane;
    let (address, key) = (plane.listeners().api, plane.admin_key());
    let connected = client::connect(address, &plane.ca_file(), &key).await;
    let messages: Vec<_> = (0..)
        .zip(destinations)
        .map(|(sequence, destination)| SubmitDeliveriesRequest {
            sequence,
            delivery: Some(SubmitDeliveryRequest {
                destination,
                ..SubmitDeliveryRequest::default()
            }),
        })
        .collect();
    let mut client = connected.unwrap();
    let answers = client.submit_deliveries(tokio_stream::iter(messages)).await;
    let (mut answers, mut found) = (answers.unwrap().into_inner(), HashMap::new());
    while let Some(answer) = answers.message().await.unwrap() {
        let reason = match answer.result.unwrap() {
            Answer::Name(_) => String::new(),
            Answer::Error(error) => {
                assert!(error.retry_after.is_some_and(|wait| wait.seconds > 0));
                error.reason
            }
        };
        found.insert(answer.sequence, reason);
    }
    found
}

#[test]
fn what_is_beyond_the_bound_is_refused_until_there_is_room() {
    let story = "a_full_backlog_refuses_and_loses_nothing";
    let mut setting = Setting::with(story, BOUNDS, "info");
    let acme = setting.account("acme");
    let [orders, invoices] = ["orders", "invoices"]
        .map(|id| setting.destination(&acme, id, "https://receiver.example/", ""));
    let kept: Vec<_> = (0..3)
        .map(|_| setting.submit(&orders, b"{}", "application/json"))
        .collect();

    let submit = "DeliveryService/SubmitDelivery";
    let refused = setting.api().refused(submit, &submission(&orders));
    assert_eq!(refused.code, "RESOURCE_EXHAUSTED");
    assert_eq!(refused.reason(), "DESTINATION_BACKLOG_FULL");
    assert!(refused.detail("RetryInfo").is_some(), "{refused:?}");
    assert!(refused.message.contains(&orders), "{refused:?}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let turns = [&orders, &invoices, &orders, &invoices, &invoices].map(String::clone);
    let answers = runtime.block_on(stream(&setting, turns.to_vec()));
    let full = |reason: &str| answers.values().filter(|found| *found == reason).count();
    assert_eq!(full("DESTINATION_BACKLOG_FULL"), 2, "{answers:?}");
    assert_eq!(full("ACCOUNT_BACKLOG_FULL"), 1, "{answers:?}");
    assert_eq!(full(""), 2, "{answers:?}");
    assert!(metric(&setting, "countersign_backlog_deliveries 5"));
    assert!(metric(
        &setting,
        "countersign_backlog_full_total{bound=\"destination\"} 3"
    ));

    setting.control_plane.kill9();
    setting.control_plane.restart();
    wait_until("the backlog to be counted", PATIENCE, || {
        metric(&setting, "countersign_backlog_deliveries 5").then_some(())
    });
    let refused = setting.api().refused(submit, &submission(&invoices));
    assert_eq!(refused.reason(), "ACCOUNT_BACKLOG_FULL");
    let cancel = json!({"name": kept[0]});
    setting.api().ok("DeliveryService/CancelDelivery", &cancel);
    setting.submit(&orders, b"{}", "application/json");
    let refused = setting.api().refused(submit, &submission(&orders));
    assert_eq!(refused.reason(), "DESTINATION_BACKLOG_FULL");
    for delivery in &kept[1..] {
        let state = setting.delivery(delivery)["state"].clone();
        assert_eq!(state, "DELIVERY_STATE_PENDING", "accepted means kept");
    }
}
