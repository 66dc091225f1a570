//! The first delivery, told whole: an administrator with grpcurl, an agent, a receiver with nginx
//! that trusts one account's authority and nothing else, and the reference library that verifies the
//! signature. Another account's certificate does not get in.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::{
    agent::Agent,
    certificates::TestCertificate,
    http_get,
    nginx::{Nginx, Setup},
    openssl::fact,
    python::judge,
    receiver_script::{ReceiverScript, Request},
    setting::Setting,
};
use serde_json::{Value, json};

/// A receiver that trusts the account `acme`, and an agent.
struct Stage {
    agent: Agent,
    nginx: Nginx,
    application: ReceiverScript,
    server: TestCertificate,
    acme: String,
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
    Stage {
        nginx: Nginx::start(setting.folder.subfolder("nginx"), &setup),
        agent: setting.agent("edge-1", &["--log-filter", "info"]),
        application,
        server,
        acme,
        setting,
    }
}

impl Stage {
    fn destination(&self, account: &str) -> String {
        let (url, ca) = (self.nginx.url("/hooks?for=us"), &self.server.ca_pem);
        self.setting.destination(account, "orders", &url, ca)
    }

    /// Delivers `payload` to `destination` and gives the last request of the application.
    fn deliver(&self, destination: &str, payload: &[u8], content_type: &str) -> (String, Request) {
        let delivery = self.setting.submit(destination, payload, content_type);
        self.setting.wait_until_delivered(&delivery);
        (delivery, self.application.requests().pop().unwrap())
    }
}

#[test]
fn a_payload_arrives_byte_for_byte_over_mutual_tls() {
    let stage = stage("first-delivery");
    let destination = stage.destination(&stage.acme);
    let payload: Vec<u8> = (0..=255).collect();
    let (delivery, request) = stage.deliver(&destination, &payload, "application/octet-stream");

    assert_eq!(request.body, payload);
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/hooks?for=us")
    );
    assert_eq!(
        request.header("content-type"),
        Some("application/octet-stream")
    );
    let agent = request.header("user-agent").unwrap();
    assert!(agent.starts_with("Countersign/"), "{agent}");
    let id = delivery.rsplit('/').next().unwrap();
    assert_eq!(request.header("webhook-id"), Some(id));

    let attempt = stage.setting.first_attempt(&delivery);
    assert_attempt_is_mutual(&stage.setting, &destination, &attempt);
    // What nginx saw is the certificate that the API tells of.
    let certificate = client_certificate(&stage.setting, &destination);
    let serial = fact(certificate["certificate_pem"].as_str().unwrap(), "serial");
    assert_eq!(request.header("x-client-serial"), Some(serial.as_str()));
    let subject = request.header("x-client-subject").unwrap();
    assert!(
        subject.contains("CN=countersign-delivery.acme"),
        "{subject}"
    );
}

/// With every attempt, and none of the agent's own is replaced.
#[test]
fn headers_of_the_sender_s_own_go_along() {
    let stage = stage("own-headers");
    let destination = stage.destination(&stage.acme);
    let request = json!({
        "destination": destination,
        "payload": STANDARD.encode("{}"),
        "headers": {"Authorization": "Basic c2VuZGVyOnNlY3JldA==", "x-tenant": "north, 7"},
    });
    let api = stage.setting.api();
    let answer = api.ok("DeliveryService/SubmitDelivery", &request);
    let delivery = answer["delivery"]["name"].as_str().unwrap();
    stage.setting.wait_until_delivered(delivery);
    let request = stage.application.requests().pop().unwrap();
    let own = ["authorization", "x-tenant"].map(|name| request.header(name).unwrap());
    assert_eq!(own, ["Basic c2VuZGVyOnNlY3JldA==", "north, 7"]);
    assert_eq!(request.header("content-type"), Some("application/json"));
    let logs = stage.agent.output() + &stage.setting.control_plane.output();
    assert!(!logs.contains("c2VuZGVy"), "{logs}");
}

fn client_certificate(setting: &Setting, destination: &str) -> Value {
    let request = json!({"name": format!("{destination}/clientCertificates/1")});
    let answer = setting
        .api()
        .ok("CertificateService/GetClientCertificate", &request);
    answer["client_certificate"].clone()
}

fn assert_attempt_is_mutual(setting: &Setting, destination: &str, attempt: &Value) {
    assert_eq!(attempt["class"], "FAILURE_CLASS_DELIVERED", "{attempt}");
    assert_eq!(attempt["http_status"], 204);
    assert_eq!(attempt["agent"], "agents/edge-1");
    assert_eq!(attempt["mtls_not_enforced"], false);
    let handshake = &attempt["handshake"];
    assert_eq!(handshake["completed"], true);
    assert_eq!(handshake["client_certificate_requested"], true);
    assert_eq!(handshake["client_certificate_version"], 1);
    assert_eq!(handshake["tls_version"], "TLSv1.3");
    assert_eq!(handshake["server_certificate_subject"], "CN=localhost");
    let serial = &client_certificate(setting, destination)["serial_number"];
    assert_eq!(&handshake["client_certificate_serial"], serial);
    assert_ne!(serial, "");
}

#[test]
fn the_reference_library_verifies_the_signature_and_refuses_a_changed_body() {
    let stage = stage("signature");
    let destination = stage.destination(&stage.acme);
    let payload = r#"{"type":"order.paid","data":{"amount":"12,50 €"}}"#;
    let (_, request) = stage.deliver(&destination, payload.as_bytes(), "application/json");
    let reveal = json!({"name": format!("{destination}/signingSecrets/-")});
    let answer = stage
        .setting
        .api()
        .ok("DestinationService/RevealSigningSecret", &reveal);
    let verdict = |change: &dyn Fn(&mut Value)| {
        let header = |name: &str| request.header(name).unwrap().to_owned();
        let mut question = json!({
            "secret": answer["signing_secret"],
            "headers": {
                "webhook-id": header("webhook-id"),
                "webhook-timestamp": header("webhook-timestamp"),
                "webhook-signature": header("webhook-signature"),
            },
            "body": STANDARD.encode(&request.body),
        });
        change(&mut question);
        judge("verify_webhook.py", &question)["verified"] == true
    };
    assert!(verdict(&|_| ()));
    let tampered = payload.replace("12,50", "99,50");
    assert!(!verdict(
        &|question| question["body"] = json!(STANDARD.encode(&tampered))
    ));
    assert!(!verdict(
        &|question| question["headers"]["webhook-id"] = json!("another")
    ));
}

#[test]
fn nginx_refuses_whoever_has_no_certificate_of_the_account() {
    let stage = stage("strangers");
    let without_certificate = json!({
        "url": stage.nginx.url("/hooks"),
        "ca_pem": stage.server.ca_pem,
        "client": null,
        "headers": {},
        "body": STANDARD.encode("x"),
    });
    assert_eq!(judge("https_post.py", &without_certificate)["status"], 400);

    let globex = stage.setting.account("globex");
    let destination = stage.destination(&globex);
    let delivery = stage
        .setting
        .submit(&destination, b"{}", "application/json");
    let attempt = stage.setting.first_attempt(&delivery);
    assert_ne!(attempt["class"], "FAILURE_CLASS_DELIVERED", "{attempt}");
    assert_eq!(attempt["http_status"], 400);
    assert_eq!(attempt["handshake"]["client_certificate_requested"], true);
    assert_ne!(attempt["resolution"], "", "{attempt}");
    let state = stage.setting.delivery(&delivery)["state"].clone();
    assert_ne!(state, "DELIVERY_STATE_DELIVERED");
    assert!(stage.application.requests().is_empty());
    let log = stage.nginx.access_log();
    assert!(
        log.iter().any(|line| line.contains("verify=\"FAILED")),
        "{log:?}"
    );
}

#[test]
fn an_administrator_finds_the_way_by_reflection() {
    let stage = stage("administration");
    let services = stage.setting.api().services();
    // All that this listener serves, and nothing that only agents can call.
    let served = [
        "countersign.v1.AccessService",
        "countersign.v1.AccountService",
        "countersign.v1.AgentAdministrationService",
        "countersign.v1.AlertService",
        "countersign.v1.AuditService",
        "countersign.v1.CertificateService",
        "countersign.v1.DeliveryService",
        "countersign.v1.DestinationService",
        "countersign.v1.KeyEncryptionKeyService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(services, served);
    // Health and reflection need no key.
    let anonymous = stage.setting.control_plane.anonymous_api();
    assert_eq!(anonymous.services(), services);
    let health = anonymous.ok("grpc.health.v1.Health/Check", &json!({}));
    assert_eq!(health["status"], "SERVING");

    let bundle = stage.setting.trust_bundle(&stage.acme);
    let listeners = stage.setting.control_plane.listeners();
    let served = http_get::get(listeners.http, "/trust/accounts/acme.pem").unwrap();
    assert_eq!(served.status, 200);
    assert_eq!(String::from_utf8(served.body).unwrap(), bundle);
    let unknown = http_get::get(listeners.http, "/trust/accounts/nobody.pem").unwrap();
    assert_eq!(unknown.status, 404);
    for path in ["/livez", "/readyz"] {
        assert_eq!(
            http_get::get(listeners.http, path).unwrap().status,
            200,
            "{path}"
        );
    }
    let metrics = http_get::get(listeners.http, "/metrics").unwrap();
    assert!(String::from_utf8(metrics.body).unwrap().contains("# TYPE "));

    let agents = stage
        .setting
        .api()
        .ok("AgentAdministrationService/ListAgents", &json!({}));
    assert_eq!(agents["agents"][0]["name"], "agents/edge-1");
    let (mut agent, mut setting) = (stage.agent, stage.setting);
    agent.stop();
    setting.control_plane.stop();
}
