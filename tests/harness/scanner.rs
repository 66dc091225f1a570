//! Searches files and texts for secrets, in every form in which one could have slipped out: as it
//! is, in hexadecimal, and in base64, also when it is part of something longer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use countersign_shared::digest::hex;

/// What is searched for.
#[derive(Debug, Default)]
pub struct Scanner {
    needles: Vec<Needle>,
}

#[derive(Debug)]
struct Needle {
    name: String,
    bytes: Vec<u8>,
}

/// PKCS#8 (RFC 5208) of a P-256 key, with and without the public key, up to the key itself; SEC1
/// (RFC 5915) of the same; PKCS#8 of an Ed25519 key (RFC 8410).
const PRIVATE_KEY_STARTS: [(&str, &[u8]); 5] = [
    (
        "PKCS#8 of P-256",
        b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
    ),
    (
        "short PKCS#8 of P-256",
        b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
    ),
    ("SEC1 of P-256", b"\x30\x77\x02\x01\x01\x04\x20"),
    ("short SEC1 of P-256", b"\x30\x25\x02\x01\x01\x04\x20"),
    (
        "PKCS#8 of Ed25519",
        b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20",
    ),
];

/// The part of a P-256 private key's encoding that stands before the key in both PKCS#8 and SEC1.
const BEFORE_THE_KEY: &[u8] = b"\x02\x01\x01\x04\x20";

impl Scanner {
    /// One that knows what private keys look like.
    pub fn for_private_keys() -> Self {
        let mut scanner = Self::default();
        scanner.text("PEM of a private key", "PRIVATE KEY");
        scanner.exactly("P-256 key, in DER", BEFORE_THE_KEY);
        for (name, start) in PRIVATE_KEY_STARTS {
            scanner.bytes(name, start);
        }
        scanner
    }

    /// Adds a text, to be found as it is.
    pub fn text(&mut self, name: &str, text: &str) {
        self.exactly(name, text.as_bytes());
    }

    /// Adds bytes, to be found as they are, in hexadecimal and in base64.
    ///
    /// # Panics
    /// When they are so few that they would be found by accident.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        assert!(bytes.len() >= 7, "{name} is too short to search for");
        self.exactly(&format!("{name}, as it is"), bytes);
        let lower = hex(bytes);
        self.text(&format!("{name}, in HEX"), &lower.to_uppercase());
        self.text(&format!("{name}, in hex"), &lower);
        for skipped in 0..3 {
            let (standard, url_safe) = base64_forms(bytes, skipped);
            self.text(&format!("{name}, in base64 at {skipped}"), &standard);
            if url_safe != standard {
                self.text(&format!("{name}, in base64url at {skipped}"), &url_safe);
            }
        }
    }

    fn exactly(&mut self, name: &str, bytes: &[u8]) {
        self.needles.push(Needle {
            name: name.to_owned(),
            bytes: bytes.to_owned(),
        });
    }

    /// The names of what is in `haystack`.
    pub fn find(&self, haystack: &[u8]) -> Vec<&str> {
        self.needles
            .iter()
            .filter(|needle| contains(haystack, &needle.bytes))
            .map(|needle| needle.name.as_str())
            .collect()
    }

    /// What is in the files below `folder`, as "file: name". Also what there is in a file's name.
    ///
    /// # Panics
    /// When a file can't be read, or when there is none: then nothing would have been searched.
    pub fn find_in_files(&self, folder: &Path) -> Vec<String> {
        let files = files_below(folder);
        assert!(!files.is_empty(), "no files below {}", folder.display());
        let mut found = Vec::new();
        for file in files {
            let content = fs::read(&file).expect("a readable file");
            let shown = file
                .strip_prefix(folder)
                .unwrap_or(&file)
                .display()
                .to_string();
            let names = self
                .find(&content)
                .into_iter()
                .chain(self.find(shown.as_bytes()));
            found.extend(names.map(|name| format!("{shown}: {name}")));
        }
        found
    }
}

/// What `bytes` look like within something longer in base64, when they come after `skipped` bytes
/// (modulo 3): without the characters that depend on their neighbours.
fn base64_forms(bytes: &[u8], skipped: usize) -> (String, String) {
    let mut shifted = vec![0; skipped];
    shifted.extend_from_slice(bytes);
    let start = (skipped * 8).div_ceil(6);
    let end = shifted.len() * 8 / 6;
    let cut = |text: String| text[start..end].to_owned();
    (
        cut(STANDARD_NO_PAD.encode(&shifted)),
        cut(URL_SAFE_NO_PAD.encode(&shifted)),
    )
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((&first, rest)) = needle.split_first() else {
        return false;
    };
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        from += at + 1;
        if haystack[from..].starts_with(rest) {
            return true;
        }
    }
    false
}

/// Every regular file below `folder`, sorted.
///
/// # Panics
/// When a folder can't be read.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
