//! A configuration file with five mistakes is told all five, and nothing is started or written; nor is anything with
//! a secret in the environment.

use std::{fs, path::Path, process::Command};

use countersign_tests::{folder::Folder, process::run, tools};

const CONTROL_PLANE: &str = r#"
[listen]
api = "localhost"
agnets = "127.0.0.1:8444"
[delivery]
lease_seconds = 100000
max_payload_bytes = -1
[log]
format = "xml"
"#;

const AGENT: &str = r#"
[listen]
http = "nowhere"
[delivery]
max_jobs = -1
max_bytez = 1
[log]
format = "xml"
[shutdown]
deadline_seconds = "soon"
"#;

fn check(story: &str, subcommand: &[&str], toml: &str, settings: [&str; 5]) {
    let folder = Folder::new(story);
    let data_dir = folder.join("data");
    let finished = checked(subcommand, &folder, toml);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    let output = finished.all();
    assert!(output.contains("5 mistakes"), "{output}");
    for setting in settings {
        let lines = output.lines().filter(|line| line.contains(setting));
        assert_eq!(lines.count(), 1, "{setting} is not named once:\n{output}");
    }
    assert!(!data_dir.exists(), "--check made the data directory");
    // Without --check it does not start either.
    let finished = run(&mut command(subcommand, &folder), &[]);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(finished.all().contains("5 mistakes"), "{finished:?}");
    assert!(
        !data_dir.exists(),
        "a wrong configuration made the data directory"
    );
}

fn command(subcommand: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(tools::countersign());
    command.args(subcommand);
    command.arg("--data-dir").arg(folder.join("data"));
    command.arg("--config").arg(folder.join("countersign.toml"));
    command
}

fn checked(subcommand: &[&str], folder: &Path, toml: &str) -> countersign_tests::process::Finished {
    fs::write(folder.join("countersign.toml"), toml).unwrap();
    run(command(subcommand, folder).arg("--check"), &[])
}

#[test]
fn of_the_control_plane() {
    let settings = [
        "listen.api",
        "listen.agnets",
        "delivery.lease_seconds",
        "delivery.max_payload_bytes",
        "log.format",
    ];
    check(
        "mistakes-control-plane",
        &["control-plane"],
        CONTROL_PLANE,
        settings,
    );
}

#[test]
fn of_an_agent() {
    let settings = [
        "listen.http",
        "delivery.max_jobs",
        "delivery.max_bytez",
        "log.format",
        "shutdown.deadline_seconds",
    ];
    check("mistakes-agent", &["agent", "run"], AGENT, settings);
}

#[test]
fn a_right_one_passes_the_check_and_starts_nothing() {
    let folder = Folder::new("no-mistakes");
    let toml = "[delivery]\nlease_seconds = 30\n[log]\nformat = \"json\"\n";
    let finished = checked(&["control-plane"], &folder, toml);
    assert!(finished.status.success(), "{finished:?}");
    assert!(
        !folder.join("data").exists(),
        "--check made the data directory"
    );
}

#[test]
fn a_secret_in_the_environment_is_refused() {
    let folder = Folder::new("environment");
    let data_dir = folder.join("data");
    for (subcommand, name) in [
        (["control-plane", "--check"], "COUNTERSIGN_ADMIN_KEY"),
        (["agent", "run"], "COUNTERSIGN_JOIN_TOKEN"),
    ] {
        let mut command = Command::new(tools::countersign());
        command.args(subcommand).arg("--data-dir").arg(&data_dir);
        let finished = run(command.env(name, "hunter2"), &[]);
        assert_eq!(finished.status.code(), Some(2), "{finished:?}");
        let said = finished.all();
        assert!(said.contains(name) && said.contains("/proc"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert!(!data_dir.exists(), "something was made");

    // PostgreSQL's own variable only where there is a server that it could be for.
    let config = folder.join("countersign.toml");
    for (toml, refused) in [
        ("", false),
        ("store.url = 'postgres://127.0.0.1:1/x'", true),
    ] {
        fs::write(&config, toml).unwrap();
        let mut command = Command::new(tools::countersign());
        command.args(["store", "check", "--config"]).arg(&config);
        let said = run(command.env("PGPASSWORD", "hunter2"), &[]).all();
        assert_eq!(said.contains("PGPASSWORD"), refused, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
