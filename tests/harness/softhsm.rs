//! A SoftHSM token in a story's folder, made with the commands of the documentation.

use std::{fs, path::Path, process::Command};

use countersign_shared::files;

use crate::process::run;

/// SoftHSM's library for programs.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The PIN of the token.
pub const PIN: &str = "a pin of sorts";
/// SoftHSM's configuration in the folder.
pub const CONF: &str = "softhsm2.conf";

/// Makes an empty token, `bank`.
///
/// # Panics
/// When SoftHSM does not.
pub fn make_token(folder: &Path) {
    let tokens = folder.join("tokens");
    fs::create_dir(&tokens).expect("a folder");
    let conf = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(folder.join(CONF), conf).expect("its configuration");
    let initialize = [
        "--init-token",
        "--free",
        "--label",
        "bank",
        "--so-pin",
        "officer",
        "--pin",
        PIN,
    ];
    command(folder, "softhsm2-util", &initialize);
    let pin = format!("{PIN}\n");
    files::create_private(&folder.join("pin"), pin.as_bytes()).expect("a PIN file");
}

/// Makes a key for wrapping in the token.
///
/// # Panics
/// When pkcs11-tool does not.
pub fn make_aes_key(folder: &Path, label: &str) {
    let aes = ["--keygen", "--key-type", "AES:32", "--sensitive"];
    make_key(folder, &aes, label);
}

/// Makes a key for signing in the token.
///
/// # Panics
/// When pkcs11-tool does not.
pub fn make_ec_key(folder: &Path, label: &str) {
    let ec = [
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--sensitive",
        "--usage-sign",
    ];
    make_key(folder, &ec, label);
}

/// The table of the control plane's configuration for a key in the token.
pub fn settings(folder: &Path, table: &str, key: &str) -> String {
    let pin = folder.join("pin");
    let pin = pin.display();
    format!("[{table}]\nmodule = '{MODULE}'\ntoken = 'bank'\nkey = '{key}'\npin_file = '{pin}'\n")
}

/// Where authorities' keys are made in the token.
pub fn place(folder: &Path, table: &str) -> String {
    let all = settings(folder, table, "");
    all.replace("key = ''\n", "")
}

/// The labels of the private keys in the token.
///
/// # Panics
/// When pkcs11-tool does not tell.
pub fn private_keys(folder: &Path) -> Vec<String> {
    let list = ["--list-objects", "--type", "privkey"];
    let told = command(folder, "pkcs11-tool", &[&LOGIN[..], &list].concat());
    let labels = told
        .lines()
        .filter_map(|line| line.trim().strip_prefix("label:"));
    labels.map(|label| label.trim().to_owned()).collect()
}

/// Writes the public half of a key, in DER, to a file.
///
/// # Panics
/// When pkcs11-tool does not.
pub fn read_public_key(folder: &Path, label: &str, to: &Path) {
    let read = [
        "--read-object",
        "--type",
        "pubkey",
        "--label",
        label,
        "--output-file",
    ];
    let to = to.display().to_string();
    command(
        folder,
        "pkcs11-tool",
        &[&LOGIN[..], &read, &[to.as_str()]].concat(),
    );
}

const LOGIN: [&str; 7] = [
    "--module",
    MODULE,
    "--token-label",
    "bank",
    "--login",
    "--pin",
    PIN,
];

fn make_key(folder: &Path, kind: &[&str], label: &str) {
    let label = ["--label", label];
    command(folder, "pkcs11-tool", &[&LOGIN[..], kind, &label].concat());
}

fn command(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.env("SOFTHSM2_CONF", folder.join(CONF));
    let finished = run(command.args(arguments), b"");
    assert!(finished.status.success(), "{program}: {finished:?}");
    finished.stdout
}
