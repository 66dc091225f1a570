//! A folder of a test's own, gone when the test ends.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::tools;

/// A temporary folder.
pub struct Folder(TempDir);

impl Folder {
    /// A new one for `story`.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new(story: &str) -> Self {
        let mut folder = tempfile::Builder::new()
            .prefix(&format!("{}-{story}-", tools::run_mark()))
            .tempdir()
            .expect("a temporary folder");
        if tools::keep_folders() {
            folder.disable_cleanup(true);
            // The point of keeping it is to tell where it is.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("{story}: files are kept in {}", folder.path().display());
            }
        }
        Self(folder)
    }

    /// A folder in it, new or not.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn subfolder(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(&path).expect("a subfolder");
        path
    }
}

impl Deref for Folder {
    type Target = Path;
    fn deref(&self) -> &Path {
        self.0.path()
    }
}
