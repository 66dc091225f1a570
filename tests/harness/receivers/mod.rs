//! Servers that others wrote, run as a receiver runs them: each with the configuration that the
//! product gives for it, fitted to this machine as a receiver's people would.

mod apache;
mod caddy;
mod envoy;
mod haproxy;
mod nginx;
mod openssl;

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    authority::Leaf,
    ports::free_port,
    process::Process,
    wait::{PATIENCE, wait_until},
};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx.
    Nginx,
    /// HAProxy.
    HaProxy,
    /// Apache HTTP Server.
    Apache,
    /// Caddy.
    Caddy,
    /// Envoy.
    Envoy,
    /// `openssl s_server`: no HTTP, and no configuration of the product's.
    OpenSsl,
}

/// What a server is set up to do.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// The configuration that the product gives.
    pub text: &'a str,
    /// The trust anchors, in PEM.
    pub trust_anchor: &'a str,
    /// The server's own certificate.
    pub server: &'a Leaf,
    /// Port of the application on the loopback interface.
    pub application: u16,
    /// TLS 1.2 is all that it speaks.
    pub tls12_only: bool,
    /// It asks for a client certificate; otherwise what the product gives for that is taken out.
    pub asks: bool,
    /// A revocation list, in PEM.
    pub revocation_list: Option<&'a str>,
}

/// A running server.
pub struct Receiver {
    port: u16,
    process: Process,
}

/// A server's files and ports on this machine.
struct Place<'a> {
    folder: &'a Path,
    port: u16,
    setup: &'a Setup<'a>,
}

impl Receiver {
    /// Starts one with its files in `folder`.
    ///
    /// # Panics
    /// When it does not come up, five ports later.
    pub fn start(kind: Kind, folder: &Path, setup: &Setup<'_>) -> Self {
        write_files(folder, setup);
        for _ in 0..5 {
            let port = free_port();
            let place = Place {
                folder,
                port,
                setup,
            };
            let process = Process::start(place.command(kind), "server", folder);
            if let Some(process) = wait_until_it_listens(process, port) {
                return Self { port, process };
            }
        }
        let log = fs::read_to_string(folder.join("server.log"));
        panic!("{kind:?} does not start: {}", log.unwrap_or_default());
    }

    /// Ends it and starts another in its place, with its files in `folder`.
    ///
    /// # Panics
    /// When that does not come up.
    pub fn replace(&mut self, kind: Kind, folder: &Path, setup: &Setup<'_>) {
        self.process.stop();
        write_files(folder, setup);
        let place = Place {
            folder,
            port: self.port,
            setup,
        };
        let process = Process::start(place.command(kind), "server", folder);
        let process = wait_until_it_listens(process, self.port);
        self.process = process.expect("a server in the other's place");
    }

    /// Where it listens: by `name`, of which its certificate has `localhost` only.
    pub fn url(&self, name: &str) -> String {
        format!("https://{name}:{}/hooks", self.port)
    }
}

fn write_files(folder: &Path, setup: &Setup<'_>) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("writing");
    write("server.pem", setup.server.pem());
    write("server.key", setup.server.key_pem());
    let both = format!("{}{}", setup.server.pem(), setup.server.key_pem());
    write("server-with-key.pem", &both);
    write("acme-ca.pem", setup.trust_anchor);
    if let Some(list) = setup.revocation_list {
        write("acme-crl.pem", list);
    }
}

/// `None` when it has ended: somebody else was faster with the port.
fn wait_until_it_listens(mut process: Process, port: u16) -> Option<Process> {
    let up = wait_until("a server to listen", PATIENCE, || {
        if process.ended().is_some() {
            return Some(false);
        }
        TcpStream::connect(("127.0.0.1", port)).ok().map(|_| true)
    });
    up.then_some(process)
}

impl Place<'_> {
    fn command(&self, kind: Kind) -> Command {
        match kind {
            Kind::Nginx => nginx::command(self),
            Kind::HaProxy => haproxy::command(self),
            Kind::Apache => apache::command(self),
            Kind::Caddy => caddy::command(self),
            Kind::Envoy => envoy::command(self),
            Kind::OpenSsl => openssl::command(self),
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The product's text with paths and the application's port as they are here.
    fn fitted(&self) -> Text {
        let folder = format!("{}/", self.folder.display());
        Text(self.setup.text.to_owned())
            .replace("/etc/ssl/receiver/", &folder)
            .replace("/etc/countersign/", &folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("writing a configuration");
        path
    }
}

/// A configuration while it is fitted. What is to be changed has to be there: a text that the product
/// has changed is not silently left as it is.
struct Text(String);

impl Text {
    fn replace(self, from: &str, to: &str) -> Self {
        assert!(self.0.contains(from), "'{from}' is not in:\n{}", self.0);
        Self(self.0.replace(from, to))
    }

    fn replace_if(self, condition: bool, from: &str, to: &str) -> Self {
        if condition {
            self.replace(from, to)
        } else {
            self
        }
    }

    /// Without the lines from the one that contains `first` to the next that contains `last`.
    fn without_if(self, condition: bool, first: &str, last: &str) -> Self {
        if !condition {
            return self;
        }
        let lines: Vec<&str> = self.0.lines().collect();
        let from = lines.iter().position(|line| line.contains(first));
        let from = from.unwrap_or_else(|| panic!("'{first}' is not in:\n{}", self.0));
        let length = lines[from..].iter().position(|line| line.contains(last));
        let to = from + length.unwrap_or_else(|| panic!("no '{last}' after '{first}'"));
        let kept = lines[..from].iter().chain(&lines[to + 1..]);
        Self(kept.map(|line| format!("{line}\n")).collect())
    }
}
