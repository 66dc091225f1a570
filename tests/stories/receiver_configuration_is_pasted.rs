//! A receiver's people ask for the configuration of their server, paste it, and deliveries arrive:
//! the names and the trust anchor in it are those of the real certificate.

use countersign_tests::{
    authority::{Authority, NOW},
    openssl::fact,
    receiver_script::ReceiverScript,
    receivers::{Kind, Receiver, Setup},
    setting::Setting,
};
use serde_json::{Value, json};

const GET: &str = "DestinationService/GetReceiverConfiguration";
const KINDS: [&str; 8] = [
    "SERVER_KIND_NGINX",
    "SERVER_KIND_HAPROXY",
    "SERVER_KIND_APACHE",
    "SERVER_KIND_CADDY",
    "SERVER_KIND_ENVOY",
    "SERVER_KIND_AWS_ALB",
    "SERVER_KIND_GOOGLE_CLOUD",
    "SERVER_KIND_CLOUDFLARE",
];

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap()
}

#[test]
fn what_is_pasted_lets_the_deliveries_in() {
    let setting = Setting::new("paste");
    let acme = setting.account("acme");
    let receiver_ca = Authority::new("Receiver CA");
    let ca_pem = receiver_ca.pem();
    let url = "https://localhost/hooks";
    let destination = setting.destination(&acme, "orders", url, &ca_pem);
    let request = json!({"name": destination, "server_kind": "SERVER_KIND_NGINX"});
    let answer = setting.api().ok(GET, &request);

    let application = ReceiverScript::start(setting.folder.subfolder("application"));
    let setup = Setup {
        text: text(&answer, "configuration"),
        trust_anchor: text(&answer, "trust_anchor_pem"),
        server: &receiver_ca.server(NOW),
        application: application.port(),
        tls12_only: false,
        asks: true,
        revocation_list: None,
    };
    let folder = setting.folder.subfolder("nginx");
    let nginx = Receiver::start(Kind::Nginx, &folder, &setup);
    let moved = json!({"destination": {"name": destination, "url": nginx.url("localhost")}});
    setting
        .api()
        .ok("DestinationService/UpdateDestination", &moved);
    let _agent = setting.agent("edge-1", &[]);
    let delivery = setting.submit(&destination, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);
    let attempt = setting.first_attempt(&delivery);
    assert_eq!(attempt["class"], "FAILURE_CLASS_DELIVERED", "{attempt}");
    assert_eq!(attempt["mtls_not_enforced"], false);
    assert_eq!(application.requests().len(), 1);
}

#[test]
fn every_kind_of_server_gets_the_names_of_the_real_certificate() {
    let setting = Setting::new("kinds");
    let acme = setting.account("acme");
    let destination = setting.destination(&acme, "orders", "https://hooks.example.com/", "");
    let name = json!({"name": format!("{destination}/clientCertificates/1")});
    let answer = setting
        .api()
        .ok("CertificateService/GetClientCertificate", &name);
    let certificate = &answer["client_certificate"];
    let subject = fact(text(certificate, "certificate_pem"), "subject");
    for kind in KINDS {
        let request = json!({"name": destination, "server_kind": kind});
        let answer = setting.api().ok(GET, &request);
        assert_eq!(answer["expected_uri"], certificate["uri"], "{kind}");
        let (common_name, uri) = (
            text(&answer, "expected_common_name"),
            text(&answer, "expected_uri"),
        );
        assert!(subject.ends_with(common_name), "{subject}");
        let configuration = text(&answer, "configuration");
        assert!(configuration.contains(common_name) || configuration.contains(uri));
        assert_eq!(
            text(&answer, "trust_anchor_pem"),
            setting.trust_bundle(&acme)
        );
        assert!(text(&answer, "trust_anchor_file").ends_with("acme-ca.pem"));
        assert!(answer["steps"].as_array().unwrap().len() >= 3, "{answer}");
    }

    let unspecified = setting.api().refused(GET, &json!({"name": destination}));
    assert_eq!(unspecified.fields(), ["server_kind"]);
    let unknown = json!({"name": format!("{acme}/destinations/nothing"), "server_kind": KINDS[0]});
    let unknown = setting.api().refused(GET, &unknown);
    assert_eq!(unknown.reason(), "RESOURCE_NOT_FOUND");
}
