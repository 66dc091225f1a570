//! Changes, secrets handed out and refused calls are on record, with who, what and from where; what fails
//! leaves nothing. The log hangs together over a kill and by a judge that is not ours, and a record that
//! somebody edits in the database is found. No secret is in it.

use std::{collections::HashMap, process::Command};

use countersign_proto::v1::{ExportAuditLogRequest, audit_service_client::AuditServiceClient};
use countersign_tests::{
    client::channel,
    grpcurl::Grpcurl,
    process::run,
    python::judge,
    scanner::Scanner,
    setting::Setting,
    times::seconds,
    tools,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::Request;

fn list(api: &Grpcurl, filter: &Value) -> Vec<Value> {
    let mut request = filter.clone();
    request["page_size"] = json!(1000);
    let answer = api.ok("AuditService/ListAuditEvents", &request);
    answer["events"].as_array().cloned().unwrap_or_default()
}

fn verify(api: &Grpcurl) -> Value {
    api.ok("AuditService/VerifyAuditLog", &json!({}))
}

/// Where a resource was something else before a change than it was after the change before.
fn hashes_that_do_not_follow(events: &[Value]) -> Vec<String> {
    let mut last: HashMap<&str, &Value> = HashMap::new();
    let mut found = Vec::new();
    for event in events {
        for change in event["changes"].as_array().into_iter().flatten() {
            let resource = change["resource"].as_str().unwrap();
            if last
                .get(resource)
                .is_some_and(|last| **last != change["before_sha256"])
            {
                found.push(format!("{resource}: {event}"));
            }
            last.insert(resource, &change["after_sha256"]);
        }
    }
    found
}

/// The log as the command judges it.
fn verify_offline(lines: &str, more: &[&str]) -> (bool, Value) {
    let mut command = Command::new(tools::countersign());
    command.args(["verify-audit-log", "--json"]).args(more);
    let finished = run(&mut command, lines.as_bytes());
    let told = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
    (finished.status.success(), told)
}

fn export(api: &Grpcurl, request: &Value) -> String {
    let parts = api.stream("AuditService/ExportAuditLog", request).unwrap();
    let lines = parts
        .iter()
        .flat_map(|part| part["lines"].as_array().unwrap());
    lines
        .map(|line| format!("{}\n", line.as_str().unwrap()))
        .collect()
}

#[test]
fn every_change_and_refusal_is_on_record_and_edits_are_found() {
    let mut setting = Setting::new("audit");
    let api = setting.api();
    let account = setting.account("acme");
    let url = "https://receiver.example/hooks";
    let destination = setting.destination(&account, "orders", url, "");
    let token = setting.join_token("edge");
    let wanted = json!({"roles": ["ROLE_AUDITOR"], "all_accounts": true});
    let made = api.ok("AccessService/CreateApiKey", &json!({"api_key": wanted}));
    let (auditor_name, key) = (&made["api_key"]["name"], made["key"].as_str().unwrap());
    let auditor = setting.control_plane.anonymous_api().with_key(key);

    // A change names what is changed, and what was made.
    let created = list(
        &auditor,
        &json!({"method": "DestinationService/CreateDestination"}),
    );
    let event = created.last().expect("it is on record");
    assert_eq!(event["kind"], "AUDIT_KIND_CHANGE");
    assert!(event["principal"].as_str().unwrap().starts_with("apiKeys/"));
    assert_eq!(event["address"], "127.0.0.1");
    assert_eq!(event["resources"], json!([account, destination]));
    let keys = list(&auditor, &json!({"method": "AccessService/CreateApiKey"}));
    assert_eq!(&keys[0]["resources"][0], auditor_name);
    let below = list(&auditor, &json!({"resource": account}));
    for method in [
        "AccountService/CreateAccount",
        "DestinationService/CreateDestination",
    ] {
        assert!(below.iter().any(|it| it["method"] == method), "{below:?}");
    }

    // It tells what the resources were before and after, so that what others do to the store shows.
    let made = |event: &Value, resource: &Value| {
        let changes = event["changes"].as_array().unwrap();
        let made = changes.iter().find(|it| &it["resource"] == resource);
        made.unwrap_or_else(|| panic!("{resource}: {event}"))
            .clone()
    };
    let born = made(event, &json!(destination));
    assert_eq!(born["before_sha256"], "");
    assert_eq!(born["after_sha256"].as_str().unwrap().len(), 64);
    let renamed = json!({"destination": {"name": destination, "display_name": "Orders"}});
    api.ok("DestinationService/UpdateDestination", &renamed);
    let all = list(&auditor, &json!({"resource": destination}));
    let mut updates = all
        .iter()
        .filter(|it| it["method"] == "DestinationService/UpdateDestination");
    let updated = made(updates.next_back().unwrap(), &json!(destination));
    assert_ne!(updated["before_sha256"], updated["after_sha256"]);
    assert_eq!(hashes_that_do_not_follow(&all), Vec::<String>::new());

    // What fails, and what only reads, is not.
    let count = list(&auditor, &json!({"kind": "AUDIT_KIND_CHANGE"})).len();
    let again = json!({"account_id": "acme"});
    api.refused("AccountService/CreateAccount", &again);
    api.ok("AccountService/GetAccount", &json!({"name": account}));
    let after = list(&auditor, &json!({"kind": "AUDIT_KIND_CHANGE"}));
    let more = after[count..]
        .iter()
        .filter(|it| it["method"] == "AccountService/CreateAccount");
    // The serial numbers that it took are spent, which is a change.
    assert!(
        more.clone().all(|it| it["changed_rows"] == "3"),
        "{after:?}"
    );

    // A secret that is handed out.
    let secret = json!({"name": format!("{destination}/signingSecrets/-")});
    let revealed = api.ok("DestinationService/RevealSigningSecret", &secret);
    let disclosed = list(&auditor, &json!({"kind": "AUDIT_KIND_DISCLOSURE"}));
    assert_eq!(disclosed.len(), 1);
    let revealing = json!({"method": "DestinationService/RevealSigningSecret"});
    assert_eq!(
        list(&auditor, &revealing).len(),
        1,
        "and it changes nothing"
    );
    assert_eq!(disclosed[0]["resources"][0], secret["name"]);

    // Refused calls: by role, without a key, and with a wrong token.
    auditor.refused("AccountService/DeleteAccount", &json!({"name": account}));
    for _ in 0..3 {
        let nobody = setting.control_plane.anonymous_api();
        nobody.refused("AccountService/ListAccounts", &json!({}));
    }
    let refused = wait_until("refusals to be on record", PATIENCE, || {
        let all = list(&auditor, &json!({"kind": "AUDIT_KIND_REFUSAL"}));
        let calls = all
            .iter()
            .map(|it| it["count"].as_str().unwrap().parse::<u32>().unwrap());
        (calls.sum::<u32>() == 4).then_some(all)
    });
    let by_role = refused
        .iter()
        .find(|it| it["reason"] == "ROLE_REFUSED")
        .unwrap();
    assert_eq!(&by_role["principal"], auditor_name);
    assert_eq!(by_role["method"], "AccountService/DeleteAccount");
    let sender = json!({"roles": ["ROLE_SENDER"], "accounts": [account]});
    let sender = api.ok("AccessService/CreateApiKey", &json!({"api_key": sender}));
    let sender = sender["key"].as_str().unwrap();
    let sender = setting.control_plane.anonymous_api().with_key(sender);
    sender.refused("AuditService/ListAuditEvents", &json!({}));

    // A kill takes nothing away, and a stop signs what there is.
    let before = list(&auditor, &json!({})).len();
    setting.control_plane.kill9();
    setting.control_plane.restart();
    let auditor = setting.control_plane.anonymous_api().with_key(key);
    assert!(list(&auditor, &json!({})).len() >= before);
    setting.control_plane.stop();
    setting.control_plane.restart();
    let auditor = setting.control_plane.anonymous_api().with_key(key);
    let found = verify(&auditor);
    assert_eq!(found["intact"], true, "{found}");
    assert!(
        found["checkpoints"]
            .as_str()
            .unwrap()
            .parse::<u32>()
            .unwrap()
            > 0,
        "{found}"
    );

    // Judged by others.
    let events = list(&auditor, &json!({}));
    let signed = auditor.ok("AuditService/ListAuditCheckpoints", &json!({}));
    let checkpoints = signed["checkpoints"].as_array().unwrap();
    let times: serde_json::Map<String, Value> = checkpoints
        .iter()
        .map(|it| {
            let sequence = it["sequence"].as_str().unwrap().to_owned();
            (
                sequence,
                json!((seconds(it["sign_time"].as_str().unwrap()) * 1e6).round() as i64),
            )
        })
        .collect();
    let question = json!({
        "events": events,
        "checkpoints": checkpoints,
        "public_key": signed["public_key"],
        "sign_micros": times,
    });
    let verdict = judge("audit_log.py", &question);
    assert_eq!(verdict["wrong"], json!([]), "{verdict}");
    assert!(verdict["signatures"].as_u64().unwrap() > 0, "{verdict}");

    // As lines in a file, which need nobody to be verified.
    let lines = export(&auditor, &json!({}));
    let (good, told) = verify_offline(&lines, &[]);
    assert!(good, "{told}");
    assert!(
        told["records"].as_u64().unwrap() >= events.len() as u64,
        "{told}"
    );
    assert!(told["signatures"].as_u64().unwrap() > 0, "{told}");
    let public_key = told["public_key"].as_str().unwrap();
    let (good, _) = verify_offline(&lines, &["--public-key", public_key]);
    assert!(good);
    let (good, told) = verify_offline(&lines, &["--public-key", &"07".repeat(32)]);
    assert!(!good, "{told}");
    let edited = lines.replacen("CreateDestination", "DeleteDestination", 1);
    let (good, told) = verify_offline(&edited, &[]);
    assert!(!good, "{told}");
    assert!(
        told["problem"]
            .as_str()
            .unwrap()
            .contains("not what was written"),
        "{told}"
    );
    let rest = export(&auditor, &json!({"after_sequence": 5}));
    let (good, told) = verify_offline(&rest, &[]);
    assert!(good && told["began_after"] == 5, "{told}");
    auditor.refused(
        "AuditService/ExportAuditLog",
        &json!({"after_sequence": 1_000_000}),
    );

    let mut scanner = Scanner::for_private_keys();
    scanner.text(
        "signing secret",
        revealed["signing_secret"].as_str().unwrap(),
    );
    scanner.text("join token", token.trim());
    scanner.text("API key", key);
    scanner.text("administrator's key", &setting.control_plane.admin_key());
    assert_eq!(scanner.find(lines.as_bytes()), Vec::<&str>::new());

    // Somebody edits a record, and then cuts the end off.
    setting.control_plane.stop();
    let store = setting.control_plane.data_dir().join("store.sqlite");
    let edit = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute(sys.argv[2])
db.commit()
";
    let sqlite = |statement: &str| {
        let mut python = Command::new(tools::python());
        python.args(["-c", edit]).arg(&store).arg(statement);
        let finished = run(&mut python, b"");
        assert!(finished.status.success(), "{finished:?}");
    };
    sqlite(
        "UPDATE audit_log SET line = replace(line, 'CreateAccount', 'ListAccounts') WHERE sequence = 3",
    );
    setting.control_plane.restart();
    let auditor = setting.control_plane.anonymous_api().with_key(key);
    let found = verify(&auditor);
    assert_ne!(found["intact"], true, "{found}");
    assert_eq!(found["broken_sequence"], "3", "{found}");
    assert_eq!(found["events"], "2", "{found}");
    setting.control_plane.stop();
    sqlite(
        "UPDATE audit_log SET line = replace(line, 'ListAccounts', 'CreateAccount') WHERE sequence = 3",
    );
    sqlite("DELETE FROM audit_log WHERE sequence > 4");
    setting.control_plane.restart();
    let auditor = setting.control_plane.anonymous_api().with_key(key);
    let found = verify(&auditor);
    assert_ne!(found["intact"], true, "{found}");
    assert_eq!(found["broken_sequence"], "5", "{found}");
}

/// A change is told to whoever follows the log, as a line that verifies after those before it.
#[test]
fn who_follows_the_log_hears_of_each_change() {
    let setting = Setting::new("audit-follow");
    setting.account("acme");
    let (listeners, ca_file) = (
        setting.control_plane.listeners(),
        setting.control_plane.ca_file(),
    );
    let key = setting.control_plane.admin_key();
    let runtime = Runtime::new().unwrap();
    let heard = runtime.block_on(async {
        let channel = channel(listeners.api, &ca_file, None).await.unwrap();
        let mut request = Request::new(ExportAuditLogRequest {
            after_sequence: 0,
            follow: true,
        });
        let bearer = format!("Bearer {key}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let mut client = AuditServiceClient::new(channel);
        let mut parts = client.export_audit_log(request).await.unwrap().into_inner();
        let mut lines = Vec::new();
        let mut changed = false;
        while !lines
            .iter()
            .any(|line: &String| line.contains("accounts/globex"))
        {
            lines.extend(parts.message().await.unwrap().unwrap().lines);
            if !changed {
                assert!(lines.iter().any(|line| line.contains("accounts/acme")));
                setting.account("globex");
                changed = true;
            }
        }
        lines
    });
    let lines: String = heard.iter().map(|line| format!("{line}\n")).collect();
    let (good, told) = verify_offline(&lines, &[]);
    assert!(good && told["began_after"] == 0, "{told}");
}
