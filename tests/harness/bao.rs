//! OpenBao as a key service: a server over TLS with its data on disk, which is killed, started again and
//! unsealed, and configured with its own command as its operators do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    certificates::TestCertificate,
    ports::free_port,
    process::{Process, run},
    tools,
    wait::{PATIENCE, wait_until},
};

/// A running server.
pub struct Bao {
    folder: PathBuf,
    port: u16,
    unseal_key: String,
    root_token: String,
    process: Process,
}

impl Bao {
    /// Starts one with its files in `folder`, and unseals it.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(folder: &Path) -> Self {
        let certificate = TestCertificate::make(folder);
        let port = free_port();
        let (data, certificate, key) = (
            folder.join("data"),
            certificate.certificate,
            certificate.key,
        );
        fs::create_dir(&data).expect("a folder");
        let (data, certificate, key) = (data.display(), certificate.display(), key.display());
        let toml = format!(
            r#"
            log_level = "warn"
            api_addr = "https://127.0.0.1:{port}"
            cluster_addr = "https://127.0.0.1:{}"
            storage "raft" {{
              path = "{data}"
              node_id = "one"
            }}
            listener "tcp" {{
              address = "127.0.0.1:{port}"
              tls_cert_file = "{certificate}"
              tls_key_file = "{key}"
            }}
            "#,
            free_port(),
        );
        fs::write(folder.join("bao.hcl"), toml).expect("its configuration");
        let mut server = Self {
            process: Self::launch(folder),
            folder: folder.to_owned(),
            port,
            unseal_key: String::new(),
            root_token: String::new(),
        };
        let init = [
            "operator",
            "init",
            "-key-shares=1",
            "-key-threshold=1",
            "-format=json",
        ];
        let made = server.process.wait_until("OpenBao to answer", || {
            let mut command = command(folder, port, "");
            let finished = run(command.args(init), b"");
            serde_json::from_str::<Value>(&finished.stdout).ok()
        });
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        server.unseal_key = text(&made["unseal_keys_b64"][0]);
        server.root_token = text(&made["root_token"]);
        server.unseal();
        server
    }

    fn launch(folder: &Path) -> Process {
        let mut command = Command::new(tools::bao());
        let config = folder.join("bao.hcl");
        command
            .arg("server")
            .arg(format!("-config={}", config.display()));
        Process::start(command, "openbao", folder)
    }

    /// Ends it as a power cut would.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again, sealed.
    pub fn restart(&mut self) {
        self.process = Self::launch(&self.folder);
    }

    /// Unseals it, as soon as it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn unseal(&mut self) {
        let (folder, port, key) = (&self.folder, self.port, &self.unseal_key);
        self.process.wait_until("OpenBao to be unsealed", || {
            let mut command = command(folder, port, "");
            let finished = run(command.args(["operator", "unseal", key]), b"");
            finished.status.success().then_some(())
        });
        wait_until("OpenBao to serve", PATIENCE, || {
            let mut command = command(&self.folder, self.port, &self.root_token);
            let finished = run(command.args(["token", "lookup"]), b"");
            finished.status.success().then_some(())
        });
    }

    /// Runs its command with these arguments, as its administrator; gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.run_with(arguments, b"")
    }

    /// As [`Bao::run`], with something on standard input.
    ///
    /// # Panics
    /// When it fails.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = command(&self.folder, self.port, &self.root_token);
        let finished = run(command.args(arguments), input);
        assert!(finished.status.success(), "bao {arguments:?}: {finished:?}");
        finished.stdout.trim().to_owned()
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The authority of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }
}

/// Its data goes with the folder: there is nothing to stop it gracefully for, which takes seconds.
impl Drop for Bao {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.kill9();
        }
    }
}

fn command(folder: &Path, port: u16, token: &str) -> Command {
    let mut command = Command::new(tools::bao());
    command
        .env("BAO_ADDR", format!("https://127.0.0.1:{port}"))
        .env("BAO_CACERT", folder.join("ca.pem"))
        .env("BAO_TOKEN", token)
        // Where it would keep the token of whoever runs the tests.
        .env("HOME", folder);
    command
}
