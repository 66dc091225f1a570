//! The judges judge: nginx demands a certificate, the receivers keep every byte, verifiers refuse
//! what is wrong, and processes end with their test. Without the product.

use std::process::Command;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_shared::{secret::SecretBytes, signature, time::Timestamp};
use countersign_tests::{
    certificates::TestCertificate,
    folder::Folder,
    nginx::{Nginx, Setup},
    openssl::{fact, verifies_as_client},
    process::{Process, run, wait_until_gone, with_environment},
    python::judge,
    receiver::Receiver,
    receiver_script::ReceiverScript,
    wait::{PATIENCE, wait_for},
};
use serde_json::{Value, json};

fn all_bytes() -> Vec<u8> {
    (0..=255).collect()
}

/// POSTs `body` with the client certificate in `client`, if any.
fn post(url: &str, server: &TestCertificate, client: Option<&TestCertificate>) -> Value {
    let client = client.map(|client| json!([client.certificate, client.key]));
    let question = json!({
        "url": url,
        "ca_pem": server.ca_pem,
        "client": client,
        "headers": {"webhook-id": "one", "content-type": "application/octet-stream"},
        "body": STANDARD.encode(all_bytes()),
    });
    judge("https_post.py", &question)
}

#[test]
fn nginx_lets_through_only_its_authority_and_the_script_keeps_every_byte() {
    let folder = Folder::new("harness-nginx");
    let server = TestCertificate::make(&folder.subfolder("server"));
    let stranger = TestCertificate::make(&folder.subfolder("stranger"));
    let application = ReceiverScript::start(folder.subfolder("application"));
    let setup = Setup {
        server: &server,
        // The server's own certificate stands in for a client's here: nginx asks openssl for the
        // purpose too, so even this one must be refused, and only a right one taken.
        client_authorities: &server.ca_pem,
        application: application.port(),
    };
    let nginx = Nginx::start(folder.subfolder("nginx"), &setup);
    let url = nginx.url("/hook?x=1");
    for client in [None, Some(&stranger), Some(&server)] {
        assert_eq!(post(&url, &server, client)["status"], 400);
    }
    assert!(application.requests().is_empty());

    let client = TestCertificate::make_client(&folder.subfolder("client"));
    let setup = Setup {
        client_authorities: &client.ca_pem,
        ..setup
    };
    let nginx = Nginx::start(folder.subfolder("nginx-2"), &setup);
    let url = nginx.url("/hook?x=1");
    assert_eq!(post(&url, &server, Some(&client))["status"], 204);
    application.answer(503);
    assert_eq!(post(&url, &server, Some(&client))["status"], 503);
    let requests = application.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].body, all_bytes());
    assert_eq!(requests[0].path, "/hook?x=1");
    assert_eq!(requests[0].method, "POST");
    assert_eq!(requests[0].header("Webhook-Id"), Some("one"));
    let pem = std::fs::read_to_string(&client.certificate).unwrap();
    let serial = fact(&pem, "serial");
    assert_eq!(requests[0].header("x-client-serial"), Some(serial.as_str()));
    let log = nginx.access_log();
    assert!(log[0].starts_with("204 verify=\"SUCCESS\""), "{log:?}");
}

#[test]
fn the_fast_receiver_demands_a_certificate_and_counts_repeats() {
    let folder = Folder::new("harness-receiver");
    let server = TestCertificate::make(&folder.subfolder("server"));
    let client = TestCertificate::make_client(&folder.subfolder("client"));
    let receiver = Receiver::start(&server, &client.ca_pem);
    let url = receiver.url("/hook");
    assert!(post(&url, &server, None)["error"].is_string());
    assert_eq!(receiver.distinct(), 0);
    for _ in 0..2 {
        assert_eq!(post(&url, &server, Some(&client))["status"], 204);
    }
    let received = receiver.received();
    assert_eq!(receiver.distinct(), 1);
    assert_eq!(received["one"].times, 2);
    assert!(received["one"].same_body);
    assert_eq!(received["one"].body, all_bytes());
}

#[test]
fn the_reference_verifier_takes_our_signature_and_no_other() {
    let secret = signature::generate_secret();
    let body = r#"{"event":"paid","amount":"12,50 €"}"#;
    let now = judge("clock.py", &json!({}))["seconds"].as_i64().unwrap();
    let signed = |secret: &SecretBytes, seconds: i64| {
        let at = Timestamp::from_unix_seconds(seconds);
        let signature = signature::sign_v1([secret], "one", at, body.as_bytes());
        json!({
            "webhook-id": "one",
            "webhook-timestamp": seconds.to_string(),
            "webhook-signature": signature,
        })
    };
    let verdict = |headers: Value, body: &str| {
        let question = json!({
            "secret": signature::secret_to_text(&secret).expose(),
            "headers": headers,
            "body": STANDARD.encode(body),
        });
        judge("verify_webhook.py", &question)["verified"] == true
    };
    assert!(verdict(signed(&secret, now), body));
    assert!(!verdict(signed(&secret, now), &body.replace("12", "99")));
    assert!(!verdict(signed(&signature::generate_secret(), now), body));
    assert!(!verdict(signed(&secret, now - 3600), body));
}

#[test]
fn openssl_tells_authorities_apart() {
    let folder = Folder::new("harness-openssl");
    let client = TestCertificate::make_client(&folder.subfolder("client"));
    let stranger = TestCertificate::make_client(&folder.subfolder("stranger"));
    let anchors = client.certificate.with_file_name("ca.pem");
    assert!(verifies_as_client(&anchors, &client.certificate));
    assert!(!verifies_as_client(&anchors, &stranger.certificate));
}

#[test]
fn processes_end_with_their_test_and_the_deaf_are_killed() {
    let folder = Folder::new("harness-process");
    let mark = folder.display().to_string();
    let sleeper = |script: &str, name: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("HARNESS_TEST", &mark);
        Process::start(command, name, &folder)
    };
    let mut polite = sleeper("echo ready; exec sleep 600", "polite");
    polite.wait_until("its line", || {
        let log = folder.join("polite.log");
        std::fs::read_to_string(log)
            .ok()?
            .contains("ready")
            .then_some(())
    });
    // While a program takes another's place it has no environment to show.
    wait_for("its environment", PATIENCE, || {
        with_environment("HARNESS_TEST", &mark).contains(&polite.id())
    });
    polite.stop();
    let mut parent = sleeper("sleep 600 & sleep 600", "parent");
    assert!(parent.ended().is_none());
    parent.kill9();
    drop((polite, parent));
    wait_until_gone("HARNESS_TEST", &mark);
    let finished = run(
        Command::new("sh").args(["-c", "cat; echo no >&2; exit 3"]),
        b"yes",
    );
    assert_eq!(finished.status.code(), Some(3));
    assert_eq!(
        (finished.stdout.as_str(), finished.all().as_str()),
        ("yes", "yesno\n")
    );
}
