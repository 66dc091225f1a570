//! Files that hold sensitive things: private modes, written whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Makes `path` a directory that only its owner may enter (mode 0700), parents included.
///
/// # Errors
/// When it can't be made, or exists and others may enter it.
pub fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    refuse_if_others_may(path, "chmod 0700")
}

/// Reads a file that only its owner may read (mode 0600 or less).
///
/// # Errors
/// When it can't be read, or others may read or write it.
pub fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    refuse_if_others_may(path, "chmod 0600")?;
    fs::read(path)
}

fn refuse_if_others_may(path: &Path, remedy: &str) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} can be read or written by others (mode {:04o}); run: {remedy} {}",
            path.display(),
            mode & 0o7777,
            path.display()
        ),
    ))
}

/// Writes `content` to a new file of mode 0600 and syncs it.
///
/// # Errors
/// When the file exists already or can't be written.
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_new(path, content, 0o600)?;
    sync_parent(path)
}

/// Replaces `path` by `content` in one step: after a crash it holds the old content or the new one,
/// never a part. Mode 0600.
///
/// # Errors
/// When the file can't be written; the old one is then untouched.
pub fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, 0o600)
}

/// As [`replace_private`], for what anybody may read (mode 0644).
///
/// # Errors
/// When the file can't be written; the old one is then untouched.
pub fn replace_public(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, 0o644)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // A leftover of an interrupted write is worth nothing.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(&beside, content, mode)?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_that_others_may_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        create_private(&path, b"x").unwrap();
        assert_eq!(read_private(&path).unwrap(), b"x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&path).unwrap_err().to_string();
        assert!(
            error.contains("mode 0640") && error.contains("chmod 0600"),
            "{error}"
        );
    }

    #[test]
    fn replacing_survives_a_leftover_and_creating_refuses_to_overwrite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        fs::write(folder.path().join("identity.new"), b"half").unwrap();
        replace_private(&path, b"one").unwrap();
        replace_private(&path, b"two").unwrap();
        assert_eq!(read_private(&path).unwrap(), b"two");
        assert!(create_private(&path, b"three").is_err());
        assert_eq!(read_private(&path).unwrap(), b"two");
    }

    #[test]
    fn directories_are_private_from_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        private_directory(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
}
