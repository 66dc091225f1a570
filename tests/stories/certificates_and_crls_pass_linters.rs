//! Every kind of certificate and revocation list, judged by a linter (pkilint), by OpenSSL and by
//! Python's `cryptography`: one of each as the authority signs it, and the lists that a running
//! control plane serves.

mod lint;
mod lists;
mod upload;
mod ways;

use std::path::PathBuf;

/// Key identifiers are a SHA-256 over the whole public key (SubjectPublicKeyInfo), cut to 20 octets.
/// RFC 5280 section 4.2.1.2 leaves the method open; the linter notes that it is none with a name.
const KEY_IDENTIFIER: &str = "NOTICE pkix.unknown_subject_key_identifier_calculation_method";

/// The kinds of keys in client certificates, as their names end.
const KEYS: [&str; 4] = ["p256", "p384", "rsa2048", "rsa3072"];

/// Whether a certificate is a destination's.
fn is_client(name: &str) -> bool {
    KEYS.iter().any(|key| name.ends_with(key))
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}
