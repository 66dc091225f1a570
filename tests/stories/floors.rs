//! Imports point down only: between the crates, and between the modules inside each. And the checker
//! that says so sees what it should.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use countersign_tests::{
    floors::{crate_violations, declared, modules, violations},
    sources::{references, test_modules},
    tools,
};

const CRATES: [&[&str]; 5] = [
    &["countersign-proto"],
    &["countersign-shared"],
    &["countersign-control-plane", "countersign-agent"],
    &["countersign"],
    &["countersign-tests"],
];

#[test]
fn crates_depend_only_on_lower_ones() {
    let project = tools::project();
    let folders = [
        ("countersign-proto", "proto"),
        ("countersign-shared", "shared"),
        ("countersign-control-plane", "control-plane"),
        ("countersign-agent", "agent"),
        ("countersign", "cli"),
        ("countersign-tests", "tests"),
    ];
    let manifests = folders.map(|(name, folder)| {
        let path = project.join(folder).join("Cargo.toml");
        (name, fs::read_to_string(path).unwrap())
    });
    let wrong = crate_violations(&CRATES, &manifests);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// One crate's modules keep to the floors that its root file tells.
fn check(root: &str) {
    let path = tools::project().join(root);
    let floors = declared(&fs::read_to_string(&path).unwrap())
        .unwrap_or_else(|error| panic!("{root}: {error}"));
    let wrong = violations(&floors, &modules(&path));
    assert!(wrong.is_empty(), "{root}: {wrong:#?}");
}

#[test]
fn modules_of_shared_import_only_downward() {
    check("shared/src/lib.rs");
}

#[test]
fn modules_of_the_control_plane_import_only_downward() {
    check("control-plane/src/lib.rs");
}

#[test]
fn modules_of_the_agent_import_only_downward() {
    check("agent/src/lib.rs");
}

#[test]
fn modules_of_the_command_import_only_downward() {
    // A program may keep its modules in a library of its own.
    let library = "cli/src/lib.rs";
    if tools::project().join(library).exists() {
        check(library);
    } else {
        check("cli/src/main.rs");
    }
}

#[test]
fn modules_of_the_harness_import_only_downward() {
    check("tests/harness/lib.rs");
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn references_are_found_wherever_they_stand() {
    let source = r##"
        use crate::{a::{X, y::Z}, b, c::D as E};
        pub(crate) use crate::f;
        fn g<'a>(x: &'a crate::h::I) -> char { let _ = '"'; super::super::i::j(); '\'' }
        macro_rules! m { () => { $crate::k::l() } }
        mod inner { fn n() { super::super::super::o::p(); super::super::not_root(); } }
        fn q() { super::sibling(); }
    "##;
    let expected = set(&["a", "b", "c", "f", "h", "i", "k", "o"]);
    assert_eq!(references(source, &["module", "part"]), expected);
}

#[test]
fn comments_texts_and_tests_do_not_count() {
    let source = r###"
        // crate::a
        /* crate::b /* crate::c */ crate::d */
        const X: &str = "crate::e \" crate::f";
        const Y: &str = r#"crate::g " crate::h"#;
        #[cfg(test)]
        use crate::i;
        use super::j;
        #[cfg(test)]
        mod tests { use crate::k; fn f() { let _ = "}"; } }
    "###;
    assert_eq!(references(source, &["m"]), set(&["j"]));
    let declarations = "mod a; #[cfg(test)] mod b; pub mod c;";
    assert_eq!(test_modules(declarations), set(&["b"]));
}

const GOOD_STORY: &str = "\
//! What it is.
//!
//! Floors, lowest first:
//!
//! 1. `time`, `name`
//! 2. `store/`, `ca`,
//!    `kek`: what is kept
//! 3. `api`
//!
//! More.

pub mod api;
";

#[test]
fn floors_are_read_from_the_story() {
    let floors = declared(GOOD_STORY).unwrap();
    let expected: [&[&str]; 3] = [&["time", "name"], &["store", "ca", "kek"], &["api"]];
    assert_eq!(floors, expected);
    for bad in ["", "//! What it is.\n", "//! Floors:\n//!\n//! 1. time\n"] {
        assert!(declared(bad).is_err(), "{bad}");
    }
}

fn sample(modules: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules.iter();
    modules
        .map(|(name, uses)| ((*name).to_owned(), set(uses)))
        .collect()
}

#[test]
fn imports_that_point_down_are_fine() {
    let modules = sample(&[
        ("time", &[]),
        ("name", &["VERSION"]),
        ("store", &["store", "time"]),
        ("ca", &["time", "name"]),
        ("kek", &[]),
        ("api", &["api", "store", "ca", "time"]),
    ]);
    let wrong = violations(&declared(GOOD_STORY).unwrap(), &modules);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn imports_that_point_up_or_aside_and_forgotten_modules_are_named() {
    let modules = sample(&[
        ("time", &["api"]),
        ("name", &[]),
        ("store", &["ca"]),
        ("ca", &[]),
        ("api", &[]),
        ("new", &[]),
    ]);
    let wrong = violations(&declared(GOOD_STORY).unwrap(), &modules);
    assert_eq!(
        wrong,
        [
            "floor 2 lists 'kek', which does not exist",
            "'new' is on no floor",
            "'store' (floor 2) imports 'ca' (floor 2)",
            "'time' (floor 1) imports 'api' (floor 3)",
        ]
    );
}

#[test]
fn crates_that_depend_upward_or_on_a_sibling_are_named() {
    let manifest = |dependencies: &str| format!("[dependencies]\n{dependencies}");
    let agent = "[dev-dependencies]\ncountersign-control-plane.workspace = true".to_owned();
    let manifests = [
        ("countersign-shared", manifest("countersign-proto = '1'")),
        ("countersign-proto", manifest("countersign-shared = '1'")),
        ("countersign-agent", agent),
    ];
    let wrong = crate_violations(&CRATES, &manifests);
    assert_eq!(
        wrong,
        [
            "'countersign-proto' has 'countersign-shared' in [dependencies]",
            "'countersign-agent' has 'countersign-control-plane' in [dev-dependencies]",
        ]
    );
}
