//! API keys with roles and accounts: each does what the table of rules gives it and nothing else, over
//! every method that reflection tells of. A key that has expired or was revoked does nothing, also in a
//! stream that it began; too many calls, and too many wrong keys, are told when to come again. No key
//! is in the store or in the log. Client certificates do what the configuration says of them.

use std::{collections::BTreeSet, fs};

use countersign_control_plane::{
    auth::{Needs, TABLE},
    model::Role,
};
use countersign_proto::v1::{SubmitDeliveriesRequest, SubmitDeliveryRequest};
use countersign_tests::{
    authority::{Authority, Leaf, NOW},
    client,
    folder::Folder,
    grpcurl::{Grpcurl, Refusal},
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

const URL: &str = "https://receiver.example/";

/// Makes a key; gives its text.
fn key(setting: &Setting, id: &str, key: Value) -> String {
    let request = json!({"api_key_id": id, "api_key": key});
    let made = setting.api().ok("AccessService/CreateApiKey", &request);
    assert_eq!(made["api_key"]["name"], format!("apiKeys/{id}"));
    made["key"].as_str().unwrap().to_owned()
}

/// A caller with a new key in `role` for these accounts; none: all.
fn caller(setting: &Setting, id: &str, role: Role, accounts: &[&str]) -> Grpcurl {
    let role = format!("ROLE_{}", role.as_str().to_uppercase());
    let wanted = match accounts {
        [] => json!({"roles": [role], "all_accounts": true}),
        _ => json!({"roles": [role], "accounts": accounts}),
    };
    let text = key(setting, id, wanted);
    setting.control_plane.anonymous_api().with_key(&text)
}

fn assert_denied(refusal: &Refusal, reason: &str, what: &str) {
    let got = (refusal.code.as_str(), refusal.reason());
    assert_eq!(got, ("PERMISSION_DENIED", reason), "{what}: {refusal:?}");
}

/// A request that names `resource` in each of these fields, such as `destination.name`.
fn naming(fields: &[&str], resource: &str) -> Value {
    let mut request = json!({});
    for field in fields {
        let path = format!("/{}", field.replace('.', "/"));
        if let Some((outer, _)) = field.split_once('.') {
            request[outer] = json!({field[outer.len() + 1..].to_owned(): resource});
        } else {
            request[*field] = json!(resource);
        }
        assert_eq!(request.pointer(&path), Some(&json!(resource)));
    }
    request
}

#[test]
fn the_table_is_what_reflection_tells_and_what_callers_find() {
    let setting = Setting::new("roles");
    let api = setting.api();
    let services = api.services();
    let ours = services
        .iter()
        .filter_map(|name| name.strip_prefix("countersign.v1."));
    let methods: BTreeSet<String> = ours.flat_map(|service| api.methods(service)).collect();
    let ruled: BTreeSet<String> = TABLE.iter().map(|rule| rule.method.to_owned()).collect();
    assert_eq!(methods, ruled);

    for role in [Role::Operator, Role::Sender, Role::Auditor] {
        let caller = caller(&setting, role.as_str(), role, &[]);
        for rule in TABLE.iter().filter(|rule| !rule.roles.contains(&role)) {
            let refusal = caller.refused(rule.method, &json!({}));
            assert_denied(&refusal, "ROLE_REFUSED", rule.method);
            assert!(refusal.message.contains("administrator"), "{refusal:?}");
        }
    }
}

#[test]
fn a_key_for_one_account_touches_no_other_and_learns_nothing_of_it() {
    let setting = Setting::new("scopes");
    let (acme, globex) = (setting.account("acme"), setting.account("globex"));
    let mine = setting.destination(&acme, "orders", URL, "");
    let theirs = setting.destination(&globex, "orders", URL, "");
    let administrator = caller(&setting, "acme-admin", Role::Administrator, &[&acme]);
    for rule in TABLE {
        match rule.needs {
            Needs::AllAccounts => {
                let refusal = administrator.refused(rule.method, &json!({}));
                assert_denied(&refusal, "ACCOUNT_REFUSED", rule.method);
            }
            Needs::Account(fields) => {
                let texts = [theirs.as_str(), "accounts/nobody/destinations/orders"].map(|name| {
                    let refusal = administrator.refused(rule.method, &naming(fields, name));
                    assert_denied(&refusal, "ACCOUNT_REFUSED", rule.method);
                    refusal.message
                });
                assert_eq!(texts[0], texts[1], "{}: tells what exists", rule.method);
            }
            Needs::Shown | Needs::EachMessage => {}
        }
    }
    let listed = administrator.ok("AccountService/ListAccounts", &json!({}));
    let names: Vec<_> = listed["accounts"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 1, "{listed}");
    assert_eq!(names[0]["name"], acme);

    // What is its own, it can do.
    let change = json!({"destination": {"name": mine, "display_name": "Orders"}});
    administrator.ok("DestinationService/UpdateDestination", &change);
    let sender = caller(&setting, "acme-sender", Role::Sender, &[&acme]);
    let payload = json!({"destination": mine, "payload": "e30="});
    let accepted = sender.ok("DeliveryService/SubmitDelivery", &payload);
    let name = json!({"name": accepted["delivery"]["name"]});
    sender.ok("DeliveryService/GetDelivery", &name);
    let other = caller(&setting, "globex-sender", Role::Sender, &[&globex]);
    let refusal = other.refused("DeliveryService/GetDelivery", &name);
    assert_denied(&refusal, "ACCOUNT_REFUSED", "another's delivery");
}

#[test]
fn a_stream_of_submissions_is_judged_message_by_message_and_ends_with_its_key() {
    let setting = Setting::new("stream-scope");
    let (acme, globex) = (setting.account("acme"), setting.account("globex"));
    let mine = setting.destination(&acme, "orders", URL, "");
    let theirs = setting.destination(&globex, "orders", URL, "");
    let text = key(
        &setting,
        "acme-sender",
        json!({"roles": ["ROLE_SENDER"], "accounts": [acme], "calls_per_second": 3}),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let control_plane = &setting.control_plane;
        let (address, ca_file) = (control_plane.listeners().api, control_plane.ca_file());
        let mut client = client::connect(address, &ca_file, &text).await.unwrap();
        let (submit, messages) = tokio::sync::mpsc::channel(8);
        let message = |sequence, destination: &str| SubmitDeliveriesRequest {
            sequence,
            delivery: Some(SubmitDeliveryRequest {
                destination: destination.to_owned(),
                payload: "{}".into(),
                ..Default::default()
            }),
        };
        // The call itself is one of the three, so that the third message is too much.
        for (sequence, destination) in [(1, &mine), (2, &theirs), (3, &mine)] {
            submit.send(message(sequence, destination)).await.unwrap();
        }
        let answers = client
            .submit_deliveries(ReceiverStream::new(messages))
            .await;
        let mut answers = answers.unwrap().into_inner();
        let mut results = Vec::new();
        for _ in 0..3 {
            let answer = answers.message().await.unwrap().unwrap();
            results.push((answer.sequence, answer.result.unwrap()));
        }
        results.sort_by_key(|(sequence, _)| *sequence);
        use countersign_proto::v1::submit_deliveries_response::Result as Answer;
        let reasons = results.into_iter().map(|(_, result)| match result {
            Answer::Name(_) => String::new(),
            Answer::Error(error) => error.reason,
        });
        let reasons: Vec<_> = reasons.collect();
        assert_eq!(reasons, ["", "ACCOUNT_REFUSED", "TOO_MANY_CALLS"]);

        let revoke = json!({"name": "apiKeys/acme-sender"});
        setting.api().ok("AccessService/RevokeApiKey", &revoke);
        submit.send(message(4, &mine)).await.unwrap();
        let ended = answers.message().await.unwrap_err();
        assert_eq!(ended.code(), tonic::Code::Unauthenticated);
    });
}

#[test]
fn a_key_is_useless_once_revoked_or_expired_also_after_a_restart() {
    let mut setting = Setting::new("key-ends");
    let list = |caller: &Grpcurl| caller.call("AccountService/ListAccounts", &json!({}));
    let revoked = caller(&setting, "revoked", Role::Auditor, &[]);
    list(&revoked).unwrap();
    let name = json!({"name": "apiKeys/revoked"});
    let shown = setting.api().ok("AccessService/RevokeApiKey", &name);
    assert_eq!(shown["api_key"]["state"], "API_KEY_STATE_REVOKED");
    assert!(shown["api_key"]["last_use_time"].is_string(), "{shown}");
    assert_eq!(list(&revoked).unwrap_err().reason(), "API_KEY_REFUSED");

    let soon = countersign_shared::time::Clock::now(&countersign_shared::time::SystemClock)
        .plus(std::time::Duration::from_secs(2))
        .to_string();
    let wanted = json!({"roles": ["ROLE_AUDITOR"], "all_accounts": true, "expire_time": soon});
    let text = key(&setting, "brief", wanted);
    let brief = setting.control_plane.anonymous_api().with_key(&text);
    wait_until("the key to expire", PATIENCE, || {
        list(&brief).err().map(|refusal| {
            assert_eq!(refusal.reason(), "API_KEY_REFUSED");
        })
    });
    let shown = setting
        .api()
        .ok("AccessService/GetApiKey", &json!({"name": "apiKeys/brief"}));
    assert_eq!(shown["api_key"]["state"], "API_KEY_STATE_EXPIRED");

    let own = setting.control_plane.admin_key();
    let own = own.strip_prefix("csk_").unwrap().split('.').next().unwrap();
    let refusal = setting.api().refused(
        "AccessService/RevokeApiKey",
        &json!({"name": format!("apiKeys/{own}")}),
    );
    assert_eq!(refusal.reason(), "OWN_API_KEY");

    let kept = key(
        &setting,
        "kept",
        json!({"roles": ["ROLE_AUDITOR"], "all_accounts": true}),
    );
    setting.control_plane.stop();
    setting.control_plane.restart();
    let caller = |text: &str| setting.control_plane.anonymous_api().with_key(text);
    list(&caller(&kept)).unwrap();
    assert_eq!(
        list(&caller(&text)).unwrap_err().reason(),
        "API_KEY_REFUSED"
    );
    let keys = setting.api().ok("AccessService/ListApiKeys", &json!({}));
    assert_eq!(keys["api_keys"].as_array().unwrap().len(), 4, "{keys}");
    let secret = kept.split_once('.').unwrap().1;
    let output = setting.control_plane.output();
    assert!(output.contains("apiKeys/") && !output.contains(secret));
}

#[test]
fn a_bad_key_request_names_every_bad_field() {
    let setting = Setting::new("key-requests");
    let refused = |request: Value| {
        setting
            .api()
            .refused("AccessService/CreateApiKey", &request)
    };
    let refusal = refused(json!({
        "api_key_id": "Not An Id",
        "api_key": {
            "calls_per_second": -1,
            "expire_time": "2001-01-01T00:00:00Z",
            "display_name": "a\nb",
        },
    }));
    let fields: BTreeSet<_> = refusal.fields().into_iter().collect();
    let expected = [
        "api_key.accounts",
        "api_key.calls_per_second",
        "api_key.display_name",
        "api_key.expire_time",
        "api_key.roles",
        "api_key_id",
    ];
    assert_eq!(fields, BTreeSet::from(expected), "{refusal:?}");
    let both = json!({"roles": ["ROLE_SENDER"], "all_accounts": true, "accounts": ["accounts/a"]});
    assert_eq!(
        refused(json!({"api_key": both})).fields(),
        ["api_key.accounts"]
    );
    let bad = json!({"roles": ["ROLE_UNSPECIFIED"], "accounts": ["acme"]});
    let refusal = refused(json!({"api_key": bad}));
    assert_eq!(refusal.fields(), ["api_key.roles", "api_key.accounts"]);
}

#[test]
fn who_calls_too_often_or_with_wrong_keys_is_told_when_to_come_again() {
    let toml = "[access]\nfailed_attempts_per_minute = 3\n";
    let setting = Setting::with("limits", toml, "info");
    let slow = key(
        &setting,
        "slow",
        json!({"roles": ["ROLE_AUDITOR"], "all_accounts": true, "calls_per_second": 1}),
    );
    let slow = setting.control_plane.anonymous_api().with_key(&slow);
    let list = |caller: &Grpcurl| caller.call("AccountService/ListAccounts", &json!({}));
    let limited = wait_until("two calls within a second", PATIENCE, || list(&slow).err());
    assert_eq!(limited.code, "RESOURCE_EXHAUSTED");
    assert_eq!(limited.reason(), "TOO_MANY_CALLS");
    assert!(limited.detail("RetryInfo").is_some(), "{limited:?}");

    let wrong = setting
        .control_plane
        .anonymous_api()
        .with_key("csk_nobody.AAAA");
    let reasons = [(); 4].map(|()| list(&wrong).unwrap_err().reason().to_owned());
    assert_eq!(reasons[..3], ["API_KEY_REFUSED"; 3]);
    assert_eq!(reasons[3], "TOO_MANY_FAILED_ATTEMPTS");
    // The administrator has been here before.
    list(&setting.api()).unwrap();
}

#[test]
fn client_certificates_do_what_the_configuration_says_of_them() {
    let folder = Folder::new("client-certificates-files");
    let (ours, others) = (Authority::new("Ours"), Authority::new("Others"));
    let rules = [
        ("ours.pem", &ours, "spiffe://bank.example/billing", "sender"),
        ("others.pem", &others, "CN=auditor-*", "auditor"),
    ];
    let mut toml = String::new();
    for (file, authority, identity, role) in rules {
        let path = folder.join(file);
        fs::write(&path, authority.pem()).unwrap();
        toml += &format!(
            "[[access.clients]]\nca_file = '{}'\nidentity = '{identity}'\nroles = ['{role}']\n\
             accounts = ['accounts/acme']\n",
            path.display()
        );
    }
    let setting = Setting::with("client-certificates", &toml, "info");
    let (acme, globex) = (setting.account("acme"), setting.account("globex"));
    let mine = setting.destination(&acme, "orders", URL, "");
    let theirs = setting.destination(&globex, "orders", URL, "");
    let with = |leaf: Leaf, name: &str| {
        let files = [("pem", leaf.pem()), ("key", leaf.key_pem())].map(|(end, text)| {
            let path = folder.join(format!("{name}.{end}"));
            fs::write(&path, text).unwrap();
            path
        });
        let anonymous = setting.control_plane.anonymous_api();
        anonymous.with_certificate(&files[0], &files[1])
    };
    let submit = |caller: &Grpcurl, destination: &str| {
        let request = json!({"destination": destination, "payload": "e30="});
        caller.call("DeliveryService/SubmitDelivery", &request)
    };
    let billing = "spiffe://bank.example/billing";
    let sender = with(ours.client("billing", billing, NOW), "sender");
    submit(&sender, &mine).unwrap();
    let refusal = submit(&sender, &theirs).unwrap_err();
    assert_denied(&refusal, "ACCOUNT_REFUSED", "another account");
    assert!(refusal.message.contains(billing), "{refusal:?}");
    let auditor = others.client("auditor-7", "spiffe://bank.example/x", NOW);
    let auditor = with(auditor, "auditor");
    auditor.ok("DeliveryService/ListDeliveries", &json!({"parent": acme}));
    assert_denied(
        &submit(&auditor, &mine).unwrap_err(),
        "ROLE_REFUSED",
        "an auditor",
    );

    // The other authority can't give out this one's identities, and a key goes before a certificate.
    let forged = with(others.client("billing", billing, NOW), "forged");
    let refusal = submit(&forged, &mine).unwrap_err();
    assert_eq!(refusal.reason(), "API_KEY_REFUSED");
    let wrong_key = sender.clone().with_key("csk_nobody.AAAA");
    assert!(submit(&wrong_key, &mine).is_err());
    submit(
        &forged.with_key(&setting.control_plane.admin_key()),
        &theirs,
    )
    .unwrap();
    // Who has no certificate is let in by a key as before.
    setting.api().ok("AccountService/ListAccounts", &json!({}));
}
