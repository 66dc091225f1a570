//! A receiver's people sign our request with their own CA: openssl verifies the request and signs it,
//! what does not fit is refused with the reason and changes nothing, and the destination moves from the
//! account's certificate to theirs, and to the next of theirs, while deliveries flow.

use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    customer_ca::{CustomerCa, Profile},
    gate::{Gate, Rules, short},
    openssl::{fact, openssl_ok},
    setting::Setting,
    steady::Steady,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

const GET_REQUEST: &str = "CertificateService/GetCertificateSigningRequest";
const UPLOAD: &str = "CertificateService/UploadClientCertificate";

struct Stage {
    sender: Steady,
    gate: Gate,
    ca: CustomerCa,
    _agent: Agent,
    orders: String,
    setting: Setting,
}

fn stage() -> Stage {
    let toml = "[certificates]\nclient_life_seconds = 600\ngrace_seconds = 1\n";
    let setting = Setting::with("customer", toml, "info");
    let acme = setting.account("acme");
    let ca = CustomerCa::make(setting.folder.subfolder("customer-ca"));
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let rules = Rules {
        trusted: setting.trust_bundle(&acme) + &ca.root(),
        ..Rules::default()
    };
    let gate = Gate::start(setting.folder.subfolder("gate"), &server, &rules);
    let orders = setting.destination(&acme, "orders", &gate.url("/"), &server.ca_pem);
    let agent = setting.agent("edge-1", &["--log-filter", "info"]);
    Stage {
        sender: Steady::start(&setting.control_plane, &orders, 100),
        gate,
        ca,
        _agent: agent,
        orders,
        setting,
    }
}

impl Stage {
    fn call(&self, method: &str, request: &Value) -> Value {
        self.setting.api().ok(method, request)
    }

    fn request(&self) -> String {
        let answer = self.call(GET_REQUEST, &json!({"parent": self.orders}));
        let pem = answer["certificate_signing_request_pem"].as_str().unwrap();
        pem.to_owned()
    }

    fn certificates(&self) -> Value {
        let request = json!({"parent": self.orders});
        let answer = self.call("CertificateService/ListClientCertificates", &request);
        answer["client_certificates"].clone()
    }

    fn upload(&self, pem: &str) -> Value {
        let request = json!({"parent": self.orders, "certificate_pem": pem});
        self.call(UPLOAD, &request)["client_certificate"].clone()
    }

    /// Waits until deliveries arrive with this certificate.
    fn arrives_with(&self, certificate: &str) {
        let serial = short(&fact(certificate, "serial"));
        wait_for(
            "deliveries with the customer's certificate",
            PATIENCE,
            || {
                let mut seen = self.gate.seen().into_iter();
                seen.any(|seen| seen.serial == serial && !seen.id.is_empty())
            },
        );
    }

    fn is_needed(&self) -> bool {
        let answer = self.call("AlertService/ListAlerts", &json!({}));
        let mut alerts = answer["alerts"].as_array().unwrap().iter();
        alerts.any(|alert| alert["cause"] == "ALERT_CAUSE_CLIENT_CERTIFICATE_NEEDED")
    }

    /// Uploads that can't be presented, each with a part of the reason.
    fn wrong(&self, request: &str) -> Vec<(String, &'static str)> {
        let ca = &self.ca;
        let good = ca.sign(request, Profile::Client);
        let signed = |profile| ca.sign(request, profile) + &ca.intermediate();
        vec![
            (ca.sign(&ca.other_request(), Profile::Client), "public key"),
            (ca.sign_between(request, 2020, 2022), "ended at 2022"),
            (
                ca.sign_between(request, 2040, 2042),
                "not valid before 2040",
            ),
            (signed(Profile::Server), "lacks clientAuth"),
            (signed(Profile::Authority), "a CA's certificate"),
            (ca.intermediate() + &good, "put it first"),
            (good.clone() + &ca.root(), "was not signed by"),
            (good.replace("MII", "MMM"), "certificate 1"),
            ("garbage".to_owned(), "PEM"),
        ]
    }
}

#[test]
fn a_destination_moves_to_the_customers_ca_and_renews_there() {
    let stage = stage();
    let of_another = stage.setting.api();
    let parent = json!({"parent": stage.orders});
    let of_another = of_another.refused(GET_REQUEST, &parent);
    assert_eq!(of_another.code, "FAILED_PRECONDITION", "{of_another:?}");
    let customer = json!({"name": stage.orders, "trust_model": "TRUST_MODEL_CUSTOMER"});
    let update = json!({"destination": customer});
    stage.call("DestinationService/UpdateDestination", &update);

    let request = stage.request();
    assert_eq!(stage.request(), request, "one request until it is answered");
    let verify = [
        "req", "-verify", "-noout", "-subject", "-nameopt", "RFC2253",
    ];
    let subject = openssl_ok(&verify, request.as_bytes());
    assert!(
        subject.contains("CN=countersign-delivery.acme"),
        "{subject}"
    );
    wait_for("an alert that a certificate is needed", PATIENCE, || {
        stage.is_needed()
    });

    let before = stage.certificates();
    for (pem, reason) in stage.wrong(&request) {
        let upload = json!({"parent": stage.orders, "certificate_pem": pem});
        let refused = stage.setting.api().refused(UPLOAD, &upload);
        assert_eq!(refused.code, "INVALID_ARGUMENT", "{reason}: {refused:?}");
        assert!(refused.message.contains(reason), "{reason}: {refused:?}");
    }
    assert_eq!(stage.certificates(), before);
    assert_eq!(stage.request(), request);

    let first = stage.ca.sign(&request, Profile::Client);
    let uploaded = stage.upload(&(first.clone() + &stage.ca.intermediate()));
    assert_eq!(uploaded["trust_model"], "TRUST_MODEL_CUSTOMER");
    assert_eq!(uploaded["chain_pem"], stage.ca.intermediate());
    stage.arrives_with(&first);
    wait_for("the alert to resolve", PATIENCE, || !stage.is_needed());

    let parent = json!({"parent": stage.orders});
    stage.call("CertificateService/RotateClientCertificate", &parent);
    let renewed = stage.request();
    assert_ne!(renewed, request, "a key of its own");
    let second = stage.ca.sign(&renewed, Profile::Client);
    // The root may stand at the end; it is not presented.
    let chain = stage.ca.intermediate() + &stage.ca.root();
    let uploaded = stage.upload(&(second.clone() + &chain));
    assert_eq!(uploaded["chain_pem"], stage.ca.intermediate());
    stage.arrives_with(&second);

    stage.sender.stop();
    wait_for("every delivery to be settled", PATIENCE, || {
        let deliveries = stage.sender.deliveries();
        let mut states = deliveries.values().map(|it| it.state().as_str_name());
        states.all(|state| state == "DELIVERY_STATE_DELIVERED")
    });
    for (delivery, attempts) in stage.sender.attempts() {
        assert_eq!(attempts.len(), 1, "{delivery}: {attempts:?}");
        assert_eq!(attempts[0].refused_certificate, None, "{delivery}");
    }
}
