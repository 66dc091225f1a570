//! What an operator can do by hand: retry a waiting delivery at once, cancel one, put a destination
//! back into use after its receiver answered 410, and rotate a signing secret while the receiver
//! changes over: the reference library takes the old secret and the new.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    grpcurl::Grpcurl,
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

fn stage(story: &str) -> Stage {
    let setting = Setting::new(story);
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
    fn api(&self) -> Grpcurl {
        self.setting.api()
    }

    fn submit(&self) -> String {
        self.setting.submit(&self.orders, b"{}", "application/json")
    }

    fn state(&self, delivery: &str) -> Value {
        self.setting.delivery(delivery)["state"].clone()
    }

    fn wait_until_pending(&self, delivery: &str) {
        self.setting.first_attempt(delivery);
        wait_until("the delivery to wait", PATIENCE, || {
            (self.state(delivery) == "DELIVERY_STATE_PENDING").then_some(())
        });
    }

    fn secret(&self, version: &str) -> Value {
        let name = json!({"name": format!("{}/signingSecrets/{version}", self.orders)});
        let answer = self
            .api()
            .ok("DestinationService/RevealSigningSecret", &name);
        answer["signing_secret"].clone()
    }
}

fn verifies(request: &Request, secret: &Value) -> bool {
    let header = |name| request.header(name).unwrap().to_owned();
    let question = json!({
        "secret": secret,
        "headers": {
            "webhook-id": header("webhook-id"),
            "webhook-timestamp": header("webhook-timestamp"),
            "webhook-signature": header("webhook-signature"),
        },
        "body": STANDARD.encode(&request.body),
    });
    judge("verify_webhook.py", &question)["verified"] == true
}

#[test]
fn a_waiting_delivery_is_retried_at_once_or_cancelled() {
    let stage = stage("by-hand");
    stage.application.answer(500);
    let (retried, cancelled) = (stage.submit(), stage.submit());
    stage.wait_until_pending(&retried);
    stage.wait_until_pending(&cancelled);
    let name = json!({"name": cancelled});
    let answer = stage.api().ok("DeliveryService/CancelDelivery", &name);
    assert_eq!(answer["delivery"]["state"], "DELIVERY_STATE_CANCELLED");
    for method in ["CancelDelivery", "RetryDelivery"] {
        let refusal = stage
            .api()
            .refused(&format!("DeliveryService/{method}"), &name);
        assert_eq!(refusal.reason(), "FAILED_PRECONDITION");
    }
    stage.application.answer(204);
    stage
        .api()
        .ok("DeliveryService/RetryDelivery", &json!({"name": retried}));
    stage.setting.wait_until_delivered(&retried);
    assert_eq!(stage.state(&cancelled), "DELIVERY_STATE_CANCELLED");
    let none = json!({"parent": "accounts/acme", "dry_run": true});
    assert_eq!(
        stage.api().ok("DeliveryService/ReplayDeliveries", &none)["count"],
        0
    );
}

#[test]
fn gone_disables_the_destination_until_somebody_enables_it() {
    let stage = stage("gone");
    stage.application.answer(410);
    let delivery = stage.submit();
    let orders = json!({"name": stage.orders});
    wait_until("the destination to be disabled", PATIENCE, || {
        let answer = stage.api().ok("DestinationService/GetDestination", &orders);
        (answer["destination"]["state"] == "DESTINATION_STATE_DISABLED").then_some(())
    });
    let waiting = stage.submit();
    let alerts = || stage.api().ok("AlertService/ListAlerts", &json!({}))["alerts"].clone();
    let disabled = |alert: &Value| alert["cause"] == "ALERT_CAUSE_DESTINATION_DISABLED";
    let open = || {
        alerts()
            .as_array()
            .is_some_and(|alerts| alerts.iter().any(disabled))
    };
    wait_until("an alert", PATIENCE, || open().then_some(()));
    assert_eq!(stage.state(&waiting), "DELIVERY_STATE_PENDING");

    stage.application.answer(204);
    stage
        .api()
        .ok("DestinationService/EnableDestination", &orders);
    stage
        .api()
        .ok("DeliveryService/RetryDelivery", &json!({"name": delivery}));
    stage.setting.wait_until_delivered(&delivery);
    stage.setting.wait_until_delivered(&waiting);
    wait_until("the alert to resolve", PATIENCE, || (!open()).then_some(()));
}

#[test]
fn old_and_new_signing_secret_verify_while_the_receiver_changes_over() {
    let stage = stage("secrets");
    let old = stage.secret("-");
    let grace = json!({"name": stage.orders, "grace_period": "3600s"});
    let rotated = stage
        .api()
        .ok("DestinationService/RotateSigningSecret", &grace);
    assert_eq!(
        rotated["name"],
        format!("{}/signingSecrets/2", stage.orders)
    );
    let new = stage.secret("-");
    assert_ne!(old, new);
    let delivery = stage.submit();
    stage.setting.wait_until_delivered(&delivery);
    let request = stage.application.requests().pop().unwrap();
    let signatures = request.header("webhook-signature").unwrap();
    assert_eq!(signatures.split(' ').count(), 2, "{signatures}");
    assert!(verifies(&request, &old) && verifies(&request, &new));

    let at_once = json!({"name": stage.orders, "grace_period": "0s"});
    stage
        .api()
        .ok("DestinationService/RotateSigningSecret", &at_once);
    let newest = stage.secret("-");
    let request = wait_until("the older secrets to be gone", PATIENCE, || {
        let delivery = stage.submit();
        stage.setting.wait_until_delivered(&delivery);
        let request = stage.application.requests().pop().unwrap();
        let alone = !request.header("webhook-signature").unwrap().contains(' ');
        alone.then_some(request)
    });
    assert!(verifies(&request, &newest));
    assert!(!verifies(&request, &old) && !verifies(&request, &new));
}
