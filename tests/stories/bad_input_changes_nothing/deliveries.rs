//! Deliveries: payloads that are too large, headers that would smuggle, request ids used twice.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::setting::name_of;
use serde_json::{Value, json};

use super::stage;

#[test]
fn payloads() {
    let stage = stage("bad-payloads");
    let submit = |field: &str, value: Value| {
        let mut request = json!({"destination": stage.destination, "payload": "e30="});
        request[field] = value;
        request
    };
    let method = "DeliveryService/SubmitDelivery";
    let too_large = STANDARD.encode(vec![0; 1_048_577]);
    let long = "x".repeat(201);
    let mut calls = vec![(submit("payload", json!(too_large)), "payload")];
    calls.push((submit("destination", json!("orders")), "destination"));
    for field in ["content_type", "event_type"] {
        calls.push((submit(field, json!(long)), field));
        // A line break would let a sender write headers of its own.
        calls.push((submit(field, json!("text/plain\r\nx: y")), field));
    }
    for headers in [
        json!({"Webhook-Id": "mine"}),
        json!({"transfer-encoding": "chunked"}),
        json!({"x-a": "b\r\nhost: elsewhere"}),
        json!({"x-a": "1", "X-A": "2"}),
        json!({"x-a": "x".repeat(8192)}),
    ] {
        calls.push((submit("headers", headers), "headers"));
    }
    calls.push((submit("request_id", json!("r".repeat(101))), "request_id"));
    let calls: Vec<_> = calls
        .into_iter()
        .map(|(request, field)| (method, request, "INVALID_ARGUMENT", field))
        .collect();
    stage.refused(&calls);
    // The largest that is allowed is accepted.
    let largest = STANDARD.encode(vec![0; 1_048_576]);
    stage.api().ok(method, &submit("payload", json!(largest)));
}

#[test]
fn a_request_id_stands_for_one_content() {
    let stage = stage("request-ids");
    let api = stage.api();
    let method = "DeliveryService/SubmitDelivery";
    let submit = |payload: &str| {
        json!({
            "destination": stage.destination,
            "payload": STANDARD.encode(payload),
            "request_id": "order-1",
        })
    };
    let first = name_of(&api.ok(method, &submit("one"))["delivery"]);
    let create = json!({"account_id": "globex", "account": {}, "request_id": "account-1"});
    let account = api.ok("AccountService/CreateAccount", &create);

    let before = stage.everything();
    let again = name_of(&api.ok(method, &submit("one"))["delivery"]);
    assert_eq!(again, first);
    assert_ne!(first, stage.delivery);
    assert_eq!(api.ok("AccountService/CreateAccount", &create), account);
    assert_eq!(stage.everything(), before);

    let mut other = create;
    other["account"]["display_name"] = json!("another");
    stage.refused(&[
        (method, submit("two"), "ALREADY_EXISTS", ""),
        ("AccountService/CreateAccount", other, "ALREADY_EXISTS", ""),
    ]);
}
