//! A control plane over a real store, as far as rotation needs it, and its restarts.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use countersign_shared::{
    name::AccountName,
    secret::SecretBytes,
    tasks::Tasks,
    time::{Clock, ManualClock},
};
use tempfile::TempDir;
use toml::Value;

use super::{
    super::{
        testing::{DAY, HOUR, LIFE, MINUTE},
        *,
    },
    dice::within,
    fleet::Fleet,
    world::{ACCOUNTS, World},
};
use crate::{
    accounts::Accounts,
    alerts::Alerts,
    bootstrap::{self, Opened},
    config::Config,
    crl::RevocationLists,
    deliveries::Backlog,
    issuing::Issuing,
    kek::{FileKek, KekError, KekProvider},
    metrics::Metrics,
    model::KekSource,
    signals::{Changes, Holds, Poke},
    store::Store,
    vault::Vault,
};

/// A KEK that does not answer now and then.
#[derive(Debug)]
struct Reluctant {
    kek: FileKek,
    world: Locked,
    clock: Arc<ManualClock>,
}

#[derive(Clone)]
struct Locked(Arc<Mutex<World>>);

impl std::fmt::Debug for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locked").finish_non_exhaustive()
    }
}

#[async_trait]
impl KekProvider for Reluctant {
    fn id(&self) -> &str {
        self.kek.id()
    }

    async fn wrap(&self, key: &SecretBytes, context: &str) -> Result<Vec<u8>, KekError> {
        self.kek.wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &str) -> Result<SecretBytes, KekError> {
        if within(&self.world.0.lock().unwrap().locked, self.clock.now()) {
            return Err(KekError::Io("no answer".to_owned()));
        }
        self.kek.unwrap(wrapped, context).await
    }

    async fn check(&self) -> Result<(), KekError> {
        self.kek.check().await
    }
}

/// Waits that let a year pass in few steps. What they are by default is `policy`'s to test.
fn policy() -> Policy {
    Policy {
        retry: (10 * MINUTE, 8 * HOUR),
        look: 2 * HOUR,
        remind: DAY,
        patience: 6 * HOUR,
        longest: 100 * DAY,
        ..Policy::new(LIFE, 2 * DAY)
    }
}

/// The folder in which everything is kept: in memory where there is such a place, because nobody
/// pulls the plug on a test.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    match memory.is_dir() {
        true => builder.tempdir_in(memory),
        false => builder.tempdir(),
    }
    .unwrap()
}

/// One run of the control plane.
pub(super) struct Run {
    pub(super) rotations: Rotations,
    pub(super) authorities: Authorities,
    pub(super) fleet: Fleet,
    pub(super) store: Arc<dyn Store>,
    pub(super) vault: Arc<Vault>,
    opened: Opened,
    tasks: Tasks,
}

/// The control plane's files, and what is around it.
pub(super) struct Plane {
    config: Config,
    pub(super) clock: Arc<ManualClock>,
    pub(super) world: Arc<Mutex<World>>,
    _folder: TempDir,
}

impl Plane {
    /// The first start: with its accounts.
    pub(super) async fn new(world: World, clock: Arc<ManualClock>) -> (Self, Run) {
        let folder = folder();
        let data = folder.path().join("data").display().to_string();
        let settings = vec![("data_dir", Value::String(data))];
        let plane = Self {
            config: Config::read("test", "", settings).unwrap(),
            clock,
            world: Arc::new(Mutex::new(world)),
            _folder: folder,
        };
        let run = plane.start().await;
        for id in ACCOUNTS {
            let name: AccountName = format!("accounts/{id}").parse().unwrap();
            let accounts = Accounts {
                store: Arc::clone(&run.store),
                vault: Arc::clone(&run.opened.vault),
                root: Arc::clone(&run.opened.root),
                lists: run.rotations.lists.clone(),
                backlog: Arc::new(Backlog::new(plane.config.backlog, Metrics::default())),
                clock: plane.clock(),
            };
            accounts.create(name, id.to_owned(), None).await.unwrap();
        }
        (plane, run)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<ManualClock>::clone(&self.clock)
    }

    /// Opens the store and builds everything anew.
    pub(super) async fn start(&self) -> Run {
        let (tasks, _) = Tasks::new();
        let opened = bootstrap::open(&self.config, None, self.clock.as_ref(), &tasks);
        let opened = opened.await.unwrap();
        let KekSource::File(kek_file) = &self.config.kek else {
            panic!("the year's KEK is in a file");
        };
        let vault = Arc::new(Vault::new(Arc::new(Reluctant {
            kek: FileKek::read(kek_file).unwrap().unwrap(),
            world: Locked(Arc::clone(&self.world)),
            clock: Arc::clone(&self.clock),
        })));
        let store = Arc::clone(&opened.store);
        let lists = RevocationLists {
            store: Arc::clone(&store),
            vault: Arc::clone(&opened.vault),
            due: Arc::new(Poke::default()),
            clock: self.clock(),
        };
        let fleet = Fleet {
            world: Arc::clone(&self.world),
            store: Arc::clone(&store),
            clock: self.clock(),
        };
        let (changes, poke) = (Arc::new(Changes::default()), Arc::new(Poke::default()));
        let metrics = Metrics::default();
        let rotations = Rotations {
            store: Arc::clone(&store),
            issuing: Issuing {
                store: Arc::clone(&store),
                vault: Arc::clone(&vault),
                root: Arc::clone(&opened.root),
                trust_domain: "countersign.test".into(),
                delivery_domain: "countersign.test".into(),
                life: LIFE,
                opened: Arc::default(),
                clock: self.clock(),
            },
            agents: Arc::new(fleet.clone()),
            alerts: Alerts::new(Arc::clone(&store), self.clock(), metrics.clone(), None),
            changes: Arc::clone(&changes),
            holds: Arc::new(Holds::default()),
            wake: Arc::default(),
            poke: Arc::clone(&poke),
            lists: lists.clone(),
            policy: policy(),
            metrics,
            clock: self.clock(),
        };
        let authorities = Authorities {
            store: Arc::clone(&store),
            vault: Arc::clone(&opened.vault),
            root: Arc::clone(&opened.root),
            agents: Arc::new(fleet.clone()),
            changes,
            poke,
            lists,
            opened: Arc::clone(&rotations.issuing.opened),
            clock: self.clock(),
        };
        Run {
            rotations,
            authorities,
            fleet,
            store,
            vault,
            opened,
            tasks,
        }
    }
}

impl Run {
    /// Ends, with the store's threads: only then can the store be opened again.
    pub(super) async fn stop(self) {
        let tasks = self.tasks.clone();
        drop(self);
        tasks.stop(Duration::from_secs(10)).await.unwrap();
    }
}
