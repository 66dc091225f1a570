//! The database: three sled trees with sealed values. Opening reads everything, so that what can't be
//! read is noticed at the start; then the whole is set aside and a new one begun.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use countersign_proto::v1;
use countersign_shared::{
    job::{LeaseId, LeasedJob},
    outcome::Outcome,
    seal::{SealError, SealingKey},
    secret::SecretBytes,
    time::Timestamp,
    wire,
};
use prost::Message as _;

use super::error::JournalError;

/// A part of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// Bundles, by destination.
    Bundles,
    /// Outcomes that are not acknowledged, by lease.
    Outcomes,
    /// Jobs that are worked on while the agent is cut off, by lease.
    Jobs,
}

impl Tree {
    /// All, in the order in which they are changed: an outcome is there before its job is gone.
    pub(super) const ALL: [Self; 3] = [Self::Bundles, Self::Outcomes, Self::Jobs];

    fn name(self) -> &'static str {
        match self {
            Self::Bundles => "bundles",
            Self::Outcomes => "outcomes",
            Self::Jobs => "jobs",
        }
    }
}

const FOLDER: &str = "journal";
/// Purpose of the derived key.
const PURPOSE: &[u8] = b"journal";
/// How sled's error begins when the database is open already.
const LOCKED: &str = "could not acquire lock";
/// How often, and after which time, a journal that is in use is tried again.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);
/// What sled may keep in memory, in bytes.
const CACHE: u64 = 16 << 20;

/// What the journal held when it was opened.
#[derive(Debug, Default)]
pub struct Contents {
    /// Bundles, as the control plane encoded them.
    pub bundles: Vec<SecretBytes>,
    /// Outcomes that were not acknowledged.
    pub outcomes: Vec<Outcome>,
    /// Jobs that were kept, their times by this host's clock.
    pub jobs: Vec<LeasedJob>,
}

/// The open database.
pub struct Store {
    pub(super) key: Arc<SealingKey>,
    pub(super) db: sled::Db,
    bundles: sled::Tree,
    outcomes: sled::Tree,
    jobs: sled::Tree,
}

impl Store {
    pub(super) fn tree(&self, tree: Tree) -> &sled::Tree {
        match tree {
            Tree::Bundles => &self.bundles,
            Tree::Outcomes => &self.outcomes,
            Tree::Jobs => &self.jobs,
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Why a journal does not open.
enum Unopened {
    /// Its content is of no use: set it aside.
    Unreadable(String),
    /// Something around it: setting it aside would not help.
    Refused(String),
    /// Somebody has it open.
    InUse,
}

/// Opens the journal of `data_dir` and reads it. One that is unreadable is renamed to
/// `journal.unreadable-<seconds since 1970>` and a new one is begun: the control plane sends the
/// bundles again, and deliveries whose outcome is lost are attempted again under the same id.
///
/// # Errors
/// [`JournalError::Open`] when a new one can't be made either, or the old one not be read for
/// reasons that are not its own.
pub fn open(
    data_dir: &Path,
    kek: &SealingKey,
    now: Timestamp,
) -> Result<(Store, Contents), JournalError> {
    let path = data_dir.join(FOLDER);
    let key = Arc::new(kek.derive(PURPOSE));
    let reason = match open_when_free(&path, &key) {
        Ok(opened) => return Ok(opened),
        Err(Unopened::Unreadable(reason)) => reason,
        Err(other) => return Err(refused(&path, other.reason())),
    };
    let aside = set_aside(&path, now).map_err(|error| refused(&path, error.to_string()))?;
    tracing::warn!(
        journal = %path.display(), set_aside = %aside.display(), reason,
        "the journal is unreadable and was set aside; the control plane sends its content again"
    );
    try_open(&path, &key).map_err(|error| refused(&path, error.reason()))
}

impl Unopened {
    fn reason(self) -> String {
        match self {
            Self::Unreadable(reason) | Self::Refused(reason) => reason,
            Self::InUse => "it is in use by another process".to_owned(),
        }
    }
}

/// sled's own threads let go of the files a little after the database was closed. A journal that is in
/// use is a good one, and must not be set aside for it.
fn open_when_free(path: &Path, key: &Arc<SealingKey>) -> Result<(Store, Contents), Unopened> {
    let mut tries = 0;
    loop {
        match try_open(path, key) {
            Err(Unopened::InUse) if tries < TRIES => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            opened => return opened,
        }
    }
}

fn refused(path: &Path, reason: String) -> JournalError {
    JournalError::Open {
        path: path.display().to_string(),
        reason,
    }
}

fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let name = format!("{FOLDER}.unreadable-{}", now.as_unix_seconds());
    let mut aside = path.with_file_name(&name);
    let mut number = 1;
    while aside.exists() {
        number += 1;
        aside = path.with_file_name(format!("{name}.{number}"));
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// sled has been seen to panic on a damaged file where it should return an error.
fn try_open(path: &Path, key: &Arc<SealingKey>) -> Result<(Store, Contents), Unopened> {
    let guarded = catch_unwind(AssertUnwindSafe(|| open_and_read(path, key)));
    guarded.unwrap_or_else(|_| Err(Unopened::Unreadable("sled panicked".to_owned())))
}

fn open_and_read(path: &Path, key: &Arc<SealingKey>) -> Result<(Store, Contents), Unopened> {
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE)
        // The writer flushes after every batch.
        .flush_every_ms(None)
        .open()
        .map_err(unopened)?;
    let store = Store {
        key: Arc::clone(key),
        bundles: db.open_tree(Tree::Bundles.name()).map_err(unopened)?,
        outcomes: db.open_tree(Tree::Outcomes.name()).map_err(unopened)?,
        jobs: db.open_tree(Tree::Jobs.name()).map_err(unopened)?,
        db,
    };
    let contents = Contents {
        bundles: read(&store, Tree::Bundles)?,
        outcomes: decode(&read(&store, Tree::Outcomes)?, decode_outcome)?,
        jobs: decode(&read(&store, Tree::Jobs)?, decode_job)?,
    };
    Ok((store, contents))
}

fn read(store: &Store, tree: Tree) -> Result<Vec<SecretBytes>, Unopened> {
    let entries = store.tree(tree).iter();
    entries
        .map(|entry| {
            let (at, sealed) = entry.map_err(unopened)?;
            let opened = store.key.open(&sealed, &identity(tree, &at));
            opened.map_err(|error| Unopened::Unreadable(format!("an entry {error}")))
        })
        .collect()
}

fn decode<T>(
    encoded: &[SecretBytes],
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Unopened> {
    let decoded: Option<Vec<T>> = encoded.iter().map(|it| decode(it.expose())).collect();
    decoded.ok_or_else(|| Unopened::Unreadable("an entry does not decode".to_owned()))
}

fn unopened(error: sled::Error) -> Unopened {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull, WouldBlock};
    match &error {
        // sled says this with a text alone.
        sled::Error::Io(io) if io.to_string().starts_with(LOCKED) => Unopened::InUse,
        sled::Error::Io(io)
            if matches!(
                io.kind(),
                PermissionDenied | ReadOnlyFilesystem | StorageFull | WouldBlock
            ) =>
        {
            Unopened::Refused(io.to_string())
        }
        _ => Unopened::Unreadable(error.to_string()),
    }
}

fn decode_outcome(encoded: &[u8]) -> Option<Outcome> {
    let outcome = v1::Outcome::decode(encoded).ok()?;
    wire::outcome_from_wire(outcome).ok()
}

fn decode_job(encoded: &[u8]) -> Option<LeasedJob> {
    let job = v1::Job::decode(encoded).ok()?;
    // What is on disk says all its times by this host's clock, so what time it is plays no part.
    wire::job_from_wire(job, Timestamp::default()).ok()
}

/// What an entry's blob is bound to: its tree and its key.
fn identity(tree: Tree, key: &[u8]) -> Vec<u8> {
    [tree.name().as_bytes(), b"\0", key].concat()
}

pub(super) fn seal(
    key: &SealingKey,
    tree: Tree,
    at: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    key.seal(plain, &identity(tree, at))
}

/// The key of an outcome or a job: delivery and epoch.
pub(super) fn lease_key(lease: LeaseId) -> Vec<u8> {
    [
        lease.delivery.as_bytes().as_slice(),
        &lease.epoch.to_be_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

    fn put(store: &Store, name: &str, content: &[u8]) {
        let sealed = seal(&store.key, Tree::Bundles, name.as_bytes(), content).unwrap();
        store.bundles.insert(name.as_bytes(), sealed).unwrap();
        store.db.flush().unwrap();
    }

    fn set_asides(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries
            .filter(|it| it.file_name().to_string_lossy().contains("unreadable"))
            .count()
    }

    /// What a crash leaves: the files as they are while the database is still open.
    fn crash_image(folder: &Path) -> tempfile::TempDir {
        let image = tempfile::tempdir().unwrap();
        let mut open = vec![PathBuf::from(FOLDER)];
        while let Some(inner) = open.pop() {
            fs::create_dir_all(image.path().join(&inner)).unwrap();
            for entry in fs::read_dir(folder.join(&inner)).unwrap() {
                let entry = entry.unwrap();
                let at = inner.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    open.push(at);
                } else {
                    fs::copy(entry.path(), image.path().join(&at)).unwrap();
                }
            }
        }
        image
    }

    #[test]
    fn what_was_flushed_is_there_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let kek = SealingKey::generate();
        let (store, contents) = open(folder.path(), &kek, NOW).unwrap();
        assert!(contents.bundles.is_empty());
        for number in 0..100 {
            put(&store, &format!("bundle-{number}"), &[number; 1000]);
        }
        let image = crash_image(folder.path());
        let (_store, contents) = open(image.path(), &kek, NOW).unwrap();
        assert_eq!(contents.bundles.len(), 100);
        assert_eq!(set_asides(image.path()), 0);
    }

    #[test]
    fn a_journal_that_is_in_use_is_waited_for_and_not_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let kek = SealingKey::generate();
        let (store, _) = open(folder.path(), &kek, NOW).unwrap();
        put(&store, "bundle", b"content");
        let error = open(folder.path(), &kek, NOW).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        assert_eq!(set_asides(folder.path()), 0);
        let (_store, contents) = thread::scope(|scope| {
            scope.spawn(move || drop(store));
            open(folder.path(), &kek, NOW).unwrap()
        });
        assert_eq!((contents.bundles.len(), set_asides(folder.path())), (1, 0));
    }

    #[test]
    fn nothing_is_written_in_plain() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(folder.path(), &SealingKey::generate(), NOW).unwrap();
        put(&store, "bundle", b"a private key of sorts");
        let raw = fs::read(folder.path().join(FOLDER).join("db")).unwrap();
        assert!(!raw.windows(13).any(|window| window == b"a private key"));
    }

    #[test]
    fn a_journal_of_another_key_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(folder.path(), &SealingKey::generate(), NOW).unwrap();
        put(&store, "bundle", b"content");
        drop(store);
        let kek = SealingKey::generate();
        let (store, contents) = open(folder.path(), &kek, NOW).unwrap();
        assert!(contents.bundles.is_empty());
        assert_eq!(set_asides(folder.path()), 1);
        put(&store, "bundle", b"content");
        drop(store);
        assert_eq!(open(folder.path(), &kek, NOW).unwrap().1.bundles.len(), 1);
        assert_eq!(set_asides(folder.path()), 1);
    }

    #[test]
    fn a_damaged_journal_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let kek = SealingKey::generate();
        drop(open(folder.path(), &kek, NOW).unwrap());
        fs::write(folder.path().join(FOLDER).join("conf"), [0xff; 64]).unwrap();
        fs::write(folder.path().join(FOLDER).join("db"), [0xff; 4096]).unwrap();
        let (store, contents) = open(folder.path(), &kek, NOW).unwrap();
        assert!(contents.bundles.is_empty());
        assert_eq!(set_asides(folder.path()), 1);
        drop(store);
    }

    #[test]
    fn an_entry_that_was_moved_does_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let kek = SealingKey::generate();
        let (store, _) = open(folder.path(), &kek, NOW).unwrap();
        put(&store, "one", b"content");
        let blob = store.bundles.get(b"one").unwrap().unwrap();
        store.bundles.insert(b"two", blob).unwrap();
        store.db.flush().unwrap();
        drop(store);
        let (_store, contents) = open(folder.path(), &kek, NOW).unwrap();
        assert!(contents.bundles.is_empty());
        assert_eq!(set_asides(folder.path()), 1);
    }
}
