//! A PostgreSQL server of a test's own: in a temporary folder, on a socket there, gone with the test.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    sync::Arc,
};

use countersign_shared::tasks::{self, Tasks};

use super::{Options, PostgresStore, Programs};

/// How long a server may take to start.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A running server.
pub(in crate::store) struct Server {
    folder: tempfile::TempDir,
    programs: Programs,
    child: Child,
}

impl Server {
    /// Makes a cluster and starts it.
    pub(in crate::store) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs::for_folder(folder.path()).unwrap();
        let data = folder.path().join("data");
        let arguments = ["--auth=trust", "--username=postgres", "--no-sync"];
        programs.make_cluster(&data, &arguments).unwrap();
        let child = run(&programs, folder.path());
        let server = Self {
            folder,
            programs,
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
        self.programs.stop_at_once(&self.folder.path().join("data"));
        let _ = self.child.wait();
    }
}

fn run(programs: &Programs, folder: &Path) -> Child {
    let mut server = programs.command("postgres");
    server.arg("-D").arg(folder.join("data"));
    server.arg("-k").arg(folder);
    server.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
    let log = fs::File::create(folder.join("log")).unwrap();
    server
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    server.spawn().unwrap()
}
