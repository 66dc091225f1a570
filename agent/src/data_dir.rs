//! The data directory: private, and used by one agent process at a time. Two processes over one
//! journal would each deliver what the other holds.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use countersign_shared::files;
use thiserror::Error;

/// A data directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why the data directory can't be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// The operating system refuses.
    #[error("the data directory {path}: {error}")]
    File {
        /// Which directory.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Another process has it.
    #[error("the data directory {0} is in use by another agent process: stop that one first")]
    InUse(String),
}

impl DataDir {
    /// Makes the directory where needed (mode 0700) and takes it.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let shown = || path.display().to_string();
        let failed = |error| DataDirError::File {
            path: shown(),
            error,
        };
        files::private_directory(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(shown())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let taken = DataDir::take(&path).unwrap();
        assert!(matches!(DataDir::take(&path), Err(DataDirError::InUse(_))));
        drop(taken);
        assert_eq!(DataDir::take(&path).unwrap().path(), path);
    }
}
