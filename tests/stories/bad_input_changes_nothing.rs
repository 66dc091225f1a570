//! Bad input gets a status code, a reason and the field that is wrong, before anything is written:
//! afterwards every list is as it was.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::{
    grpcurl::{Grpcurl, Refusal},
    setting::{Setting, name_of},
};
use serde_json::{Value, json};

const MISSING: &str = "accounts/acme/destinations/missing";

/// An account with a destination and a delivery that waits, since there is no agent.
struct Stage {
    setting: Setting,
    account: String,
    destination: String,
    delivery: String,
}

fn stage(story: &str) -> Stage {
    let setting = Setting::new(story);
    let account = setting.account("acme");
    let destination = setting.destination(&account, "orders", "https://receiver.example/", "");
    let delivery = setting.submit(&destination, b"{}", "application/json");
    Stage {
        setting,
        account,
        destination,
        delivery,
    }
}

impl Stage {
    fn api(&self) -> Grpcurl {
        self.setting.api()
    }

    /// Everything that could have changed.
    fn everything(&self) -> Value {
        let api = self.api();
        let parent = json!({"parent": self.account});
        json!([
            api.ok("AccountService/ListAccounts", &json!({})),
            api.ok("DestinationService/ListDestinations", &parent),
            api.ok("CertificateService/ListCertificateAuthorities", &parent),
            api.ok(
                "CertificateService/ListClientCertificates",
                &json!({"parent": self.destination})
            ),
            api.ok("DeliveryService/ListDeliveries", &parent),
            api.ok("AgentAdministrationService/ListJoinTokens", &json!({})),
            api.ok("AgentAdministrationService/ListAgents", &json!({})),
        ])
    }

    /// Each call is refused with the code, a reason, and the field if one is given; then nothing has
    /// changed.
    fn refused(&self, calls: &[(&str, Value, &str, &str)]) {
        let before = self.everything();
        for (method, request, code, field) in calls {
            let refusal = self.api().refused(method, request);
            let shown: String = request.to_string().chars().take(300).collect();
            let context = format!("{method} {shown}: {refusal:?}");
            assert_eq!(&refusal.code, code, "{context}");
            assert_has_reason(&refusal, &context);
            if !field.is_empty() {
                let named = refusal.fields();
                let names_it =
                    |name: &&str| *name == *field || name.ends_with(&format!(".{field}"));
                assert!(named.iter().any(names_it), "names {named:?}: {context}");
            }
        }
        assert_eq!(self.everything(), before);
    }
}

fn assert_has_reason(refusal: &Refusal, context: &str) {
    let info = refusal.detail("ErrorInfo");
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo: {context}"));
    assert_eq!(info["domain"], "countersign", "{context}");
    let reason = refusal.reason();
    let upper_snake = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    assert!(
        !reason.is_empty() && reason.chars().all(upper_snake),
        "{context}"
    );
    assert!(!refusal.message.is_empty(), "{context}");
}

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
    calls.push((
        create("minimum_tls_version", json!(99)),
        "minimum_tls_version",
    ));
    calls.push((create("mtls_enforcement", json!(99)), "mtls_enforcement"));
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
    let update = |changes: Value, mask: &str| {
        let mut destination = changes;
        destination["name"] = json!(stage.destination);
        let paths: Vec<_> = mask.split(',').collect();
        // This grpcurl takes a field mask as the message that it is.
        json!({"destination": destination, "update_mask": {"paths": paths}})
    };
    let method = "DestinationService/UpdateDestination";
    let url = json!({"url": "https://another.example/"});
    let mut stale = url.clone();
    stale["etag"] = json!("stale");
    let account = json!({
        "account": {"name": stage.account, "display_name": "new", "etag": "stale"},
        "update_mask": {"paths": ["display_name"]},
    });
    stage.refused(&[
        (
            method,
            update(url.clone(), "no_such_field"),
            "INVALID_ARGUMENT",
            "update_mask",
        ),
        (
            method,
            update(url, "url,trust_model"),
            "INVALID_ARGUMENT",
            "update_mask",
        ),
        (
            method,
            update(json!({"url": "http://a.example/"}), "url"),
            "INVALID_ARGUMENT",
            "url",
        ),
        (method, update(stale, "url"), "ABORTED", ""),
        ("AccountService/UpdateAccount", account, "ABORTED", ""),
        (
            "AccountService/DeleteAccount",
            json!({"name": stage.account, "etag": "stale", "force": true}),
            "ABORTED",
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

#[test]
fn callers_without_a_right_key() {
    let stage = stage("bad-keys");
    let before = stage.everything();
    let anonymous = stage.setting.control_plane.anonymous_api();
    let key = stage.setting.control_plane.admin_key();
    let shortened = &key[..key.len() - 1];
    let callers = [
        anonymous.clone(),
        anonymous.clone().with_key("wrong"),
        anonymous.clone().with_key(""),
        anonymous.clone().with_key(shortened),
        anonymous.with_key(&format!("{key}x")),
    ];
    for caller in callers {
        for (method, request) in [
            ("AccountService/ListAccounts", json!({})),
            (
                "AccountService/CreateAccount",
                json!({"account_id": "new", "account": {}}),
            ),
            (
                "DestinationService/RevealSigningSecret",
                json!({"name": "nonsense"}),
            ),
            (
                "DeliveryService/SubmitDelivery",
                json!({"destination": stage.destination}),
            ),
        ] {
            let refusal = caller.refused(method, &request);
            let context = format!("{method}: {refusal:?}");
            assert_eq!(refusal.code, "UNAUTHENTICATED", "{context}");
            assert_has_reason(&refusal, &context);
            assert!(
                !format!("{refusal:?}").contains(shortened),
                "repeats the key"
            );
        }
    }
    assert_eq!(stage.everything(), before);
}
