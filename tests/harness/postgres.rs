//! A PostgreSQL server of a story's own, as a bank would run it: over TLS only, with a password, and
//! every commit on disk before it is answered.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use countersign_control_plane::store::postgres::Programs;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    authority::{Authority, NOW},
    ports::free_port,
    process::{Process, run},
    tools,
    wait::{PATIENCE, wait_until},
};

/// A running server, with a database `countersign` and a user of the same name who owns it.
pub struct Postgres {
    /// Before the folder: it has to stop before its files go.
    process: Process,
    folder: TempDir,
    programs: Programs,
    port: u16,
    ca_pem: String,
}

const PASSWORD: &str = "a password with spaces";

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When that fails.
    pub fn start() -> Self {
        let prefix = format!("{}-postgres-", tools::run_mark());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let programs = Programs::for_folder(folder.path()).expect("PostgreSQL's programs");
        let authority = Authority::new("the database's authority");
        let leaf = authority.server(NOW);
        for (name, text) in [
            ("server.crt", leaf.pem()),
            ("server.key", leaf.key_pem()),
            ("password", PASSWORD),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            programs.give(&path).unwrap();
        }
        let data = folder.path().join("data");
        let password = format!("--pwfile={}", folder.path().join("password").display());
        let arguments = ["--auth=scram-sha-256", "--username=countersign", &password];
        programs.make_cluster(&data, &arguments).unwrap();
        fs::write(
            data.join("pg_hba.conf"),
            "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
        let port = free_port();
        let process = serve(&programs, folder.path(), port);
        let server = Self {
            process,
            folder,
            programs,
            port,
            ca_pem: authority.pem(),
        };
        server.wait_until_up();
        server.sql("postgres", "CREATE DATABASE countersign");
        server
    }

    /// The settings of a control plane that has its store there; the files that they name are written to
    /// `folder`.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn settings(&self, folder: &Path) -> String {
        self.settings_at(folder, self.address().port())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// As [`Postgres::settings`], by way of another port of this host.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn settings_at(&self, folder: &Path, port: u16) -> String {
        let (password, ca) = (folder.join("db-password"), folder.join("db-ca.pem"));
        fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&ca, &self.ca_pem).unwrap();
        format!(
            "[store]\nurl = \"postgres://countersign@localhost:{port}/countersign\"\n\
             password_file = {password:?}\nca_file = {ca:?}\n"
        )
    }

    /// The answer of `psql` to a statement, without decoration.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn ask(&self, statement: &str) -> String {
        self.sql("countersign", statement)
    }

    fn sql(&self, database: &str, statement: &str) -> String {
        let answered = run(&mut self.psql(database, statement), b"");
        assert!(answered.status.success(), "{statement}: {}", answered.all());
        answered.stdout.trim().to_owned()
    }

    fn psql(&self, database: &str, statement: &str) -> Command {
        let mut psql = self.programs.command("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "countersign",
        ]);
        psql.arg("-h").arg(self.folder.path());
        psql.args([
            "-p",
            &self.port.to_string(),
            "-d",
            database,
            "-c",
            statement,
        ]);
        psql
    }

    fn wait_until_up(&self) {
        wait_until("the database to answer", PATIENCE, || {
            let asked = run(&mut self.psql("postgres", "SELECT 1"), b"");
            asked.status.success().then_some(())
        });
    }

    /// Stops every process of it where it is, as a host that hangs would.
    pub fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let mut all = children(self.process.id());
        all.push(self.process.id());
        for id in all {
            // One that has ended meanwhile needs nothing.
            let id = Pid::from_raw(id.cast_signed()).expect("a process id");
            let _ = kill_process(id, signal);
        }
    }

    /// Ends it at once, with whatever it was doing (`immediate`: as a crash, without a checkpoint), and
    /// starts it again.
    pub fn crash_and_restart(&mut self) {
        self.stop_at_once();
        self.process = serve(&self.programs, self.folder.path(), self.port);
        self.wait_until_up();
    }

    fn stop_at_once(&mut self) {
        self.programs.stop_at_once(&self.folder.path().join("data"));
        self.process.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its other processes have groups of their own.
        self.resume();
        if self.process.ended().is_none() {
            self.stop_at_once();
        }
    }
}

fn serve(programs: &Programs, folder: &Path, port: u16) -> Process {
    let mut server = programs.command("postgres");
    server.arg("-D").arg(folder.join("data"));
    server.arg("-k").arg(folder);
    server.args(["-p", &port.to_string()]);
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    for setting in [
        "listen_addresses=localhost".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ] {
        server.args(["-c", &setting]);
    }
    Process::start(server, "postgres", folder)
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let path = PathBuf::from(format!("/proc/{parent}/task/{parent}/children"));
    let list = fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}
