//! `countersign dev --story rotation` and `ca-rotation`: certificates and the authority behind them are
//! replaced while deliveries flow, a receiver refuses one and changes its mind, and no attempt fails.

use std::{process::Command, time::Duration};

use countersign_tests::{
    folder::Folder,
    process::{Process, wait_until_gone},
    tools,
    wait::wait_until,
};
use serde_json::Value;

/// A story lasts 50 seconds; a busy machine may take longer.
const STORY: Duration = Duration::from_secs(180);

/// Plays a story to its end; its summary, and all that it told.
fn play(arguments: &[&str]) -> (Value, String) {
    let folder = Folder::new("dev-story");
    let mark = folder.display().to_string();
    let mut command = Command::new(tools::countersign());
    command
        .args(["dev", "--json", "--data-dir"])
        .arg(folder.join("data"))
        .args(arguments)
        .env("COUNTERSIGN_TESTS_DEV_STORY", &mark);
    let mut process = Process::start(command, "story", &folder);
    let ended = wait_until("the end of the story", STORY, || process.ended());
    let told = process.output();
    assert!(ended.success(), "{told}");
    wait_until_gone("COUNTERSIGN_TESTS_DEV_STORY", &mark);
    let summary = told.lines().find(|line| line.starts_with('{'));
    let summary = summary.unwrap_or_else(|| panic!("no summary: {told}"));
    (serde_json::from_str(summary).unwrap(), told)
}

/// Whatever was accepted was delivered by its first attempt, and the receiver says the same.
fn kept(summary: &Value) {
    let deliveries = &summary["deliveries"];
    let accepted = deliveries["accepted"].as_u64().unwrap();
    assert!(accepted > 100, "{summary}");
    for count in ["delivered", "attempts"] {
        assert_eq!(deliveries[count], accepted, "{count}: {summary}");
    }
    assert_eq!(deliveries["failed_attempts"], serde_json::json!({}));
    assert_eq!(summary["received"]["webhooks"], accepted);
    assert_eq!(summary["received"]["unverified"], 0);
    let used = summary["certificates"].as_array().unwrap();
    let carried = used.iter().map(|it| it["webhooks"].as_u64().unwrap());
    let all = accepted + summary["received"]["repeated"].as_u64().unwrap();
    assert_eq!(carried.sum::<u64>(), all, "{summary}");
    assert_eq!(summary["broken"], serde_json::json!([]));
    assert_eq!(summary["kept"], true);
}

fn versions(summary: &Value) -> Vec<i64> {
    let used = summary["certificates"].as_array().unwrap().iter();
    used.map(|it| it["version"].as_i64().unwrap()).collect()
}

#[test]
fn four_certificates_and_a_stubborn_receiver() {
    let (summary, told) = play(&["--story", "rotation", "--life", "30"]);
    kept(&summary);
    assert_eq!(versions(&summary), [1, 2, 3, 4]);
    // The receiver refused the fourth within a delivery, which the third carried.
    assert!(summary["deliveries"]["fallbacks"].as_u64().unwrap() >= 1);
    assert!(summary["received"]["refused_connections"].as_u64().unwrap() >= 1);
    for expected in ["ALERT ROTATION_HELD_UP", "ROTATION_HELD_UP is resolved"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn two_generations_of_an_authority() {
    let (summary, told) = play(&["--story", "ca-rotation"]);
    kept(&summary);
    assert_eq!(versions(&summary), [1, 2]);
    let used = summary["certificates"].as_array().unwrap();
    let issuers: Vec<_> = used
        .iter()
        .map(|it| it["issuer"].as_str().unwrap())
        .collect();
    assert!(
        issuers[0].ends_with(" G1") && issuers[1].ends_with(" G2"),
        "{issuers:?}"
    );
    for expected in ["PROBED_REFUSED", "PROBED_OK", "AdvanceRotation is refused"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}
