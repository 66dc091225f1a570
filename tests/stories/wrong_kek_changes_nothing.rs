//! A control plane with another KEK, or none, does not start, says why, and leaves every file as it
//! was. With its own KEK put back it goes on.

use std::{collections::BTreeMap, fs, path::PathBuf};

use countersign_shared::{digest::hex, digest::sha256, files::replace_private};
use countersign_tests::{
    control_plane::{ControlPlane, command},
    folder::Folder,
    ports::free_port,
    process::{Finished, run},
    scanner::files_below,
    setting::Setting,
};
use serde_json::json;

/// Every file of the data directory with its hash, but for two that hold nothing: SQLite's `-shm`,
/// which is shared memory and made anew by whoever opens the store, and an empty `-wal`.
fn files(control_plane: &ControlPlane) -> BTreeMap<PathBuf, String> {
    let paths = files_below(&control_plane.data_dir());
    let contents = paths.into_iter().filter_map(|path| {
        let content = fs::read(&path).unwrap();
        let name = path.to_string_lossy().into_owned();
        let holds_nothing = name.ends_with("-shm") || name.ends_with("-wal") && content.is_empty();
        (!holds_nothing).then(|| (path, hex(&sha256(&content))))
    });
    contents.collect()
}

fn try_to_start(setting: &Setting) -> Finished {
    run(&mut command(&setting.folder, free_port(), "info"), &[])
}

fn assert_refused(finished: &Finished) {
    assert!(
        finished.status.code().is_some_and(|code| code != 0),
        "{finished:?}"
    );
    let output = finished.all();
    assert!(
        output.to_lowercase().contains("kek"),
        "does not speak of the KEK: {output}"
    );
    assert!(!output.contains("panicked"), "{output}");
}

#[test]
fn only_its_own_kek_starts_it() {
    let mut setting = Setting::new("wrong-kek");
    let account = setting.account("acme");
    setting.control_plane.stop();
    let kek = setting.control_plane.data_dir().join("kek");
    let own = fs::read(&kek).unwrap();

    let elsewhere = Folder::new("another-kek");
    let another = ControlPlane::start(&elsewhere, "");
    let other = fs::read(another.data_dir().join("kek")).unwrap();
    assert_ne!(own, other);

    replace_private(&kek, &other).unwrap();
    let before = files(&setting.control_plane);
    assert_refused(&try_to_start(&setting));
    assert_eq!(files(&setting.control_plane), before);

    // Not even a new one is made in its place: it could open nothing.
    fs::remove_file(&kek).unwrap();
    let before = files(&setting.control_plane);
    assert_refused(&try_to_start(&setting));
    assert_eq!(files(&setting.control_plane), before);

    replace_private(&kek, &own).unwrap();
    setting.control_plane.restart();
    let answer = setting
        .api()
        .ok("AccountService/GetAccount", &json!({"name": account}));
    assert_eq!(answer["account"]["name"], "accounts/acme");
}
