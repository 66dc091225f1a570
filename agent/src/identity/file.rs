//! The identity on disk: key and certificate in one file, sealed with the agent's key, replaced in
//! one step. Between making a key and having its certificate it holds that key too, so that an enrollment
//! or a renewal whose answer was lost is repeated with the same key: by two keys that follow one identity
//! the control plane knows that there are two agents with it.

use std::{io, path::PathBuf};

use countersign_shared::{
    files,
    name::AgentName,
    seal::{SealError, SealingKey},
    secret::SecretBytes,
};
use prost::Message;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use super::agent_identity::{Identity, Parts};
use crate::transport::ControlPlaneUrl;

const FILE_NAME: &str = "identity";
const MAGIC: &[u8] = b"countersign agent identity 1\n";
/// Purpose of the derived key, and what its blobs are bound to.
const PURPOSE: &[u8] = b"identity";

/// The identity file of a data directory.
#[derive(Debug)]
pub struct IdentityFile {
    path: PathBuf,
    key: SealingKey,
}

/// What the file holds.
#[derive(Debug)]
pub enum OnDisk {
    /// No file.
    Nothing,
    /// A key that has no certificate yet.
    Pending(Pending),
    /// An identity.
    Enrolled(Box<Identity>),
}

/// An enrollment that was begun.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The name that was asked for.
    pub agent: AgentName,
    /// PKCS#8 in DER.
    pub private_key: SecretBytes,
}

/// Why the file is of no use.
#[derive(Debug, Error)]
pub enum FileError {
    /// It can't be read or written.
    #[error("the identity file {path}: {error}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It does not open.
    #[error(
        "the identity file {0} does not open with this data directory's key: restore both from the \
         same backup, or remove both and enroll anew"
    )]
    DoesNotOpen(String),
}

impl IdentityFile {
    /// Of `data_dir`, sealed with what is derived from `kek`.
    pub fn new(data_dir: &std::path::Path, kek: &SealingKey) -> Self {
        Self {
            path: data_dir.join(FILE_NAME),
            key: kek.derive(PURPOSE),
        }
    }

    /// Where it is, for messages.
    pub fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn load(&self) -> Result<OnDisk, FileError> {
        let content = match files::read_private(&self.path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(OnDisk::Nothing),
            Err(error) => return Err(self.file_error(error)),
        };
        self.parse(&content)
            .ok_or_else(|| FileError::DoesNotOpen(self.path.display().to_string()))
    }

    fn parse(&self, content: &[u8]) -> Option<OnDisk> {
        let stored = self.open(content)?;
        let agent: AgentName = stored.agent.parse().ok()?;
        let private_key = SecretBytes::from(stored.private_key);
        if stored.chain.is_empty() {
            return Some(OnDisk::Pending(Pending { agent, private_key }));
        }
        let parts = Parts {
            control_plane: stored.control_plane.parse::<ControlPlaneUrl>().ok()?,
            ca: CertificateDer::from(stored.ca),
            agent,
            region: stored.region,
            chain: stored.chain.into_iter().map(CertificateDer::from).collect(),
            private_key,
        };
        let identity = Identity::new(parts).ok()?;
        Some(OnDisk::Enrolled(Box::new(identity)))
    }

    fn open(&self, content: &[u8]) -> Option<Stored> {
        let sealed = content.strip_prefix(MAGIC)?;
        let opened = self.key.open(sealed, PURPOSE).ok()?;
        Stored::decode(opened.expose()).ok()
    }

    /// The key that `identity` is renewed with: the one of a renewal that was begun, or else what `make`
    /// makes, which is on disk before this answers.
    ///
    /// # Errors
    /// [`FileError`], as what `make` fails with may become.
    pub fn next_key<E: From<FileError>>(
        &self,
        identity: &Identity,
        make: impl FnOnce() -> Result<SecretBytes, E>,
    ) -> Result<SecretBytes, E> {
        let content = files::read_private(&self.path).map_err(|error| self.file_error(error))?;
        let stored = self.open(&content);
        let mut stored =
            stored.ok_or_else(|| FileError::DoesNotOpen(self.path.display().to_string()))?;
        let begun = std::mem::take(&mut stored.next_private_key);
        stored.private_key.zeroize();
        if !begun.is_empty() {
            return Ok(SecretBytes::from(begun));
        }
        let next = make()?;
        self.save(Stored {
            next_private_key: next.expose().to_vec(),
            ..of(identity)
        })?;
        Ok(next)
    }

    /// Writes a begun enrollment.
    ///
    /// # Errors
    /// [`FileError`]; the file is then as it was.
    pub fn save_pending(&self, pending: &Pending) -> Result<(), FileError> {
        self.save(Stored {
            agent: pending.agent.to_string(),
            private_key: pending.private_key.expose().to_vec(),
            ..Stored::default()
        })
    }

    /// Writes an identity.
    ///
    /// # Errors
    /// [`FileError`]; the file is then as it was.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), FileError> {
        self.save(of(identity))
    }

    fn save(&self, mut stored: Stored) -> Result<(), FileError> {
        let plain = Zeroizing::new(stored.encode_to_vec());
        stored.private_key.zeroize();
        stored.next_private_key.zeroize();
        let sealed = self
            .key
            .seal(&plain, PURPOSE)
            .map_err(|error: SealError| self.file_error(io::Error::other(error)))?;
        let content = [MAGIC, &sealed].concat();
        files::replace_private(&self.path, &content).map_err(|error| self.file_error(error))
    }

    fn file_error(&self, error: io::Error) -> FileError {
        FileError::File {
            path: self.path.display().to_string(),
            error,
        }
    }
}

/// The sealed content. An empty chain: enrollment is pending.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Stored {
    #[prost(string, tag = "1")]
    control_plane: String,
    #[prost(bytes = "vec", tag = "2")]
    ca: Vec<u8>,
    #[prost(string, tag = "3")]
    agent: String,
    #[prost(string, tag = "4")]
    region: String,
    #[prost(bytes = "vec", repeated, tag = "5")]
    chain: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "6")]
    private_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    next_private_key: Vec<u8>,
}

fn of(identity: &Identity) -> Stored {
    Stored {
        control_plane: identity.control_plane.to_string(),
        ca: identity.ca.to_vec(),
        agent: identity.agent.to_string(),
        region: identity.region.clone(),
        chain: identity.chain.iter().map(|it| it.to_vec()).collect(),
        private_key: identity.private_key.expose().to_vec(),
        next_private_key: Vec::new(),
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn it_round_trips_sealed_and_another_key_does_not_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let kek = SealingKey::generate();
        let file = IdentityFile::new(folder.path(), &kek);
        assert!(matches!(file.load().unwrap(), OnDisk::Nothing));

        let identity = testing::identity(&testing::ca("ca"), "https://127.0.0.1:8444");
        file.save_pending(&Pending {
            agent: identity.agent.clone(),
            private_key: identity.private_key.clone(),
        })
        .unwrap();
        let OnDisk::Pending(pending) = file.load().unwrap() else {
            panic!("not pending");
        };
        assert!(pending.private_key == identity.private_key);

        file.save_identity(&identity).unwrap();
        let OnDisk::Enrolled(loaded) = file.load().unwrap() else {
            panic!("not enrolled");
        };
        assert!(loaded.private_key == identity.private_key);
        assert_eq!(loaded.chain, identity.chain);
        assert_eq!(loaded.control_plane, identity.control_plane);

        let raw = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
        let key = identity.private_key.expose();
        assert!(!raw.windows(key.len()).any(|window| window == key));
        let other = IdentityFile::new(folder.path(), &SealingKey::generate());
        assert!(matches!(other.load(), Err(FileError::DoesNotOpen(_))));
    }

    #[test]
    fn a_renewal_that_was_begun_goes_on_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = IdentityFile::new(folder.path(), &SealingKey::generate());
        let identity = testing::identity(&testing::ca("ca"), "https://127.0.0.1:8444");
        file.save_identity(&identity).unwrap();
        let made = |byte| move || Ok::<_, FileError>(SecretBytes::from(vec![byte; 40]));
        let first = file.next_key(&identity, made(1)).unwrap();
        assert_eq!(file.next_key(&identity, made(2)).unwrap(), first);
        let OnDisk::Enrolled(loaded) = file.load().unwrap() else {
            panic!("not enrolled");
        };
        assert!(loaded.private_key == identity.private_key);
        file.save_identity(&identity).unwrap();
        let next = file.next_key(&identity, made(3)).unwrap();
        assert_ne!(next, first, "that renewal is over");
    }
}
