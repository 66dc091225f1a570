//! A receiver that took a new client certificate in a probe refuses it in deliveries: by a 403 or by a
//! TLS alert. Each delivery goes out within the same attempt with the certificate before; the rotation
//! goes back to that and says so; when the receiver is put right the new one takes its place, and the
//! alert is gone. No attempt fails.

use countersign_tests::{
    agent::Agent,
    authority::{Authority, NOW},
    certificates::TestCertificate,
    gate::{Gate, Rules, short},
    receiver_script::ReceiverScript,
    receivers::{Kind, Receiver, Setup},
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::{Value, json};

/// Lives that are short enough to wait for what is tried again, and a grace that outlives the story.
const SHORT: &str = "[certificates]\nclient_life_seconds = 600\ngrace_seconds = 120\n";

struct Stage {
    _agent: Agent,
    destination: String,
    setting: Setting,
}

impl Stage {
    fn new(setting: Setting, destination: String) -> Self {
        let agent = setting.agent("edge-1", &["--log-filter", "info"]);
        Self {
            _agent: agent,
            destination,
            setting,
        }
    }

    fn call(&self, method: &str, request: &Value) -> Value {
        self.setting.api().ok(method, request)
    }

    fn certificate(&self, version: u32) -> Value {
        let name = format!("{}/clientCertificates/{version}", self.destination);
        let method = "CertificateService/GetClientCertificate";
        let answer = self.setting.api().call(method, &json!({"name": name}));
        answer.map_or(Value::Null, |answer| answer["client_certificate"].clone())
    }

    fn wait_until(&self, version: u32, state: &str) {
        let what = format!("version {version} to be {state}");
        let state = format!("CLIENT_CERTIFICATE_STATE_{state}");
        wait_for(&what, PATIENCE, || {
            self.certificate(version)["state"] == state
        });
    }

    /// Whether an alert says that the rotation is held up.
    fn is_held_up(&self) -> bool {
        let answer = self.call("AlertService/ListAlerts", &json!({}));
        let mut alerts = answer["alerts"].as_array().unwrap().iter();
        alerts.any(|alert| {
            alert["cause"] == "ALERT_CAUSE_ROTATION_HELD_UP"
                && alert["resource"] == self.destination
        })
    }

    /// Delivers something; gives its only attempt.
    fn deliver(&self) -> Value {
        let delivery = self
            .setting
            .submit(&self.destination, b"{}", "application/json");
        self.setting.wait_until_delivered(&delivery);
        let answer = self.call("DeliveryService/ListAttempts", &json!({"parent": delivery}));
        let attempts = answer["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "{answer}");
        attempts[0].clone()
    }
}

fn presented(attempt: &Value) -> &Value {
    &attempt["handshake"]["client_certificate_version"]
}

#[test]
fn a_403_in_deliveries_is_answered_with_the_certificate_before() {
    let setting = Setting::with("fallback", SHORT, "info");
    let acme = setting.account("acme");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let mut rules = Rules {
        trusted: setting.trust_bundle(&acme),
        ..Rules::default()
    };
    let gate = Gate::start(setting.folder.subfolder("gate"), &server, &rules);
    let destination = setting.destination(&acme, "orders", &gate.url("/"), &server.ca_pem);
    let stage = Stage::new(setting, destination);
    assert_eq!(*presented(&stage.deliver()), 1);
    let flow = Steady::start(&stage.setting.control_plane, &stage.destination, 50);
    // Before the new certificate is presented its serial number is not known: nobody but the first.
    let first = short(stage.certificate(1)["serial_number"].as_str().unwrap());
    let parent = json!({"parent": stage.destination});
    stage.call("CertificateService/RotateClientCertificate", &parent);
    let second = wait_until("the new certificate", PATIENCE, || {
        let second = stage.certificate(2)["serial_number"].as_str().map(short);
        second.filter(|second| *second != first)
    });
    rules.forbidden_serials = vec![second.clone()];
    gate.rule(&rules);
    wait_for("an alert", PATIENCE, || stage.is_held_up());
    stage.wait_until(1, "ACTIVE");
    let destination = stage.call(
        "DestinationService/GetDestination",
        &json!({"name": stage.destination}),
    );
    let rotation = &destination["destination"]["client_certificate_rotation"];
    assert!(rotation["refusals"].as_u64().unwrap() >= 1, "{rotation}");

    rules.forbidden_serials.clear();
    gate.rule(&rules);
    stage.wait_until(2, "ACTIVE");
    wait_for("the alert to resolve", PATIENCE, || !stage.is_held_up());
    let last = stage.deliver();
    assert_eq!(*presented(&last), 2);
    assert_eq!(last["refused_certificate"], Value::Null);

    flow.stop();
    wait_for("every delivery to be DELIVERED", PATIENCE, || {
        let deliveries = flow.deliveries();
        let mut states = deliveries.values().map(|it| it.state().as_str_name());
        states.all(|state| state == "DELIVERY_STATE_DELIVERED")
    });
    let mut refusals = 0;
    for (delivery, attempts) in flow.attempts() {
        let [attempt] = attempts.as_slice() else {
            panic!("{delivery}: {attempts:?}");
        };
        assert_eq!(attempt.class().as_str_name(), "FAILURE_CLASS_DELIVERED");
        if let Some(refused) = &attempt.refused_certificate {
            assert_eq!(refused.client_certificate_version, 2);
            let class = refused.class().as_str_name();
            assert_eq!(class, "FAILURE_CLASS_CLIENT_IDENTITY_FORBIDDEN");
            let handshake = attempt.handshake.as_ref().unwrap();
            assert_eq!(handshake.client_certificate_version, 1);
            refusals += 1;
        }
    }
    assert!(refusals > 0, "nothing was refused");
    println!("{refusals} deliveries went out with the certificate before");
}

#[test]
fn an_alert_is_answered_with_the_certificate_before() {
    let setting = Setting::with("fallback-alert", SHORT, "info");
    let acme = setting.account("acme");
    let receiver_ca = Authority::new("Receiver CA");
    let url = "https://localhost/hooks";
    let destination = setting.destination(&acme, "orders", url, &receiver_ca.pem());
    let stage = Stage::new(setting, destination);
    let folder = stage.setting.folder.subfolder("haproxy");
    let application = ReceiverScript::start(stage.setting.folder.subfolder("application"));
    let server = receiver_ca.server(NOW);
    let kind = json!({"name": stage.destination, "server_kind": "SERVER_KIND_HAPROXY"});
    let pasted = stage.call("DestinationService/GetReceiverConfiguration", &kind);
    let first = stage.setting.trust_bundle(&acme);
    let trusting = |anchor| Setup {
        text: pasted["configuration"].as_str().unwrap(),
        trust_anchor: anchor,
        server: &server,
        application: application.port(),
        tls12_only: false,
        asks: true,
        revocation_list: None,
    };
    let mut haproxy = Receiver::start(Kind::HaProxy, &folder, &trusting(&first));
    let url = json!({"name": stage.destination, "url": haproxy.url("localhost")});
    let update = json!({"destination": url});
    stage.call("DestinationService/UpdateDestination", &update);
    assert_eq!(*presented(&stage.deliver()), 1);

    // Without the help of the generation before, the receiver has to install the new one.
    let emergency = json!({"parent": acme, "emergency": true});
    stage.call("CertificateService/RotateCertificateAuthority", &emergency);
    wait_for("an alert", PATIENCE, || stage.is_held_up());
    let refused_in_a_probe = stage.deliver();
    assert_eq!(*presented(&refused_in_a_probe), 1);
    assert_eq!(refused_in_a_probe["refused_certificate"], Value::Null);
    let both = stage.setting.trust_bundle(&acme);
    assert!(both.len() > first.len());
    haproxy.replace(Kind::HaProxy, &folder, &trusting(&both));
    stage.wait_until(2, "ACTIVE");
    wait_for("the alert to resolve", PATIENCE, || !stage.is_held_up());
    assert_eq!(*presented(&stage.deliver()), 2);

    // The receiver's people go back to what they had.
    haproxy.replace(Kind::HaProxy, &folder, &trusting(&first));
    let fallen_back = stage.deliver();
    assert_eq!(*presented(&fallen_back), 1, "{fallen_back}");
    let refused = &fallen_back["refused_certificate"];
    assert_eq!(refused["client_certificate_version"], 2);
    assert_eq!(refused["class"], "FAILURE_CLASS_CLIENT_CA_NOT_TRUSTED");
    assert_eq!(refused["handshake"]["alert_number"], 48);
    wait_for("an alert", PATIENCE, || stage.is_held_up());
    stage.wait_until(1, "ACTIVE");
    haproxy.replace(Kind::HaProxy, &folder, &trusting(&both));
    stage.wait_until(2, "ACTIVE");
    // It was refused in a delivery, so that a delivery shows that it is not any more.
    assert_eq!(*presented(&stage.deliver()), 2);
    wait_for("the alert to resolve", PATIENCE, || !stage.is_held_up());
    assert_eq!(*presented(&stage.deliver()), 2);
}
