//! What a key service asks of Kubernetes: who a service account's token belongs to (`kubernetes.py`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{certificates::TestCertificate, process::Process, tools};

/// A running cluster, as far as a key service sees it.
pub struct Kubernetes {
    port: u16,
    token: PathBuf,
    certificate: TestCertificate,
    _process: Process,
}

impl Kubernetes {
    /// Starts one with its files in `folder`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(folder: &Path) -> Self {
        let certificate = TestCertificate::make(folder);
        let mut command = Command::new(tools::python());
        command
            .arg(tools::project().join("tests/harness/kubernetes.py"))
            .args([folder, &certificate.certificate, &certificate.key]);
        let mut process = Process::start(command, "kubernetes", folder);
        let port = process.wait_until("its port file", || {
            fs::read_to_string(folder.join("port")).ok()?.parse().ok()
        });
        Self {
            port,
            token: folder.join("token"),
            certificate,
            _process: process,
        }
    }

    /// Where its API is.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The authority of its server certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.certificate.ca_pem
    }

    /// The token of a pod of the service account `control-plane` in the namespace `countersign`.
    pub fn token_file(&self) -> &Path {
        &self.token
    }
}
