//! The KEK in a file that only its owner may read: one line, `countersign-kek-v1:` and base64.

use std::{io, path::Path};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_shared::{
    digest::{hex, sha256},
    files,
    seal::SealingKey,
    secret::{SecretBytes, SecretText},
};

use super::{KekError, KekProvider};

const PREFIX: &str = "countersign-kek-v1:";

/// A KEK that was read from a file.
#[derive(Debug)]
pub struct FileKek {
    key: SealingKey,
    id: String,
}

impl FileKek {
    /// Makes a new key and writes it to `path` (mode 0600).
    ///
    /// # Errors
    /// [`KekError::Io`] when the file exists or can't be written.
    pub fn create(path: &Path) -> Result<Self, KekError> {
        let key = SealingKey::generate();
        let encoded = SecretText::from(STANDARD.encode(key.expose().expose()));
        let line = SecretText::from(format!("{PREFIX}{}\n", encoded.expose()));
        files::create_private(path, line.expose().as_bytes()).map_err(|error| io(path, &error))?;
        Ok(Self::of(key))
    }

    /// Reads the key at `path`; `None` when there is no such file.
    ///
    /// # Errors
    /// [`KekError::Io`] when others may read it or it can't be read; [`KekError::Malformed`].
    pub fn read(path: &Path) -> Result<Option<Self>, KekError> {
        let content = match files::read_private(path) {
            Ok(content) => SecretBytes::from(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(path, &error)),
        };
        Self::parse(&content, &path.display().to_string()).map(Some)
    }

    /// From a file's content, which came from `place`.
    ///
    /// # Errors
    /// [`KekError::Malformed`].
    pub(super) fn parse(content: &SecretBytes, place: &str) -> Result<Self, KekError> {
        let malformed = || KekError::Malformed(place.to_owned(), PREFIX);
        let text = std::str::from_utf8(content.expose()).map_err(|_| malformed())?;
        let encoded = text.trim().strip_prefix(PREFIX).ok_or_else(malformed)?;
        let raw = SecretBytes::from(STANDARD.decode(encoded).map_err(|_| malformed())?);
        let key = SealingKey::from_bytes(raw).map_err(|_| malformed())?;
        Ok(Self::of(key))
    }

    fn of(key: SealingKey) -> Self {
        // A key derived for this purpose alone: its hash tells nothing about the KEK.
        let id = hex(&sha256(key.derive(b"kek id").expose().expose())[..8]);
        Self { key, id }
    }
}

fn io(path: &Path, error: &io::Error) -> KekError {
    KekError::Io(format!("key-encryption key {}: {error}", path.display()))
}

#[async_trait]
impl KekProvider for FileKek {
    fn id(&self) -> &str {
        &self.id
    }

    async fn wrap(&self, key: &SecretBytes, context: &str) -> Result<Vec<u8>, KekError> {
        Ok(self.key.seal(key.expose(), context.as_bytes())?)
    }

    async fn unwrap(&self, wrapped: &[u8], context: &str) -> Result<SecretBytes, KekError> {
        Ok(self.key.open(wrapped, context.as_bytes())?)
    }

    /// The key is in memory: the file is needed at the next start only.
    async fn check(&self) -> Result<(), KekError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_reading_gives_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        assert!(FileKek::read(&path).unwrap().is_none());
        let made = FileKek::create(&path).unwrap();
        let read = FileKek::read(&path).unwrap().unwrap();
        assert_eq!(made.id(), read.id());
        let key = SecretBytes::from(vec![1; 32]);
        let wrapped = made.wrap(&key, "accounts/a").await.unwrap();
        assert_eq!(read.unwrap(&wrapped, "accounts/a").await.unwrap(), key);
        assert!(read.unwrap(&wrapped, "accounts/b").await.is_err());
        assert!(FileKek::create(&path).is_err(), "never overwritten");
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        for content in [
            "",
            "hunter2",
            "countersign-kek-v1:",
            "countersign-kek-v1:AAAA",
        ] {
            files::replace_private(&path, content.as_bytes()).unwrap();
            let error = FileKek::read(&path).unwrap_err().to_string();
            assert!(error.contains("not a key-encryption key"), "{error}");
            assert!(!error.contains("hunter2"));
        }
    }
}
