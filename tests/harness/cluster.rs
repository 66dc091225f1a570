//! Several control planes over one PostgreSQL server, with a destination and its receiver.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use crate::{
    agent::Agent, certificates::TestCertificate, control_plane::ControlPlane, folder::Folder,
    grpcurl::Grpcurl, receiver::Receiver, setting::Setting, tools::PROGRAM, wait::wait_for,
};

/// Reached only when something is lost.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Several control planes, a destination, and its receiver.
pub struct Cluster {
    /// With the first control plane, where agents enroll.
    pub first: Setting,
    /// The others.
    pub others: Vec<ControlPlane>,
    /// Where deliveries go.
    pub receiver: Receiver,
    /// Resource name of the account.
    pub account: String,
    /// Resource name of the destination.
    pub destination: String,
}

impl Cluster {
    /// As many control planes as there are configurations; the first is the installation's first start.
    ///
    /// # Panics
    /// When something does not start.
    pub fn new(folder: Folder, settings: &[String]) -> Self {
        let first = Setting::in_folder(folder, &settings[0], "info");
        let mut others = Vec::new();
        for (number, toml) in settings.iter().enumerate().skip(1) {
            let work = first.folder.join(format!("plane-{}", number + 1));
            give_kek(&first.control_plane, &work);
            // What is named for the first runs as the others, too.
            let _ = fs::copy(first.folder.join(PROGRAM), work.join(PROGRAM));
            others.push(ControlPlane::start(&work, toml));
        }
        let account = first.account("acme");
        let server = TestCertificate::make(&first.folder.subfolder("server"));
        let receiver = Receiver::start(&server, &first.trust_bundle(&account));
        let url = receiver.url("/hooks");
        let destination = first.destination(&account, "orders", &url, &server.ca_pem);
        Self {
            first,
            others,
            receiver,
            account,
            destination,
        }
    }

    /// One of them; 0 is the first.
    pub fn plane(&mut self, number: usize) -> &mut ControlPlane {
        match number.checked_sub(1) {
            None => &mut self.first.control_plane,
            Some(other) => &mut self.others[other],
        }
    }

    /// The folder of one of them; 0 is the first.
    pub fn work(&self, number: usize) -> PathBuf {
        match number {
            0 => self.first.folder.to_path_buf(),
            other => self.first.folder.join(format!("plane-{}", other + 1)),
        }
    }

    /// A caller of another control plane with the administrator's API key, which the first start made.
    pub fn other_api(&self, other: usize) -> Grpcurl {
        let key = self.first.control_plane.admin_key();
        self.others[other].anonymous_api().with_key(&key)
    }

    /// An agent that any of them can serve.
    pub fn agent(&self, name: &str) -> Agent {
        let all = [&self.first.control_plane].into_iter().chain(&self.others);
        let urls: Vec<String> = all.map(ControlPlane::agents_url).collect();
        self.agent_of(name, &urls)
    }

    /// An agent that is served by control planes at `urls`.
    pub fn agent_of(&self, name: &str, urls: &[String]) -> Agent {
        self.agent_with(name, urls, None)
    }

    /// As [`Cluster::agent_of`], with a configuration file.
    ///
    /// # Panics
    /// When enrolling fails.
    pub fn agent_with(&self, name: &str, urls: &[String], file: Option<&Path>) -> Agent {
        let data_dir = self.first.enrolled(name);
        let file = file.map(|file| ["--config", file.to_str().expect("a path in UTF-8")]);
        let flags: Vec<&str> = urls
            .iter()
            .flat_map(|url| ["--control-plane", url])
            .chain(file.into_iter().flatten())
            .collect();
        let work = self.first.folder.subfolder(&format!("work-of-{name}"));
        Agent::start(&work, &data_dir, &flags)
    }

    /// Waits until so many different deliveries have arrived.
    pub fn has_arrived(&self, count: usize) {
        wait_for("every accepted delivery to arrive", DEADLINE, || {
            self.receiver.distinct() >= count
        });
    }

    /// By what the database answers to `ask`: every delivery is DELIVERED, has as many attempts as were counted, and none is leased; and the
    /// audit log is one whole chain.
    ///
    /// # Panics
    /// When it is not so.
    pub fn assert_all_settled(&self, ask: impl Fn(&str) -> String) {
        wait_for("the store to say DELIVERED for all", DEADLINE, || {
            ask("SELECT count(*) FROM countersign.deliveries WHERE state <> 3") == "0"
        });
        let leases = ask("SELECT count(*) FROM countersign.leases");
        assert_eq!(leases, "0", "leases of what is settled");
        let differing = "SELECT count(*) FROM countersign.deliveries d WHERE attempt_count <>
                         (SELECT count(*) FROM countersign.attempts a WHERE a.delivery = d.id)";
        assert_eq!(
            ask(differing),
            "0",
            "attempts that were counted and not recorded"
        );
        let verified = self
            .first
            .api()
            .ok("AuditService/VerifyAuditLog", &json!({}));
        assert_eq!(verified["intact"], true, "{verified}");
    }
}

/// As an operator does: every control plane has the KEK.
fn give_kek(first: &ControlPlane, work: &Path) {
    let data_dir = work.join("control-plane");
    fs::create_dir_all(&data_dir).unwrap();
    let private = fs::metadata(first.data_dir()).unwrap();
    fs::set_permissions(&data_dir, private.permissions()).unwrap();
    fs::copy(first.data_dir().join("kek"), data_dir.join("kek")).unwrap();
}
