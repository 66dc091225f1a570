//! A destination asks for receipts. Each attempt then has one, signed by the agent that made it: `countersign
//! verify-receipt` says so from a file and a certificate alone, and so does a JOSE library that knows nothing of
//! us. A receipt that is altered, signed by somebody else, or put in another's place is found out, and one that is
//! left out is missed. After the agent's restart another chain begins.

use std::{fs, path::Path, process::Command};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_shared::digest::{hex, sha256};
use countersign_tests::{
    authority::{Authority, NOW},
    certificates::TestCertificate,
    http_get,
    process::{Finished, run},
    python::judge,
    receiver::Receiver,
    setting::Setting,
    tools,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

fn verify(folder: &Path, ca: &Path, input: &str, flags: &[&str]) -> Finished {
    let file = folder.join("receipts");
    fs::write(&file, input).unwrap();
    let mut command = Command::new(tools::countersign());
    command.arg("verify-receipt").arg("--ca").arg(ca);
    run(command.args(flags).arg(file), b"")
}

fn attempts(setting: &Setting, delivery: &str) -> Value {
    setting
        .api()
        .ok("DeliveryService/ListAttempts", &json!({"parent": delivery}))
}

/// The receipt of the only attempt.
fn receipt(setting: &Setting, delivery: &str) -> String {
    let answer = attempts(setting, delivery);
    assert_eq!(answer["attempts"].as_array().unwrap().len(), 1, "{answer}");
    answer["attempts"][0]["receipt"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn each_attempt_has_one_that_nobody_can_make_up() {
    let setting = Setting::new("receipts");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let account = setting.account("acme");
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks?key=secret");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let mut agent = setting.agent("edge-1", &[]);
    let deliver = |payload: &str| {
        let delivery = setting.submit(&destination, payload.as_bytes(), "application/json");
        setting.wait_until_delivered(&delivery);
        delivery
    };
    assert_eq!(receipt(&setting, &deliver("{}")), "", "nobody asked for it");

    let change = json!({
        "destination": {"name": destination, "delivery_receipts": true},
        "update_mask": {"paths": ["delivery_receipts"]},
    });
    let changed = setting
        .api()
        .ok("DestinationService/UpdateDestination", &change);
    assert_eq!(changed["destination"]["delivery_receipts"], true);
    let first = wait_until("a receipt", PATIENCE, || {
        Some(deliver("{\"a\": 1}")).filter(|it| !receipt(&setting, it).is_empty())
    });
    let deliveries = [first, deliver("{\"b\": 2}"), deliver("{\"c\": 3}")];
    let receipts = deliveries.each_ref().map(|it| receipt(&setting, it));

    let ca = setting.folder.join("agents.pem");
    let page = http_get::get(setting.control_plane.listeners().http, "/trust/agents.pem");
    let pem = String::from_utf8(page.unwrap().body).unwrap();
    fs::write(&ca, &pem).unwrap();
    independent_libraries_agree(&pem, &receipts, &deliveries[0], &destination);

    let folder = &setting.folder;
    let whole = verify(folder, &ca, &receipts.join("\n"), &["--json"]);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let findings: Vec<Value> = whole
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(findings.len(), 3);
    assert!(
        findings.iter().all(|it| it["genuine"] == true),
        "{findings:?}"
    );
    assert!(
        findings
            .windows(2)
            .all(|it| it[0]["chain"] == it[1]["chain"])
    );
    // As grpcurl prints it, too.
    let from_list = verify(
        folder,
        &ca,
        &attempts(&setting, &deliveries[0]).to_string(),
        &[],
    );
    assert_eq!(from_list.status.code(), Some(0), "{from_list:?}");
    assert!(from_list.stdout.contains("1 of 1 genuine"), "{from_list:?}");
    let gap = verify(
        folder,
        &ca,
        &format!("{}\n{}", receipts[0], receipts[2]),
        &[],
    );
    assert_eq!(gap.status.code(), Some(0), "{gap:?}");
    assert!(gap.stdout.contains("not here: "), "{gap:?}");

    forgeries_are_found_out(folder, &ca, &receipts);

    agent.kill9();
    agent.restart();
    let later = receipt(&setting, &deliver("{}"));
    let both = verify(
        folder,
        &ca,
        &format!("{}\n{later}", receipts.join("\n")),
        &["--json"],
    );
    assert_eq!(both.status.code(), Some(0), "{both:?}");
    let last: Value = serde_json::from_str(both.stdout.lines().last().unwrap()).unwrap();
    assert_ne!(last["chain"], findings[0]["chain"]);
    assert_eq!(last["sequence"], 1);
}

fn independent_libraries_agree(
    pem: &str,
    receipts: &[String; 3],
    delivery: &str,
    destination: &str,
) {
    let question = json!({"receipts": receipts, "authority": pem});
    let answers = judge("verify_receipt.py", &question);
    for (place, answer) in answers.as_array().unwrap().iter().enumerate() {
        assert_eq!(answer["error"], Value::Null, "{answer}");
        assert_eq!(answer["header"]["alg"], "ES256");
        if let Some(before) = place.checked_sub(1) {
            let link = hex(&sha256(receipts[before].as_bytes()));
            assert_eq!(answer["content"]["previous_sha256"], link);
        }
    }
    let said = &answers[0]["content"];
    assert_eq!(said["agent"], "agents/edge-1");
    assert_eq!(said["destination"], destination);
    assert_eq!(said["delivery"], delivery.rsplit('/').next().unwrap());
    assert_eq!(said["class"], "DELIVERED");
    assert_eq!(said["payload_sha256"], hex(&sha256(b"{\"a\": 1}")));
    let url = said["url"].as_str().unwrap();
    assert!(url.ends_with("/hooks"), "the query may be secret: {url}");
}

fn forgeries_are_found_out(folder: &Path, ca: &Path, receipts: &[String; 3]) {
    let refused = |input: &str, why: &str| {
        let finished = verify(folder, ca, input, &[]);
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert!(finished.stdout.contains("NOT GENUINE"), "{finished:?}");
        assert!(finished.stdout.contains(why), "{why}: {finished:?}");
    };
    let parts: Vec<&str> = receipts[0].split('.').collect();
    let content = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let with = |content: &str| {
        let content = URL_SAFE_NO_PAD.encode(content);
        format!("{}.{content}.{}", parts[0], parts[2])
    };
    refused(
        &with(&content.replace("DELIVERED", "HTTP_GONE")),
        "signature is not right",
    );
    refused(
        &with(&content.replace("edge-1", "edge-2")),
        "and its certificate is that of",
    );
    refused(
        &with(&content.replace("\"started_at\":\"20", "\"started_at\":\"29")),
        "for that time",
    );
    let other: Vec<&str> = receipts[1].split('.').collect();
    refused(
        &format!("{}.{}.{}", parts[0], parts[1], other[2]),
        "signature is not right",
    );
    refused("hello", "compact form");

    // Another authority's certificate says whatever it likes.
    let stranger = Authority::new("Countersign Agents");
    let leaf = stranger.client("edge-1", "spiffe://countersign.internal/agents/edge-1", NOW);
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
    let mut header: Value = serde_json::from_str(&header).unwrap();
    let der: String = leaf
        .pem()
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    header["x5c"] = json!([der]);
    let forged = URL_SAFE_NO_PAD.encode(header.to_string());
    refused(
        &format!("{forged}.{}.{}", parts[1], parts[2]),
        "agents' authority",
    );

    let nothing = verify(folder, ca, "{}", &[]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    assert!(nothing.stderr.contains("delivery_receipts"), "{nothing:?}");
}
