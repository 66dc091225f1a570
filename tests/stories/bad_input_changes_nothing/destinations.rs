//! Destinations: URLs that would leak or lie, policies out of range, updates of what is not there.

use serde_json::{Value, json};

use super::stage;

#[test]
fn urls_and_policies_of_destinations() {
    let stage = stage("bad-destinations");
    let mut calls = Vec::new();
    let create = |field: &str, value: Value| {
        let mut destination = json!({"url": "https://receiver.example/"});
        destination[field] = value;
        json!({"parent": stage.account, "destination_id": "new", "destination": destination})
    };
    let long = format!("https://receiver.example/{}", "x".repeat(2048));
    for url in [
        "",
        "http://receiver.example/",
        "ftp://receiver.example/",
        "https://user:password@receiver.example/",
        "https://receiver.example/#part",
        "receiver.example",
        "https://",
        "\u{0}",
        long.as_str(),
    ] {
        calls.push((create("url", json!(url)), "url"));
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for pem in ["hello", broken, key] {
        calls.push((create("server_ca_pem", json!(pem)), "server_ca_pem"));
    }
    for timeout in ["0.5s", "121s", "-1s"] {
        calls.push((create("attempt_timeout", json!(timeout)), "attempt_timeout"));
    }
    for limit in [-1, 1025] {
        calls.push((
            create("concurrency_limit", json!(limit)),
            "concurrency_limit",
        ));
    }
    calls.push((create("region", json!("Not A Region")), "region"));
    let rate = "rate_limit_per_second";
    calls.push((create(rate, json!(100_001)), rate));
    for (policy, part) in [
        (json!({"deadline": "0s"}), "deadline"),
        (json!({"schedule": {"waits": ["0.5s"]}}), "schedule.waits"),
        (
            json!({"schedule": {"waits": vec!["1s"; 33]}}),
            "schedule.waits",
        ),
        (json!({"backoff": {"first_wait": "1s"}}), "backoff.retries"),
        (
            json!({"backoff": {"first_wait": "1s", "retries": 3, "factor": 0.9}}),
            "backoff.factor",
        ),
    ] {
        calls.push((create("retry_policy", policy), part));
    }
    calls.push((
        create("minimum_tls_version", json!(99)),
        "minimum_tls_version",
    ));
    for field in [
        "mtls_enforcement",
        "trust_model",
        "key_algorithm",
        "ordering_failure",
    ] {
        calls.push((create(field, json!(99)), field));
    }
    let calls: Vec<_> = calls
        .into_iter()
        .map(|(request, field)| {
            let method = "DestinationService/CreateDestination";
            (method, request, "INVALID_ARGUMENT", field)
        })
        .collect();
    stage.refused(&calls);
    // Three mistakes at once are told at once.
    let mut three = create("url", json!("http://receiver.example/"));
    three["destination_id"] = json!("BAD");
    three["destination"]["concurrency_limit"] = json!(-1);
    let refusal = stage
        .api()
        .refused("DestinationService/CreateDestination", &three);
    assert_eq!(refusal.fields().len(), 3, "{refusal:?}");
}

#[test]
fn updates() {
    let stage = stage("bad-updates");
    // grpcurl takes a FieldMask as the message that it is, not as a text.
    let mask = |paths: &[&str]| json!({"paths": paths});
    let update = |changes: Value, paths: &[&str]| {
        let mut destination = changes;
        destination["name"] = json!(stage.destination);
        json!({"destination": destination, "update_mask": mask(paths)})
    };
    let method = "DestinationService/UpdateDestination";
    let url = json!({"url": "https://another.example/"});
    let mut stale = url.clone();
    stale["etag"] = json!("stale");
    let account = json!({
        "account": {"name": stage.account, "display_name": "new", "etag": "stale"},
        "update_mask": mask(&["display_name"]),
    });
    stage.refused(&[
        (
            method,
            update(url.clone(), &["no_such_field"]),
            "INVALID_ARGUMENT",
            "update_mask",
        ),
        (
            method,
            update(url, &["url", "active_client_certificate"]),
            "INVALID_ARGUMENT",
            "update_mask",
        ),
        (
            method,
            update(json!({"trust_model": 99}), &["trust_model"]),
            "INVALID_ARGUMENT",
            "trust_model",
        ),
        (
            method,
            update(json!({"key_algorithm": 99}), &["key_algorithm"]),
            "INVALID_ARGUMENT",
            "key_algorithm",
        ),
        (
            method,
            update(json!({"url": "http://a.example/"}), &["url"]),
            "INVALID_ARGUMENT",
            "url",
        ),
        (method, update(stale, &["url"]), "ABORTED", ""),
        ("AccountService/UpdateAccount", account, "ABORTED", ""),
        (
            "AccountService/DeleteAccount",
            json!({"name": stage.account, "etag": "stale", "force": true}),
            "ABORTED",
            "",
        ),
    ]);
}
