//! A PostgreSQL cluster as it is run in production: three servers under Patroni, which keeps one of them
//! the primary and its commits on a second (synchronous mode), with etcd to agree on that.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use countersign_control_plane::store::postgres::Programs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    http_get,
    ports::free_port,
    process::{Process, run},
    tools,
    wait::wait_until,
};

/// How long it may take to agree on something: its times are tens of seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running cluster.
pub struct Patroni {
    /// Before the folder: they have to stop before its files go.
    nodes: Vec<Node>,
    _etcd: Process,
    _folder: TempDir,
    programs: Programs,
}

struct Node {
    name: String,
    process: Process,
    data: PathBuf,
    database: u16,
    api: u16,
    alive: bool,
}

impl Patroni {
    /// Starts three servers and waits until one is the primary and another its synchronous standby.
    ///
    /// # Panics
    /// When that fails.
    pub fn start() -> Self {
        let prefix = format!("{}-patroni-", tools::run_mark());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let programs = Programs::for_folder(folder.path()).expect("PostgreSQL's programs");
        let (client, peer) = (free_port(), free_port());
        let etcd = start_etcd(folder.path(), &programs, client, peer);
        let nodes = (1..=3).map(|number| start_node(folder.path(), &programs, number, client));
        let cluster = Self {
            nodes: nodes.collect(),
            _etcd: etcd,
            _folder: folder,
            programs,
        };
        cluster.wait_for_standby();
        cluster
    }

    /// The settings of a control plane that has its store there, whichever server is the primary.
    pub fn settings(&self) -> String {
        let hosts = self.nodes.iter().fold(String::new(), |mut hosts, node| {
            let separator = if hosts.is_empty() { "" } else { "," };
            // Writing to a string never fails.
            let _ = write!(hosts, "{separator}127.0.0.1:{}", node.database);
            hosts
        });
        format!("[store]\nurl = \"postgres://countersign@{hosts}/postgres\"\n")
    }

    /// Waits until there is a primary that a standby follows synchronously.
    pub fn wait_for_standby(&self) {
        wait_until("a synchronous standby", PATIENCE, || {
            let members = self.members()?;
            let has = |role: &str, state: &[&str]| {
                members.iter().any(|member| {
                    member["role"] == role
                        && state.contains(&member["state"].as_str().unwrap_or(""))
                })
            };
            (has("leader", &["running"]) && has("sync_standby", &["running", "streaming"]))
                .then_some(())
        });
    }

    fn members(&self) -> Option<Vec<Value>> {
        let alive = self.nodes.iter().filter(|node| node.alive);
        alive.into_iter().find_map(|node| {
            let address = SocketAddr::from(([127, 0, 0, 1], node.api));
            let answer = http_get::get(address, "/cluster").ok()?;
            let answer: Value = serde_json::from_slice(&answer.body).ok()?;
            Some(answer["members"].as_array()?.clone())
        })
    }

    /// The primary's name.
    ///
    /// # Panics
    /// When there is none for long.
    pub fn primary(&self) -> String {
        wait_until("a primary", PATIENCE, || {
            let members = self.members()?;
            let leader = members
                .iter()
                .find(|member| member["role"] == "leader" && member["state"] == "running")?;
            Some(leader["name"].as_str()?.to_owned())
        })
    }

    /// Ends the primary as a power cut would: its server and what watches over it. Gives its name.
    ///
    /// # Panics
    /// When it can't be.
    pub fn kill9_primary(&mut self) -> String {
        let primary = self.primary();
        let node = self.nodes.iter_mut().find(|node| node.name == primary);
        let node = node.expect("one of the three");
        let server = fs::read_to_string(node.data.join("postmaster.pid")).unwrap();
        let server: i32 = server.lines().next().unwrap().parse().unwrap();
        node.process.kill9();
        node.alive = false;
        // Its other processes end when it does.
        kill_process(Pid::from_raw(server).unwrap(), Signal::KILL).unwrap();
        primary
    }

    /// The answer of `psql` to a statement, from the primary.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn ask(&self, statement: &str) -> String {
        let primary = self.primary();
        let node = self.nodes.iter().find(|node| node.name == primary).unwrap();
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
        psql.args(["-h", "127.0.0.1", "-d", "postgres", "-p"]);
        psql.args([&node.database.to_string(), "-c", statement]);
        let answered = run(&mut psql, b"");
        assert!(answered.status.success(), "{statement}: {}", answered.all());
        answered.stdout.trim().to_owned()
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if node.alive && node.process.ended().is_none() {
                // It stops its server.
                node.process.stop();
            }
        }
    }
}

fn start_etcd(folder: &Path, programs: &Programs, client: u16, peer: u16) -> Process {
    let mut etcd = programs.other("etcd");
    let client = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    etcd.arg("--data-dir").arg(folder.join("etcd"));
    etcd.args(["--name", "one", "--listen-client-urls", &client]);
    etcd.args([
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
    ]);
    etcd.args(["--initial-advertise-peer-urls", &peer]);
    etcd.args(["--initial-cluster", &format!("one={peer}")]);
    Process::start(etcd, "etcd", folder)
}

fn start_node(folder: &Path, programs: &Programs, number: u32, etcd: u16) -> Node {
    let name = format!("node{number}");
    let (database, api) = (free_port(), free_port());
    let data = folder.join(&name);
    let configuration = folder.join(format!("{name}.yml"));
    let text = format!(
        "scope: countersign
name: {name}
restapi: {{listen: '127.0.0.1:{api}', connect_address: '127.0.0.1:{api}'}}
etcd3: {{host: '127.0.0.1:{etcd}'}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 2
    retry_timeout: 5
    synchronous_mode: true
    postgresql: {{use_pg_rewind: false}}
  initdb: [{{encoding: UTF8}}, {{locale: C.UTF-8}}]
postgresql:
  listen: '127.0.0.1:{database}'
  connect_address: '127.0.0.1:{database}'
  data_dir: {data}
  bin_dir: {bin_dir}
  pgpass: {folder}/{name}.pgpass
  pg_hba:
    - local all all trust
    - host all all 127.0.0.1/32 trust
    - host replication all 127.0.0.1/32 trust
  parameters: {{unix_socket_directories: '{folder}'}}
  authentication:
    superuser: {{username: countersign}}
    replication: {{username: replicator}}
",
        data = data.display(),
        bin_dir = programs.folder().display(),
        folder = folder.display(),
    );
    fs::write(&configuration, text).unwrap();
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o644)).unwrap();
    let mut patroni = programs.other("patroni");
    patroni.arg(&configuration);
    Node {
        process: Process::start(patroni, &name, folder),
        name,
        data,
        database,
        api,
        alive: true,
    }
}
