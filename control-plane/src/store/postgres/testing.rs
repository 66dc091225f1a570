//! A PostgreSQL server of a test's own: in a temporary folder, on a socket there, gone with the test.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use countersign_shared::tasks::{self, Tasks};

use super::{Options, PostgresStore};

/// How long a server may take to start.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A running server.
pub(in crate::store) struct Server {
    folder: tempfile::TempDir,
    /// Whom it runs as: it refuses to run as root.
    user: Option<(u32, u32)>,
    child: Child,
}

impl Server {
    /// Makes a cluster and starts it.
    pub(in crate::store) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let user = other_user(folder.path());
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = folder.path().join("data");
        let mut initdb = command(user, "initdb");
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
            "--pgdata",
        ]);
        let made = initdb.arg(&data).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let child = run(user, folder.path());
        let server = Self {
            folder,
            user,
            child,
        };
        server.wait().await;
        server
    }

    /// A store with nothing in it, in the place of what was there.
    pub(in crate::store) async fn empty_store(&self, tasks: &Tasks) -> PostgresStore {
        let options = self.options();
        let emptied = tasks::blocking(move || {
            let mut client = options.connect().unwrap();
            let drop = "DROP SCHEMA IF EXISTS countersign CASCADE";
            client.batch_execute(drop).unwrap();
        });
        emptied.await.unwrap();
        PostgresStore::open(self.options(), tasks).await.unwrap()
    }

    /// How it is connected to.
    pub(super) fn options(&self) -> Arc<Options> {
        let mut config = postgres::Config::new();
        config
            .host_path(self.folder.path())
            .user("postgres")
            .dbname("postgres");
        Arc::new(Options::new(config, None))
    }

    fn stop(&mut self) {
        let mut stop = command(self.user, "pg_ctl");
        stop.args(["stop", "--mode=immediate", "--pgdata"]);
        let _ = stop.arg(self.folder.path().join("data")).output();
        let _ = self.child.wait();
    }

    async fn wait(&self) {
        let options = self.options();
        let connected = tasks::blocking(move || {
            let begun = std::time::Instant::now();
            while let Err(error) = options.connect() {
                assert!(begun.elapsed() < PATIENCE, "{error}");
                std::thread::yield_now();
            }
        });
        connected.await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(user: Option<(u32, u32)>, folder: &Path) -> Child {
    let mut server = command(user, "postgres");
    server.arg("-D").arg(folder.join("data"));
    server.arg("-k").arg(folder);
    server.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"));
    server
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.unwrap());
    server.spawn().unwrap()
}

/// A program of the newest version that is installed.
fn command(user: Option<(u32, u32)>, program: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("Debian's package postgresql");
    let newest: Option<PathBuf> = versions.map(|version| version.unwrap().path()).max();
    let mut command = Command::new(newest.unwrap().join("bin").join(program));
    // Not in a folder that the user may not see.
    command
        .current_dir("/")
        .env_clear()
        .env("LC_ALL", "C.UTF-8");
    if let Some((uid, gid)) = user {
        command.gid(gid).uid(uid);
    }
    command
}

/// The user that Debian's package made, if this is root.
fn other_user(ours: &Path) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    if ours.metadata().unwrap().uid() != 0 {
        return None;
    }
    let line = passwd
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .unwrap();
    let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
    Some((ids.next().unwrap(), ids.next().unwrap()))
}
