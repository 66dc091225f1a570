//! Settings of the store.

use std::{net::IpAddr, path::PathBuf};

use countersign_shared::config::Reader;

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreSource {
    /// In the data directory.
    #[default]
    Embedded,
    /// On a PostgreSQL server.
    Postgres(PostgresSource),
}

/// How a PostgreSQL server is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSource {
    /// Servers, database and user, as a URL that can be read and has no password in it.
    pub url: String,
    /// Where the password is, if there is one.
    pub password_file: Option<PathBuf>,
    /// Authorities that the servers' certificates are checked with; `None`: without TLS.
    pub ca_file: Option<PathBuf>,
}

const URL: &str = "store.url";
const CA_FILE: &str = "store.ca_file";

pub(super) fn store(reader: &mut Reader) -> StoreSource {
    let url = reader.text(URL);
    let password_file = reader.path("store.password_file");
    let ca_file = reader.path(CA_FILE);
    let Some(url) = url else {
        if password_file.is_some() || ca_file.is_some() {
            reader.mistake(URL, "is missing: the other settings of the store need it");
        }
        return StoreSource::Embedded;
    };
    // The parser's own words can hold what was given, and that may be a password.
    let Some(config) = parse(&url) else {
        let problem = "is not the address of a PostgreSQL database: write it as \
                       postgres://user@host:5432/database, with several hosts as host1,host2";
        reader.mistake(URL, problem);
        return StoreSource::Embedded;
    };
    if config.get_password().is_some() {
        let problem = "must not have a password in it: put that in a file that only the control plane \
                       reads, and name it with store.password_file";
        reader.mistake(URL, problem);
    }
    let plain = config.get_ssl_mode() == postgres::config::SslMode::Disable;
    match (&ca_file, plain || is_local(&config)) {
        (None, false) => reader.mistake(
            CA_FILE,
            "is missing: the servers' certificates are checked with it; for a connection without TLS \
             add sslmode=disable to store.url",
        ),
        (Some(_), _) if plain => {
            reader.mistake(CA_FILE, "has no use with sslmode=disable in store.url");
        }
        _ => {}
    }
    StoreSource::Postgres(PostgresSource {
        url,
        password_file,
        ca_file,
    })
}

fn parse(url: &str) -> Option<postgres::Config> {
    let scheme = ["postgres://", "postgresql://"];
    if !scheme.iter().any(|scheme| url.starts_with(scheme)) {
        return None;
    }
    url.parse().ok()
}

/// Whether nothing of it leaves the machine.
fn is_local(config: &postgres::Config) -> bool {
    let is_local = |host: &postgres::config::Host| match host {
        postgres::config::Host::Tcp(host) => {
            host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback())
        }
        postgres::config::Host::Unix(_) => true,
    };
    let addresses = config.get_hostaddrs();
    config.get_hosts().iter().all(is_local) && addresses.iter().all(IpAddr::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<StoreSource, String> {
        let mut reader = Reader::new("test", text, Vec::new());
        let source = store(&mut reader);
        let read = reader.finish(|| Some(source));
        read.map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn without_settings_it_is_embedded() {
        assert_eq!(read(""), Ok(StoreSource::Embedded));
    }

    #[test]
    fn several_servers_and_files_are_taken() {
        let text = "[store]\nurl = 'postgres://countersign@one:5432,two:5433/prod'\n\
                    password_file = '/run/password'\nca_file = '/etc/ca.pem'\n";
        let Ok(StoreSource::Postgres(source)) = read(text) else {
            panic!("{:?}", read(text));
        };
        assert_eq!(source.url, "postgres://countersign@one:5432,two:5433/prod");
        assert_eq!(source.ca_file, Some("/etc/ca.pem".into()));
    }

    #[test]
    fn what_would_be_unsafe_or_makes_no_sense_is_refused() {
        for (text, expected) in [
            ("url = 'mysql://x'", "is not the address"),
            ("url = 'postgres://u:hunter2@localhost/x'", "password_file"),
            ("url = 'postgres://u@db.example/x'", "store.ca_file"),
            (
                "url = 'postgres://u@localhost/x?hostaddr=192.0.2.1'",
                "store.ca_file",
            ),
            ("ca_file = '/etc/ca.pem'", "store.url"),
            (
                "url = 'postgres://u@db.example/x?sslmode=disable'\nca_file = '/etc/ca.pem'",
                "has no use",
            ),
        ] {
            let mistakes = read(&format!("[store]\n{text}\n")).unwrap_err();
            assert!(mistakes.contains(expected), "{mistakes}");
            assert!(!mistakes.contains("hunter2"), "{mistakes}");
        }
        for fine in [
            "url = 'postgres://u@127.0.0.1/x'",
            "url = 'postgres://u@db.example/x?sslmode=disable'",
        ] {
            assert!(read(&format!("[store]\n{fine}\n")).is_ok());
        }
    }
}
