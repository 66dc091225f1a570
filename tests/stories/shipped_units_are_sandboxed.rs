//! The systemd units that are shipped give the services no more than they need, as systemd itself judges it:
//! an exposure of at most 1.5 of 10. Neither has a secret in its environment or arguments.

use std::{fs, process::Command};

use countersign_tests::{process::run, tools};

/// Tenths.
const MOST_EXPOSURE: &str = "--threshold=15";

#[test]
fn systemd_finds_little_to_say_against_them() {
    for name in [
        "countersign-control-plane.service",
        "countersign-agent.service",
    ] {
        let unit = tools::project().join("deploy").join(name);
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--no-pager", "--offline=true", MOST_EXPOSURE]);
        let judged = run(analyze.arg(&unit), b"");
        assert!(judged.status.success(), "{name}: {judged:?}");
        assert!(
            judged.all().contains("Overall exposure level"),
            "{name}: {judged:?}"
        );

        let text = fs::read_to_string(&unit).unwrap();
        let settings = text.lines().filter(|line| !line.starts_with('#'));
        for setting in settings {
            assert!(!setting.starts_with("Environment"), "{name}: {setting}");
            assert!(!setting.starts_with("User=root"), "{name}: {setting}");
        }
        assert!(
            text.contains("\nUser=countersign\n"),
            "{name}: a user of its own"
        );
    }
}
