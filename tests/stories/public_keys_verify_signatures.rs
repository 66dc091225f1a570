//! Signatures that only the sender can make: scheme `v1a` (Ed25519), beside `v1` and alone, while keys are
//! rotated, over any bytes. Judged by Python's `cryptography`, with keys that the receiver fetched.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    http_get,
    nginx::{Nginx, Setup},
    python::judge,
    receiver_script::{ReceiverScript, Request},
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

struct Stage {
    _agent: Agent,
    _nginx: Nginx,
    application: ReceiverScript,
    orders: String,
    setting: Setting,
}

fn stage() -> Stage {
    let setting = Setting::new("public-keys");
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
    Stage {
        _agent: setting.agent("edge-1", &["--log-filter", "info"]),
        _nginx: nginx,
        application,
        orders,
        setting,
    }
}

impl Stage {
    fn sign_with(&self, schemes: &[&str]) {
        let destination = json!({"name": self.orders, "signature_schemes": schemes});
        let request = json!({"destination": destination});
        let api = self.setting.api();
        api.ok("DestinationService/UpdateDestination", &request);
    }

    /// The request with which a delivery of these bytes arrives, once it has `signatures` signatures: a
    /// change reaches the agent with the next delivery at the latest.
    fn delivered(&self, payload: &[u8], signatures: usize) -> Request {
        wait_until("the signatures that are asked for", PATIENCE, || {
            let delivery = self.setting.submit(&self.orders, payload, "image/png");
            self.setting.wait_until_delivered(&delivery);
            let request = self.application.requests().pop().unwrap();
            (schemes(&request).len() == signatures).then_some(request)
        })
    }

    /// As a receiver fetches them.
    fn published(&self) -> Vec<String> {
        let http = self.setting.control_plane.listeners().http;
        let page = http_get::get(http, &format!("/signing-keys/{}", self.orders)).unwrap();
        assert_eq!(page.status, 200);
        let text = String::from_utf8(page.body).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// The scheme of each signature, in order.
fn schemes(request: &Request) -> Vec<String> {
    let header = request.header("webhook-signature").unwrap();
    let each = header.split(' ').map(|it| it.split_once(',').unwrap().0);
    each.map(str::to_owned).collect()
}

/// For each key, which of the `v1a` signatures it verifies.
fn verdict(keys: &[String], request: &Request, change: impl Fn(&mut Value)) -> Value {
    let header = |name: &str| request.header(name).unwrap().to_owned();
    let mut question = json!({
        "public_keys": keys,
        "headers": {
            "webhook-id": header("webhook-id"),
            "webhook-timestamp": header("webhook-timestamp"),
            "webhook-signature": header("webhook-signature"),
        },
        "body": STANDARD.encode(&request.body),
    });
    change(&mut question);
    judge("verify_webhook_v1a.py", &question)["of_keys"].take()
}

#[test]
fn keys_that_the_receiver_fetched_verify_every_signature_during_rotation_too() {
    let stage = stage();
    let payload: Vec<u8> = (0..=255).collect();
    let first = stage.published();
    assert_eq!(first.len(), 1);
    assert!(first[0].starts_with("whpk_"), "{first:?}");
    let api = stage.setting.api();
    let name = json!({"name": stage.orders});
    let listed = api.ok("DestinationService/ListSigningPublicKeys", &name);
    assert_eq!(listed["public_keys"][0]["public_key"], first[0]);

    stage.sign_with(&["SIGNATURE_SCHEME_V1", "SIGNATURE_SCHEME_V1A"]);
    let both = stage.delivered(&payload, 2);
    assert_eq!(
        (schemes(&both), &both.body),
        (["v1", "v1a"].map(str::to_owned).to_vec(), &payload)
    );
    assert_eq!(verdict(&first, &both, |_| ()), json!([[true]]));
    for change in [
        (|question| question["body"] = json!(STANDARD.encode("other"))) as fn(&mut Value),
        |question| question["headers"]["webhook-id"] = json!("other"),
        |question| question["headers"]["webhook-timestamp"] = json!("1700000000"),
    ] {
        assert_eq!(verdict(&first, &both, change), json!([[false]]));
    }

    // While the receiver changes over, deliveries carry a signature of the new key and one of the old.
    api.ok("DestinationService/RotateSigningSecret", &name);
    stage.sign_with(&["SIGNATURE_SCHEME_V1A"]);
    let rotated = stage.delivered(&payload, 2);
    assert_eq!(schemes(&rotated), ["v1a", "v1a"]);
    let keys = stage.published();
    assert_eq!((keys.len(), &keys[1]), (2, &first[0]), "newest first");
    let verified = verdict(&keys, &rotated, |_| ());
    assert_eq!(verified, json!([[true, false], [false, true]]));
}
