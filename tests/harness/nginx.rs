//! nginx as a receiver runs it: it demands a client certificate of one authority and hands what it
//! lets through to the application.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    certificates::TestCertificate,
    ports::free_port,
    process::Process,
    tools,
    wait::{PATIENCE, wait_for, wait_until},
};

/// A running nginx.
pub struct Nginx {
    port: u16,
    folder: PathBuf,
    process: Process,
}

/// What nginx is set up to do.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Its own certificate.
    pub server: &'a TestCertificate,
    /// The only authorities whose client certificates it takes, in PEM.
    pub client_authorities: &'a str,
    /// Port of the application on the loopback interface.
    pub application: u16,
}

impl Nginx {
    /// Starts one with its files in `folder`.
    ///
    /// # Panics
    /// When it does not come up, five ports later.
    pub fn start(folder: PathBuf, setup: &Setup<'_>) -> Self {
        fs::write(folder.join("client-ca.pem"), setup.client_authorities).expect("writing");
        for _ in 0..5 {
            let port = free_port();
            let path = folder.join("nginx.conf");
            fs::write(&path, configuration(&folder, setup, port)).expect("writing");
            if let Some(process) = try_start(&path, &folder) {
                return Self {
                    port,
                    folder,
                    process,
                };
            }
        }
        let log = fs::read_to_string(folder.join("nginx.log"));
        panic!("nginx does not start: {}", log.unwrap_or_default());
    }

    /// Makes it take client certificates of these authorities, in PEM, and of no other. It does so soon
    /// after this returns.
    ///
    /// # Panics
    /// When it has ended, or its folder can't be written.
    pub fn trust(&self, client_authorities: &str) {
        fs::write(self.folder.join("client-ca.pem"), client_authorities).expect("writing");
        self.process.reload();
    }

    /// As [`Nginx::trust`], and waits until no worker is left that trusts others: one that has not heard yet can still
    /// take a connection.
    ///
    /// # Panics
    /// As [`Nginx::trust`], or when a worker does not end.
    pub fn trust_at_last(&self, client_authorities: &str) {
        let before = self.workers();
        self.trust(client_authorities);
        wait_for("the workers of before to end", PATIENCE, || {
            self.workers().iter().all(|worker| !before.contains(worker))
        });
    }

    /// The process ids of its workers (`proc(5)`).
    fn workers(&self) -> Vec<String> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// Where it listens.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// The lines of its access log: status, verification result and the client's serial number.
    pub fn access_log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

/// `None` when somebody else was faster with the port.
fn try_start(configuration: &Path, folder: &Path) -> Option<Process> {
    let mut command = Command::new(tools::nginx());
    command.arg("-c").arg(configuration).arg("-p").arg(folder);
    command.args(["-e", "stderr"]);
    let mut process = Process::start(command, "nginx", folder);
    // It writes this file when it listens, so the port is its own and not somebody else's.
    let pid = process.id().to_string();
    let up = wait_until("nginx to listen", PATIENCE, || {
        if process.ended().is_some() {
            return Some(false);
        }
        let written = fs::read_to_string(folder.join("nginx.pid")).ok()?;
        (written.trim() == pid).then_some(true)
    });
    up.then_some(process)
}

fn configuration(folder: &Path, setup: &Setup<'_>, port: u16) -> String {
    let folder = folder.display();
    let certificate = setup.server.certificate.display();
    let key = setup.server.key.display();
    let application = setup.application;
    // As root, nginx would hand its work to a user who may not enter the test's folder.
    let user = if rustix::process::getuid().is_root() {
        "user root;"
    } else {
        ""
    };
    format!(
        r#"
daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    log_format facts '$status verify="$ssl_client_verify" serial=$ssl_client_serial $ssl_protocol';
    access_log {folder}/access.log facts;
    client_max_body_size 32m;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_verify_client on;
        ssl_client_certificate {folder}/client-ca.pem;
        ssl_verify_depth 1;
        location / {{
            proxy_pass http://127.0.0.1:{application};
            proxy_http_version 1.1;
            proxy_set_header connection "";
            proxy_set_header x-client-serial $ssl_client_serial;
            proxy_set_header x-client-subject $ssl_client_s_dn;
        }}
    }}
}}
"#
    )
}
