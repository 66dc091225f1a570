//! The openssl command: what most receivers' TLS is made of, and so the judge of certificates.

use std::{path::Path, process::Command};

use crate::{
    process::{Finished, run},
    tools,
};

/// Runs `openssl` with `arguments`.
pub fn openssl(arguments: &[&str], input: &[u8]) -> Finished {
    run(Command::new(tools::openssl()).args(arguments), input)
}

/// As [`openssl`], for what has to succeed; gives what it printed.
///
/// # Panics
/// When it fails.
pub fn openssl_ok(arguments: &[&str], input: &[u8]) -> String {
    let finished = openssl(arguments, input);
    assert!(
        finished.status.success(),
        "openssl {arguments:?}: {finished:?}"
    );
    finished.stdout
}

/// Whether `certificate` verifies as a TLS client's against the authorities in `anchors` alone.
pub fn verifies_as_client(anchors: &Path, certificate: &Path) -> bool {
    let (anchors, certificate) = (
        anchors.display().to_string(),
        certificate.display().to_string(),
    );
    let arguments = [
        "verify",
        "-purpose",
        "sslclient",
        "-x509_strict",
        "-no-CApath",
        "-no-CAstore",
        "-CAfile",
        &anchors,
        &certificate,
    ];
    openssl(&arguments, &[]).status.success()
}

/// What `openssl x509 -text` says of a certificate in PEM.
pub fn text(pem: &str) -> String {
    let arguments = [
        "x509",
        "-noout",
        "-text",
        "-nameopt",
        "utf8,sep_comma_plus_space",
    ];
    openssl_ok(&arguments, pem.as_bytes())
}

/// One line of what openssl says of a certificate in PEM, such as `serial` or `startdate`, without
/// the name before the `=`.
///
/// # Panics
/// When there is no such line.
pub fn fact(pem: &str, what: &str) -> String {
    let flag = format!("-{what}");
    let line = openssl_ok(&["x509", "-noout", &flag], pem.as_bytes());
    let (_, value) = line.trim().split_once('=').expect("name=value");
    value.to_owned()
}
