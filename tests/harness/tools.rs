//! Where the programs are that the stories need: `tests/run` installs them and says so in the
//! environment.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The `countersign` program that is tested.
pub fn countersign() -> PathBuf {
    path("COUNTERSIGN_BIN")
}

/// Names the program that runs in a folder, when that is another than the one that is tested.
pub const PROGRAM: &str = "program";

/// The `countersign` program that runs with its files in `work`.
pub fn countersign_in(work: &Path) -> PathBuf {
    match fs::read_to_string(work.join(PROGRAM)) {
        Ok(other) => other.into(),
        Err(_) => countersign(),
    }
}

/// A `countersign` program of an older version, which `tests/upgrade` builds.
pub fn older_countersign() -> PathBuf {
    path("COUNTERSIGN_TESTS_OLDER")
}

/// grpcurl.
pub fn grpcurl() -> PathBuf {
    path("COUNTERSIGN_TESTS_GRPCURL")
}

/// Python, in the virtual environment of `tests/requirements.txt`.
pub fn python() -> PathBuf {
    path("COUNTERSIGN_TESTS_PYTHON")
}

/// nginx.
pub fn nginx() -> PathBuf {
    path("COUNTERSIGN_TESTS_NGINX")
}

/// HAProxy.
pub fn haproxy() -> PathBuf {
    path("COUNTERSIGN_TESTS_HAPROXY")
}

/// Apache HTTP Server.
pub fn apache() -> PathBuf {
    path("COUNTERSIGN_TESTS_APACHE")
}

/// The folder of Apache's modules.
pub fn apache_modules() -> PathBuf {
    path("COUNTERSIGN_TESTS_APACHE_MODULES")
}

/// Caddy.
pub fn caddy() -> PathBuf {
    path("COUNTERSIGN_TESTS_CADDY")
}

/// Envoy.
pub fn envoy() -> PathBuf {
    path("COUNTERSIGN_TESTS_ENVOY")
}

/// OpenBao.
pub fn bao() -> PathBuf {
    path("COUNTERSIGN_TESTS_BAO")
}

/// The library that gives a process another time.
pub fn faketime() -> PathBuf {
    path("COUNTERSIGN_TESTS_FAKETIME")
}

/// The openssl command.
pub fn openssl() -> PathBuf {
    path("COUNTERSIGN_TESTS_OPENSSL")
}

fn path(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => panic!("{variable} is not set: run the stories with tests/run"),
    }
}

/// The top folder of the project's sources.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the project")
        .to_owned()
}

/// Identifies this run of `tests/run`; it marks processes and folders, so that none is left behind.
pub fn run_mark() -> String {
    env::var("COUNTERSIGN_TESTS_RUN").unwrap_or_else(|_| "countersign-tests".to_owned())
}

/// Whether folders are kept to look into them.
pub fn keep_folders() -> bool {
    env::var_os("COUNTERSIGN_TESTS_KEEP").is_some()
}
