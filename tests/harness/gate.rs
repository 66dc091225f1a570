//! nginx as a receiver's gatekeeper that answers by itself: it lets client certificates in by rules
//! that a story changes while deliveries come, and notes what came, when, and with which certificate.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
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

/// A running gatekeeper.
pub struct Gate {
    port: u16,
    folder: PathBuf,
    process: Process,
}

/// Whom it lets in.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The only authorities whose client certificates it takes, in PEM.
    pub trusted: String,
    /// Revocation lists in PEM, one for each authority; without any it does not look.
    pub revocation_lists: String,
    /// Common names that it lets in; everybody else gets 403. Empty: every name.
    pub common_names: Vec<String>,
    /// Serial numbers, in any case, whose deliveries get 403; probes get through.
    pub forbidden_serials: Vec<String>,
    /// Port of the application that answers, on the loopback interface. `None`: nginx answers by itself.
    pub application: Option<u16>,
}

/// One request as it was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// When it was answered, in seconds since the Unix epoch.
    pub answered_at: f64,
    /// How long it took from its first byte, in seconds.
    pub took: f64,
    /// Status of the answer; 499 when the client went away before it.
    pub status: u16,
    /// `webhook-id`; empty without one.
    pub id: String,
    /// Serial number of the client certificate, in lower-case hex without leading zeros.
    pub serial: String,
}

impl Seen {
    /// When its first byte came, in seconds since the Unix epoch.
    pub fn began_at(&self) -> f64 {
        self.answered_at - self.took
    }
}

impl Gate {
    /// Starts one with its files in `folder`, its own certificate `server` and the rules to begin with.
    ///
    /// # Panics
    /// When it does not come up, five ports later.
    pub fn start(folder: PathBuf, server: &TestCertificate, rules: &Rules) -> Self {
        for _ in 0..5 {
            let port = free_port();
            write(&folder, rules);
            let path = folder.join("nginx.conf");
            fs::write(&path, configuration(&folder, server, port)).expect("writing");
            if let Some(process) = try_start(&path, &folder) {
                return Self {
                    port,
                    folder,
                    process,
                };
            }
        }
        let log = fs::read_to_string(folder.join("gate.log"));
        panic!("nginx does not start: {}", log.unwrap_or_default());
    }

    /// Goes by these rules from now on: when this returns, every connection that came under the
    /// earlier ones is closed.
    ///
    /// # Panics
    /// When nginx does not take them.
    pub fn rule(&self, rules: &Rules) {
        write(&self.folder, rules);
        let before = self.workers();
        self.process.reload();
        wait_for("nginx to go by its new rules", PATIENCE, || {
            let now = self.workers();
            !now.is_empty() && now.is_disjoint(&before)
        });
    }

    /// Where it listens.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// What came, in the order of the answers.
    pub fn seen(&self) -> Vec<Seen> {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        // The last line may be half written.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().map(read).collect()
    }

    fn workers(&self) -> BTreeSet<u32> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        let ids = children.split_whitespace();
        ids.filter_map(|id| id.parse().ok()).collect()
    }
}

fn read(line: &str) -> Seen {
    let mut fields = line.split(' ');
    let mut next = || fields.next().expect("a field").trim_start_matches('-');
    Seen {
        answered_at: next().parse().expect("a time"),
        took: next().parse().expect("a time"),
        status: next().parse().expect("a status"),
        id: next().to_owned(),
        serial: short(next()),
    }
}

/// A serial number as it is compared: the API and nginx differ in case and in leading zeros.
pub fn short(serial: &str) -> String {
    serial.trim_start_matches('0').to_ascii_lowercase()
}

fn write(folder: &Path, rules: &Rules) {
    let file = |name: &str, text: &str| fs::write(folder.join(name), text).expect("writing");
    file("client-ca.pem", &rules.trusted);
    file("crl.pem", &rules.revocation_lists);
    let mut text = String::new();
    if !rules.revocation_lists.is_empty() {
        let path = folder.join("crl.pem");
        let _ = writeln!(text, "ssl_crl {};", path.display());
    }
    file("crl.conf", &text);
    // Distinguished names as RFC 4514 has them: the common name comes first and alone.
    let mut names = match rules.common_names.as_slice() {
        [] => "default 0;\n".to_owned(),
        _ => "default 1;\n".to_owned(),
    };
    for name in &rules.common_names {
        let _ = writeln!(names, "\"CN={name}\" 0;");
    }
    file("names.map", &names);
    let mut serials = "default 0;\n".to_owned();
    for serial in &rules.forbidden_serials {
        let _ = writeln!(serials, "\"~*^POST:0*{}$\" 1;", short(serial));
    }
    file("serials.map", &serials);
    let answer = match rules.application {
        Some(port) => format!("proxy_pass http://127.0.0.1:{port};\n"),
        None => "return 204;\n".to_owned(),
    };
    file("answer.conf", &answer);
}

/// `None` when somebody else was faster with the port.
fn try_start(configuration: &Path, folder: &Path) -> Option<Process> {
    let mut command = Command::new(tools::nginx());
    command.arg("-c").arg(configuration).arg("-p").arg(folder);
    command.args(["-e", "stderr"]);
    let mut process = Process::start(command, "gate", folder);
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

fn configuration(folder: &Path, server: &TestCertificate, port: u16) -> String {
    let folder = folder.display();
    let certificate = server.certificate.display();
    let key = server.key.display();
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
# A connection that never carried a request is not idle to nginx, which would wait a minute for one.
worker_shutdown_timeout 3s;
{user}
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    log_format facts '$msec $request_time $status $http_webhook_id -$ssl_client_serial';
    access_log {folder}/access.log facts;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $ssl_client_s_dn $stranger {{ include {folder}/names.map; }}
    map $request_method:$ssl_client_serial $forbidden {{ include {folder}/serials.map; }}
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_verify_client on;
        ssl_client_certificate {folder}/client-ca.pem;
        ssl_verify_depth 2;
        include {folder}/crl.conf;
        location / {{
            if ($stranger) {{ return 403; }}
            if ($forbidden) {{ return 403; }}
            include {folder}/answer.conf;
        }}
    }}
}}
"#
    )
}
