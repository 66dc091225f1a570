//! Opening the data directory: the first start fills it, every later one uses what is there. A KEK
//! that is missing or wrong is found out before anything is changed.

mod authority_keys;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use countersign_shared::{
    digest::hex,
    files,
    name::Id,
    random,
    secret::SecretText,
    tasks::Tasks,
    time::{Clock, Timestamp},
    tls::PemError,
};
use thiserror::Error;

use crate::{
    auth::{self, KeyRequest},
    ca::{self, CaError, ImportError, RootKey, SigningAuthority, pem},
    config::{Config, StoreSource},
    kek::{self, KekError},
    model::{AuthorityOwner, Serial},
    pkcs11::TokenError,
    store::{
        Installation, InstallationFacts, Store, StoreError,
        postgres::{Channel, Options, OptionsError, PostgresStore},
        sqlite::SqliteStore,
    },
    vault::{INSTALLATION, Vault, VaultError},
};

/// Why the control plane does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory can't be used.
    #[error("data directory {0}: {1}")]
    DataDir(PathBuf, io::Error),
    /// Another control plane uses it.
    #[error("{0} is in use by another control plane: stop that one, or use another data_dir")]
    InUse(PathBuf),
    /// The KEK is missing, wrong or unreadable.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The root's key can't be used.
    #[error("the root's key: {0}")]
    Token(#[from] TokenError),
    /// The token for authorities' keys can't be used.
    #[error("authorities' keys: {0}")]
    AuthorityToken(TokenError),
    /// A file of the root that is to be imported can't be read.
    #[error("the root to be imported, {0}: {1}")]
    RootFile(PathBuf, io::Error),
    /// It holds no certificate.
    #[error("the root to be imported, {0}, {1}")]
    RootPem(PathBuf, PemError),
    /// It can't be a root.
    #[error("the root to be imported, {0}, {1}. Nothing was changed")]
    RootImport(PathBuf, ImportError),
    /// The installation has another root.
    #[error(
        "{0} is not this installation's root: a root is chosen at the first start only; take \
         certificates.root_certificate_file away. Nothing was changed"
    )]
    OtherRoot(PathBuf),
    /// The store can't be used.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The store's server can't be connected to as configured.
    #[error(transparent)]
    StoreServer(#[from] OptionsError),
    /// Sealing failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The certificate authorities can't be made or opened.
    #[error("certificate authority: {0}")]
    Ca(#[from] CaError),
    /// An authority that every installation has is not there.
    #[error("the store has no authority '{0}': it is not complete")]
    NoAuthority(AuthorityOwner),
    /// The administrator's key can't be handed over.
    #[error("administrator key file {0}: {1}")]
    KeyFile(PathBuf, io::Error),
}

/// An opened data directory.
pub struct Opened {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Seals and opens.
    pub vault: Arc<Vault>,
    /// The internal root.
    pub root: Arc<SigningAuthority>,
    /// Signs agents' identities.
    pub agents: Arc<SigningAuthority>,
    /// Signs the server certificate.
    pub server: Arc<SigningAuthority>,
    /// The administrator's key, on the first start, unless it went to a file.
    pub first_key: Option<SecretText>,
    /// Speaks to other control planes that use the same store, if it can be used by several.
    pub channel: Option<Channel>,
    /// Keeps other control planes out while it lives.
    pub lock: File,
}

/// Opens the data directory, filling it on the first start.
///
/// # Errors
/// [`StartError`]; an existing installation is unchanged then.
pub async fn open(
    config: &Config,
    admin_key_file: Option<&Path>,
    clock: &dyn Clock,
    tasks: &Tasks,
) -> Result<Opened, StartError> {
    match open_once(config, admin_key_file, clock, tasks).await {
        // Of several control planes that start at once, another was the first: its installation counts,
        // and the administrator's key that was handed over here is none.
        Err(StartError::Store(StoreError::AlreadyExists(_))) => {
            if let Some(file) = admin_key_file {
                let removed = std::fs::remove_file(file);
                removed.map_err(|error| StartError::KeyFile(file.to_owned(), error))?;
            }
            open_once(config, admin_key_file, clock, tasks).await
        }
        opened => opened,
    }
}

async fn open_once(
    config: &Config,
    admin_key_file: Option<&Path>,
    clock: &dyn Clock,
    tasks: &Tasks,
) -> Result<Opened, StartError> {
    let folder = &config.data_dir;
    let failed = |error| StartError::DataDir(folder.clone(), error);
    files::private_directory(folder).map_err(failed)?;
    let lock = lock(folder)?;
    let place = Place::of(config)?;
    // Opening for writing changes the files of a store whose process was killed.
    let facts = place.look().await?;
    let ahead = place.clock_ahead().await?;
    if ahead.abs() > 1_000_000 {
        tracing::warn!(
            ahead_seconds = ahead / 1_000_000,
            "this host's clock differs from that of the store's server, which counts"
        );
    }
    clock.steer(ahead);
    let needed = facts.as_ref().map(|facts| facts.kek_id.as_str());
    let kek::Opened { kek, previous } =
        kek::open(&config.kek, config.previous_kek.as_ref(), needed).await?;
    let token = authority_keys::root_token(config).await?;
    let keys = authority_keys::authority_keys(config).await?;
    let (store, channel) = place.open(tasks).await?;
    let vault = Vault::replacing(Arc::clone(&kek), previous);
    let vault = Arc::new(vault.with_authority_keys(keys));
    let first_key = match facts {
        Some(_) => None,
        None => {
            let now = clock.now();
            let key = auth::generate(KeyRequest::administrator(), now);
            let root_key = match (&config.root_import, &token) {
                (Some(import), _) => {
                    RootKey::Imported(authority_keys::imported(import, token.clone(), now)?)
                }
                (None, Some(signer)) => RootKey::Token(Arc::clone(signer)),
                (None, None) => RootKey::Stored(config.root_key),
            };
            hand_over(admin_key_file, &key.1)?;
            install(store.as_ref(), &vault, (kek.id(), root_key), key.0, now).await?;
            admin_key_file.is_none().then_some(key.1)
        }
    };
    let open = async |owner: AuthorityOwner| {
        SigningAuthority::newest(&owner, store.as_ref(), &vault)
            .await?
            .map(Arc::new)
            .ok_or(StartError::NoAuthority(owner))
    };
    let root = SigningAuthority::root(store.as_ref(), &vault, token).await?;
    let root = root.map(Arc::new);
    let root = root.ok_or(StartError::NoAuthority(AuthorityOwner::Root))?;
    authority_keys::check_root(config, &root.authority.anchor)?;
    let (root, agents, server) = (
        root,
        open(AuthorityOwner::Agents).await?,
        open(AuthorityOwner::Server).await?,
    );
    let ca_file = folder.join("ca.pem");
    files::replace_public(&ca_file, pem(&server.authority.anchor).as_bytes()).map_err(failed)?;
    Ok(Opened {
        store,
        vault,
        root,
        agents,
        server,
        first_key,
        channel,
        lock,
    })
}

/// Where the store is.
enum Place {
    File(PathBuf),
    Server(Arc<Options>),
}

impl Place {
    fn of(config: &Config) -> Result<Self, StartError> {
        Ok(match &config.store {
            StoreSource::Embedded => Self::File(config.data_dir.join("store.sqlite")),
            StoreSource::Postgres(source) => {
                let (password, ca) = (source.password_file.as_deref(), source.ca_file.as_deref());
                Self::Server(Arc::new(Options::read(&source.url, password, ca)?))
            }
        })
    }

    async fn look(&self) -> Result<Option<InstallationFacts>, StoreError> {
        match self {
            Self::File(path) => SqliteStore::look(path),
            Self::Server(options) => PostgresStore::look(Arc::clone(options)).await,
        }
    }

    /// Control planes that share a server go by its clock: leases and certificates are then of one time.
    async fn clock_ahead(&self) -> Result<i64, StoreError> {
        match self {
            Self::File(_) => Ok(0),
            Self::Server(options) => PostgresStore::clock_ahead(Arc::clone(options)).await,
        }
    }

    async fn open(self, tasks: &Tasks) -> Result<(Arc<dyn Store>, Option<Channel>), StoreError> {
        Ok(match self {
            Self::File(path) => (Arc::new(SqliteStore::open(&path, tasks)?), None),
            Self::Server(options) => {
                let store = PostgresStore::open(Arc::clone(&options), tasks).await?;
                let channel = PostgresStore::channel(&options, tasks)?;
                (Arc::new(store), Some(channel))
            }
        })
    }
}

/// Keeps others out of a data directory while the answer lives.
pub(crate) fn lock(folder: &Path) -> Result<File, StartError> {
    let failed = |error| StartError::DataDir(folder.to_owned(), error);
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    let file = options.open(folder.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// To its file before the installation exists: a crash in between costs a file, not the only key.
fn hand_over(file: Option<&Path>, key: &SecretText) -> Result<(), StartError> {
    let Some(file) = file else {
        return Ok(());
    };
    let line = SecretText::from(format!("{}\n", key.expose()));
    files::replace_private(file, line.expose().as_bytes())
        .map_err(|error| StartError::KeyFile(file.to_owned(), error))
}

async fn install(
    store: &dyn Store,
    vault: &Vault,
    (kek_id, root_key): (&str, RootKey),
    api_key: crate::model::ApiKey,
    now: Timestamp,
) -> Result<(), StartError> {
    let id = Id::from(random::uuid_v7(now)).to_string();
    // In subjects a short form is enough to tell two installations apart.
    let short = hex(&random::bytes::<4>());
    let (data_key, scope) = vault.new_scope(INSTALLATION).await?;
    let serials: [Serial; 4] = std::array::from_fn(|_| Serial::from_random(random::bytes()));
    store.record_serials(serials.to_vec(), now).await?;
    let root = ca::new_root(&short, root_key, &scope, serials[0], now)?;
    let agents = ca::new_agents_authority(&short, &root, &scope, [serials[1], serials[2]], now)?;
    let server = ca::new_server_authority(&short, &scope, serials[3], now)?;
    let installation = Installation {
        id,
        kek_id: kek_id.to_owned(),
        data_key,
        authorities: vec![root.authority, agents.authority, server.authority],
        api_key,
        created_at: now,
    };
    store.install(installation).await?;
    tracing::info!(installation = short, "new installation made");
    Ok(())
}

#[cfg(test)]
mod tests {
    use countersign_shared::{
        digest::sha256,
        time::{Clock as _, SystemClock},
    };
    use toml::Value;

    use super::*;
    use crate::{
        auth::ApiKeys,
        kek::FileKek,
        model::KekSource,
        pkcs11::testing::{in_a_process_of_its_own, log_out, make_token, settings},
    };

    fn config(folder: &Path) -> Config {
        let folder = folder.join("data").display().to_string();
        Config::read("test", "", vec![("data_dir", Value::String(folder))]).unwrap()
    }

    fn kek_file(config: &Config) -> &Path {
        match &config.kek {
            KekSource::File(path) => path,
            other => panic!("{other}"),
        }
    }

    /// Opens and closes; the store's threads have ended when this returns.
    async fn start(config: &Config) -> Result<Option<SecretText>, StartError> {
        let (tasks, _failures) = Tasks::new();
        let opened = open(config, None, &SystemClock, &tasks)
            .await
            .map(|opened| opened.first_key);
        tasks
            .stop(std::time::Duration::from_secs(10))
            .await
            .unwrap();
        opened
    }

    fn contents(folder: &Path) -> Vec<(PathBuf, String)> {
        let mut all: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), hex(&sha256(&std::fs::read(path).unwrap()))))
            .collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn the_first_start_makes_a_key_and_the_second_reuses_everything() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let key = start(&config).await.unwrap().expect("printed once");
        let ca = std::fs::read(config.data_dir.join("ca.pem")).unwrap();
        assert!(start(&config).await.unwrap().is_none());
        assert_eq!(std::fs::read(config.data_dir.join("ca.pem")).unwrap(), ca);
        let (tasks, _failures) = Tasks::new();
        let opened = open(&config, None, &SystemClock, &tasks).await.unwrap();
        let header = format!("Bearer {}", key.expose());
        let clock = Arc::new(SystemClock);
        let keys = ApiKeys::load(Arc::clone(&opened.store), clock, 1, 1).await;
        assert!(keys.unwrap().authenticate(Some(&header), None).is_ok());
        let second = open(&config, None, &SystemClock, &tasks).await;
        assert!(matches!(second, Err(StartError::InUse(_))));
    }

    #[tokio::test]
    async fn a_missing_or_wrong_kek_is_named_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        start(&config).await.unwrap();
        let saved = folder.path().join("saved");
        std::fs::rename(kek_file(&config), &saved).unwrap();
        let before = contents(&config.data_dir);
        let missing = start(&config).await.unwrap_err().to_string();
        assert!(missing.contains("is missing"), "{missing}");
        assert_eq!(contents(&config.data_dir), before);

        FileKek::create(kek_file(&config)).unwrap();
        let before = contents(&config.data_dir);
        let wrong = start(&config).await.unwrap_err().to_string();
        assert!(wrong.contains("was sealed with KEK"), "{wrong}");
        assert_eq!(contents(&config.data_dir), before);

        std::fs::rename(&saved, kek_file(&config)).unwrap();
        assert!(start(&config).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn nor_does_it_after_a_kill_with_a_log_that_is_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let (tasks, _failures) = Tasks::new();
        let opened = open(&config, None, &SystemClock, &tasks).await.unwrap();
        // What a killed process leaves: the files as they are while it runs.
        let left = folder.path().join("left");
        files::private_directory(&left).unwrap();
        for (path, _) in contents(&config.data_dir) {
            std::fs::copy(&path, left.join(path.file_name().unwrap())).unwrap();
        }
        drop(opened);
        let log = left.join("store.sqlite-wal");
        assert!(log.metadata().unwrap().len() > 0);
        tasks
            .stop(std::time::Duration::from_secs(10))
            .await
            .unwrap();

        std::fs::remove_dir_all(&config.data_dir).unwrap();
        std::fs::rename(&left, &config.data_dir).unwrap();
        let own = folder.path().join("own");
        std::fs::rename(kek_file(&config), &own).unwrap();
        FileKek::create(kek_file(&config)).unwrap();
        // SQLite's shared memory holds nothing and is made anew by whoever reads the log.
        let durable = || {
            let mut all = contents(&config.data_dir);
            all.retain(|(path, _)| !path.ends_with("store.sqlite-shm"));
            all
        };
        let before = durable();
        let wrong = start(&config).await.unwrap_err().to_string();
        assert!(wrong.contains("was sealed with KEK"), "{wrong}");
        assert_eq!(durable(), before);

        std::fs::rename(&own, kek_file(&config)).unwrap();
        assert!(start(&config).await.unwrap().is_none());
    }

    #[test]
    fn a_root_whose_key_is_in_a_token_signs_there_and_nowhere_else() {
        in_a_process_of_its_own(
            "bootstrap::tests::a_root_whose_key_is_in_a_token_signs_there_and_nowhere_else",
            root_in_a_token(),
        );
    }

    async fn root_in_a_token() {
        let module = make_token(&[("kek", false)], &["root", "other"]);
        let folder = tempfile::tempdir().unwrap();
        let stored = config(folder.path());
        let config = Config {
            root_token: Some(settings("root")),
            kek: KekSource::Token(settings("kek")),
            ..stored.clone()
        };
        start(&config).await.unwrap();
        assert!(!config.data_dir.join("kek").exists());
        let (tasks, _failures) = Tasks::new();
        let opened = open(&config, None, &SystemClock, &tasks).await.unwrap();
        log_out(&module);
        let account = "accounts/acme".parse().unwrap();
        let (_, scope) = opened.vault.new_scope("accounts/acme").await.unwrap();
        let now = SystemClock.now();
        let first = ca::NewGeneration::FIRST;
        let store = opened.store.as_ref();
        let made = ca::new_account_authority(&account, first, &opened.root, &scope, store, now);
        // Making it includes the check that the root's key signed it.
        assert!(made.await.unwrap().provenance.is_some());
        drop(opened);
        tasks
            .stop(std::time::Duration::from_secs(10))
            .await
            .unwrap();

        let before = contents(&config.data_dir);
        let stored = Config {
            kek: config.kek.clone(),
            ..stored
        };
        let without = start(&stored).await.unwrap_err().to_string();
        assert!(
            without.contains("configure certificates.root_token"),
            "{without}"
        );
        let other = Config {
            root_token: Some(settings("other")),
            ..stored.clone()
        };
        let other = start(&other).await.unwrap_err().to_string();
        assert!(other.contains("is not the key of"), "{other}");
        let away = Config {
            root_token: Some(settings("gone")),
            ..stored
        };
        let away = start(&away).await.unwrap_err().to_string();
        assert!(away.contains("pkcs11-tool"), "{away}");
        assert_eq!(contents(&config.data_dir), before);
        start(&config).await.unwrap();
    }

    #[test]
    fn a_root_does_not_move_into_a_token_later() {
        in_a_process_of_its_own(
            "bootstrap::tests::a_root_does_not_move_into_a_token_later",
            root_stays(),
        );
    }

    async fn root_stays() {
        make_token(&[], &["root"]);
        let folder = tempfile::tempdir().unwrap();
        let stored = config(folder.path());
        start(&stored).await.unwrap();
        let moved = Config {
            root_token: Some(settings("root")),
            ..stored
        };
        let error = start(&moved).await.unwrap_err().to_string();
        assert!(error.contains("at the first start only"), "{error}");
    }

    #[tokio::test]
    async fn a_kek_is_replaced_and_an_interruption_goes_on_with_both() {
        let folder = tempfile::tempdir().unwrap();
        let first = config(folder.path());
        start(&first).await.unwrap();
        let new = KekSource::File(folder.path().join("new-kek"));
        let without = Config {
            kek: new.clone(),
            ..first.clone()
        };
        let both = Config {
            previous_kek: Some(first.kek.clone()),
            ..without.clone()
        };
        let refused = start(&without).await.unwrap_err().to_string();
        assert!(refused.contains("is missing"), "{refused}");

        let (tasks, _failures) = Tasks::new();
        let opened = open(&both, None, &SystemClock, &tasks).await.unwrap();
        let (key, _) = opened.vault.new_scope("accounts/new").await.unwrap();
        assert_eq!(key.kek_id, opened.vault.kek_id());
        let old = opened.store.data_key(INSTALLATION).await.unwrap();
        assert_ne!(old.kek_id, key.kek_id);
        drop(opened);
        tasks
            .stop(std::time::Duration::from_secs(10))
            .await
            .unwrap();
        // Nothing is wrapped anew yet: the old one is still needed, and nothing was changed.
        let refused = start(&without).await.unwrap_err().to_string();
        assert!(refused.contains("was sealed with KEK"), "{refused}");
        start(&first).await.unwrap();

        let (tasks, _failures) = Tasks::new();
        let opened = open(&both, None, &SystemClock, &tasks).await.unwrap();
        let rewrapping = crate::rewrapping::Rewrapping {
            store: Arc::clone(&opened.store),
            vault: Arc::clone(&opened.vault),
        };
        rewrapping.run(tasks.shutdown().clone()).await.unwrap();
        drop(opened);
        tasks
            .stop(std::time::Duration::from_secs(10))
            .await
            .unwrap();
        start(&without).await.unwrap();
        let refused = start(&first).await.unwrap_err().to_string();
        assert!(refused.contains("was sealed with KEK"), "{refused}");
    }
}
