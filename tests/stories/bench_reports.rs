//! `countersign bench --json`: a short run at a low rate loses nothing and says what it cost, every
//! number by its name; and nothing is left running.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, process::Command};

use countersign_tests::{
    folder::Folder,
    process::{Finished, run, wait_until_gone},
    tools,
};
use serde_json::Value;

/// Runs it with `flags`; its temporary directory goes into `folder`.
fn bench(folder: &Folder, flags: &[&str]) -> Finished {
    let mark = folder.display().to_string();
    let mut command = Command::new(tools::countersign());
    command
        .arg("bench")
        .args(flags)
        .env("TMPDIR", &mark)
        .env("COUNTERSIGN_TESTS_BENCH", &mark);
    let finished = run(&mut command, &[]);
    wait_until_gone("COUNTERSIGN_TESTS_BENCH", &mark);
    let left: Vec<_> = folder.read_dir().unwrap().map(|it| it.unwrap()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    finished
}

/// The number at a path such as `latency_ms.accept_to_received.p50`.
fn number(report: &Value, path: &str) -> f64 {
    let pointer = format!("/{}", path.replace('.', "/"));
    let found = report.pointer(&pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("{path} is not a number: {report}"))
}

#[test]
fn a_short_run_loses_nothing_and_says_what_it_cost() {
    let folder = Folder::new("bench");
    let flags = "--json --rate 25 --duration 2 --warm-up 1 --destinations 4 --accounts 2 \
        --agents 2 --payload 300 --bare-concurrency 2";
    let flags: Vec<&str> = flags.split(' ').collect();
    let finished = bench(&folder, &flags);
    assert!(finished.status.success(), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {finished:?}"));

    for (member, expected) in [
        ("accepted", 50),
        ("delivered", 50),
        ("lost", 0),
        ("unsettled", 0),
        ("refused", 0),
    ] {
        assert_eq!(report[member], expected, "{member}: {report}");
    }
    // A retry after a pause of the machine is allowed, but it is counted.
    assert!(report["duplicates"].is_u64(), "{report}");
    for path in [
        "accepted_per_second",
        "delivered_per_second",
        "cpu_ratio",
        "cpu_us_per_delivery.control_plane",
        "cpu_us_per_delivery.agent",
        "cpu_us_per_delivery.bare_client",
        "bytes_written_per_delivery.control_plane",
        "peak_rss_bytes.control_plane",
        "peak_rss_bytes.agent",
        "bare_client.posts_per_second",
        "machine.cores",
    ] {
        assert!(number(&report, path) > 0.0, "{path}: {report}");
    }
    for path in [
        "cpu_us_per_delivery.generator",
        "cpu_us_per_delivery.receiver",
        "bytes_written_per_delivery.agent",
        "drain_seconds",
    ] {
        assert!(number(&report, path) >= 0.0, "{path}: {report}");
    }
    assert_eq!(report["cpu_us_per_delivery"]["store_server"], Value::Null);
    percentiles_rise(&report);
    assert_eq!(report["options"]["payload"], 300);
    assert_eq!(report["options"]["accounts"], 2);
    assert_eq!(report["options"]["agents"], 2);
}

#[test]
fn a_run_on_a_server_says_what_that_cost() {
    let folder = Folder::new("bench-pg");
    // The server runs as another user, who has to get at its own folder in there.
    std::fs::set_permissions(&*folder, Permissions::from_mode(0o711)).unwrap();
    let flags = "--json --store postgres --control-planes 2 --agents 2 --rate 50 --duration 2 \
        --warm-up 1 --destinations 4 --bare-concurrency 2";
    let flags: Vec<&str> = flags.split(' ').filter(|flag| !flag.is_empty()).collect();
    let finished = bench(&folder, &flags);
    assert!(finished.status.success(), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {finished:?}"));
    assert_eq!(
        (&report["delivered"], &report["lost"]),
        (&100.into(), &0.into()),
        "{report}"
    );
    assert!(
        number(&report, "cpu_us_per_delivery.store_server") > 0.0,
        "{report}"
    );
    let alone = bench(&folder, &["--control-planes", "2"]);
    assert!(alone.stderr.contains("--store postgres"), "{alone:?}");
}

#[test]
fn idle_agents_come_back_after_a_kill() {
    let folder = Folder::new("bench-sessions");
    let finished = bench(
        &folder,
        &["sessions", "--count", "5", "--idle", "1", "--json"],
    );
    assert!(finished.status.success(), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {finished:?}"));
    for path in [
        "peak_rss_bytes",
        "all_back_after_seconds",
        "slowest_submission_ms",
    ] {
        assert!(number(&report, path) > 0.0, "{path}: {report}");
    }
    assert!(number(&report, "idle_cpu") >= 0.0, "{report}");
}

fn percentiles_rise(report: &Value) {
    for latency in [
        "submit_to_accepted",
        "accept_to_received",
        "submit_to_received",
        "accept_to_settled",
    ] {
        let at = |name: &str| number(report, &format!("latency_ms.{latency}.{name}"));
        let values = ["p50", "p90", "p99", "p999", "max"].map(at);
        assert!(values.is_sorted(), "{latency}: {values:?}");
        assert!(values[0] >= 0.0 && values[4] > 0.0, "{latency}: {values:?}");
    }
}

#[test]
fn a_directory_with_something_in_it_is_refused() {
    let folder = Folder::new("bench-full");
    let data_dir = folder.subfolder("data");
    std::fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).unwrap();
    std::fs::write(data_dir.join("mine"), "x").unwrap();
    let mut command = Command::new(tools::countersign());
    command.args(["bench", "--data-dir"]).arg(&data_dir);
    let finished = run(&mut command, &[]);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("not empty"), "{finished:?}");
    assert_eq!(std::fs::read(data_dir.join("mine")).unwrap(), b"x");
}

#[test]
fn a_backlog_is_accepted_and_goes_out_after_a_kill() {
    let folder = Folder::new("bench-backlog");
    let flags = "backlog --json --count 20000 --destinations 4 --payload 64";
    let flags: Vec<&str> = flags.split(' ').collect();
    let finished = bench(&folder, &flags);
    assert!(finished.status.success(), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("not one JSON object ({error}): {finished:?}"));
    assert_eq!(report["pending"], 20_000, "{report}");
    for path in [
        "peak_rss_bytes",
        "store_bytes",
        "listening_after_ms",
        "first_delivered_after_ms",
        "restarted_peak_rss_bytes",
    ] {
        assert!(number(&report, path) > 0.0, "{path}: {report}");
    }
}
