//! Ids, resource names, page tokens: what is malformed, unknown or taken.

use serde_json::{Value, json};

use super::{MISSING, stage};

#[test]
fn ids_and_names() {
    let stage = stage("bad-ids");
    let mut calls = Vec::new();
    let too_long = "a".repeat(64);
    for id in [
        "Acme",
        "1acme",
        "-acme",
        "acme-",
        "a_b",
        "a/b",
        "ä",
        too_long.as_str(),
    ] {
        let account = json!({"account_id": id, "account": {}});
        calls.push((
            "AccountService/CreateAccount",
            account,
            "INVALID_ARGUMENT",
            "account_id",
        ));
        let destination = json!({
            "parent": stage.account, "destination_id": id,
            "destination": {"url": "https://receiver.example/"},
        });
        let method = "DestinationService/CreateDestination";
        calls.push((method, destination, "INVALID_ARGUMENT", "destination_id"));
        let token = json!({"join_token_id": id, "join_token": {}});
        let method = "AgentAdministrationService/CreateJoinToken";
        calls.push((method, token, "INVALID_ARGUMENT", "join_token_id"));
    }
    for name in [
        "",
        "acme",
        "accounts/",
        "account/acme",
        "accounts/acme/x",
        "accounts/Acme",
    ] {
        let request = json!({"name": name});
        calls.push((
            "AccountService/GetAccount",
            request,
            "INVALID_ARGUMENT",
            "name",
        ));
    }
    let long_name = json!({"account_id": "fine", "account": {"display_name": "x".repeat(201)}});
    calls.push((
        "AccountService/CreateAccount",
        long_name,
        "INVALID_ARGUMENT",
        "display_name",
    ));
    stage.refused(&calls);
}

#[test]
fn what_does_not_exist_and_what_exists_already() {
    let stage = stage("bad-existence");
    let missing = json!({"name": MISSING});
    let no_account = json!({
        "parent": "accounts/nobody", "destination_id": "orders",
        "destination": {"url": "https://receiver.example/"},
    });
    let again = json!({
        "parent": stage.account, "destination_id": "orders",
        "destination": {"url": "https://another.example/"},
    });
    let delivery = "accounts/acme/deliveries/0192f0c1-7e63-7000-8000-000000000000";
    stage.refused(&[
        (
            "AccountService/GetAccount",
            json!({"name": "accounts/nobody"}),
            "NOT_FOUND",
            "",
        ),
        (
            "DestinationService/GetDestination",
            missing.clone(),
            "NOT_FOUND",
            "",
        ),
        (
            "DestinationService/DisableDestination",
            missing.clone(),
            "NOT_FOUND",
            "",
        ),
        (
            "DestinationService/DeleteDestination",
            missing,
            "NOT_FOUND",
            "",
        ),
        (
            "DestinationService/CreateDestination",
            no_account,
            "NOT_FOUND",
            "",
        ),
        (
            "DestinationService/CreateDestination",
            again,
            "ALREADY_EXISTS",
            "",
        ),
        (
            "AccountService/CreateAccount",
            json!({"account_id": "acme", "account": {"display_name": "another"}}),
            "ALREADY_EXISTS",
            "",
        ),
        (
            "DeliveryService/SubmitDelivery",
            json!({"destination": MISSING, "payload": ""}),
            "NOT_FOUND",
            "",
        ),
        (
            "DeliveryService/GetDelivery",
            json!({"name": delivery}),
            "NOT_FOUND",
            "",
        ),
        (
            "DeliveryService/ListAttempts",
            json!({"parent": delivery}),
            "NOT_FOUND",
            "",
        ),
        (
            "AgentAdministrationService/RevokeJoinToken",
            json!({"name": "joinTokens/none"}),
            "NOT_FOUND",
            "",
        ),
        // It still has a destination with a pending delivery.
        (
            "AccountService/DeleteAccount",
            json!({"name": stage.account}),
            "FAILED_PRECONDITION",
            "",
        ),
        (
            "DestinationService/DeleteDestination",
            json!({"name": stage.destination}),
            "FAILED_PRECONDITION",
            "",
        ),
    ]);
}

#[test]
fn lists_and_tokens() {
    let stage = stage("bad-lists");
    let mut calls = Vec::new();
    for (method, parent) in [
        ("AccountService/ListAccounts", ""),
        ("DestinationService/ListDestinations", "accounts/acme"),
        ("DeliveryService/ListDeliveries", "accounts/acme"),
        ("AgentAdministrationService/ListAgents", ""),
    ] {
        let request = |field: &str, value: Value| {
            let mut request = json!({field: value});
            if !parent.is_empty() {
                request["parent"] = json!(parent);
            }
            request
        };
        let token = request("page_token", json!("made up"));
        calls.push((method, token, "INVALID_ARGUMENT", "page_token"));
        let size = request("page_size", json!(-1));
        calls.push((method, size, "INVALID_ARGUMENT", "page_size"));
    }
    for ttl in ["59s", "604801s", "-1s"] {
        let request = json!({"join_token_id": "t", "join_token": {"ttl": ttl}});
        let method = "AgentAdministrationService/CreateJoinToken";
        calls.push((method, request, "INVALID_ARGUMENT", "ttl"));
    }
    stage.refused(&calls);
}
