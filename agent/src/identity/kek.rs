//! The agent's key-encryption key: 32 random bytes in a file of its own, mode 0600, made at
//! enrollment. Identity and journal are sealed with keys derived from it.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_shared::{
    files,
    seal::{KEY_LENGTH, SealingKey},
    secret::SecretBytes,
};
use thiserror::Error;
use zeroize::Zeroizing;

const FILE_NAME: &str = "kek";
const HEADER: &str = "countersign agent key 1";

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KekError {
    /// The file can't be read or written.
    #[error("the key file {path}: {error}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Not a key file.
    #[error(
        "the key file {0} is not a key: expected the line '{HEADER}' and then 32 bytes in base64. \
         Restore it from a backup, or enroll anew with an empty data directory"
    )]
    Malformed(String),
}

/// Where the key is: the file that was configured, or one in the data directory.
pub fn kek_file(data_dir: &Path, configured: Option<&Path>) -> PathBuf {
    configured.map_or_else(|| data_dir.join(FILE_NAME), Path::to_path_buf)
}

/// Opens the key in a file.
///
/// # Errors
/// [`KekError`], also when there is none.
pub fn open_kek(path: &Path) -> Result<SealingKey, KekError> {
    let content = files::read_private(path).map_err(|error| file_error(path, error))?;
    let content = Zeroizing::new(content);
    parse(&content).ok_or_else(|| KekError::Malformed(path.display().to_string()))
}

/// Opens the key in a file, and makes one where there is none.
///
/// # Errors
/// [`KekError`].
pub fn open_or_create_kek(path: &Path) -> Result<SealingKey, KekError> {
    if path.exists() {
        return open_kek(path);
    }
    let key = SealingKey::generate();
    let encoded = Zeroizing::new(STANDARD.encode(key.expose().expose()));
    let content = Zeroizing::new(format!("{HEADER}\n{}\n", *encoded));
    files::create_private(path, content.as_bytes()).map_err(|error| file_error(path, error))?;
    Ok(key)
}

fn parse(content: &[u8]) -> Option<SealingKey> {
    let (header, key) = std::str::from_utf8(content).ok()?.split_once('\n')?;
    if header != HEADER {
        return None;
    }
    let raw = SecretBytes::from(STANDARD.decode(key.trim_end()).ok()?);
    SealingKey::from_bytes(raw).ok()
}

fn file_error(path: &Path, error: io::Error) -> KekError {
    KekError::File {
        path: path.display().to_string(),
        error,
    }
}

const _: () = assert!(KEY_LENGTH == 32, "the message above says so");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_a_spoilt_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = kek_file(folder.path(), None);
        assert!(matches!(open_kek(&file), Err(KekError::File { .. })));
        let made = open_or_create_kek(&file).unwrap();
        let again = open_or_create_kek(&file).unwrap();
        assert!(made.expose() == again.expose());
        files::replace_private(&file, b"something else\n").unwrap();
        let error = open_or_create_kek(&file).unwrap_err().to_string();
        assert!(error.contains("is not a key"), "{error}");
    }
}
