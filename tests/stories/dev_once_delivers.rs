//! `countersign dev --once --json`: one command, a delivery over mutual TLS, a report for programs,
//! and nothing left running.

use std::process::Command;

use countersign_tests::{
    folder::Folder,
    process::{run, wait_until_gone},
    tools,
};
use serde_json::Value;

#[test]
fn one_command_proves_a_delivery() {
    let folder = Folder::new("dev");
    let mark = folder.display().to_string();
    let mut command = Command::new(tools::countersign());
    command.args(["dev", "--once", "--json"]);
    // Its temporary directory goes there, and its children carry the mark.
    command
        .env("TMPDIR", &mark)
        .env("COUNTERSIGN_TESTS_DEV", &mark);
    let finished = run(&mut command, &[]);
    assert!(finished.status.success(), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {finished:?}"));

    assert_eq!(report["delivered"], true, "{report}");
    assert_eq!(report["class"], "DELIVERED");
    assert_eq!(report["client_certificate_requested"], true);
    assert_eq!(report["tls_version"], "TLSv1.3");
    assert_eq!(report["signature_verified_by_receiver"], true);
    let serial = report["client_certificate_serial"].as_str().unwrap();
    assert!(
        !serial.is_empty() && serial.chars().all(|c| c.is_ascii_hexdigit()),
        "{report}"
    );
    let took = report["accepted_to_received_ms"].as_f64().unwrap();
    assert!((0.0..30_000.0).contains(&took), "{report}");
    for address in ["api", "agents", "http"] {
        let text = report[address].as_str().unwrap();
        let port = text.rsplit(':').next().unwrap().parse::<u16>();
        assert!(port.is_ok_and(|port| port > 0), "{address}: {text}");
    }
    for file in ["ca_file", "key_file"] {
        assert!(!report[file].as_str().unwrap().is_empty(), "{report}");
    }

    wait_until_gone("COUNTERSIGN_TESTS_DEV", &mark);
    let left: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
