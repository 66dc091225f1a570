//! The configuration of `agent run`: a TOML file, flags over it, read once, every mistake reported
//! at once. What enrollment decided (control plane, name, identity) is not in it.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use countersign_shared::{
    config::{Mistake, Mistakes, Reader},
    logging::{self, LogFormat},
};
use toml::Value;

/// How an agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where identity, key and journal are.
    pub data_dir: PathBuf,
    /// Where metrics and health are served; nowhere when absent.
    pub listen_http: Option<SocketAddr>,
    /// Most jobs in hand, unacknowledged outcomes included. 1 to 65,536, default 1,024.
    pub max_jobs: u32,
    /// Most payload bytes in hand; one job may exceed it. 64 KiB to 4 GiB, default 64 MiB.
    pub max_bytes: u64,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: String,
    /// How long stopping may take. 1 to 300 s, default 10 s.
    pub shutdown_deadline: Duration,
}

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// Settings that flags override, dotted.
    pub overrides: Vec<(&'static str, String)>,
}

/// Reads the configuration.
///
/// # Errors
/// [`Mistakes`]: everything that is wrong with it.
pub fn read(sources: Sources) -> Result<Config, Mistakes> {
    let (name, text) = match &sources.file {
        None => ("flags".to_owned(), String::new()),
        Some(path) => {
            let name = path.display().to_string();
            match fs::read_to_string(path) {
                Ok(text) => (name, text),
                Err(error) => {
                    let problem = format!("can't be read ({error})");
                    let setting = "--config".to_owned();
                    let list = vec![Mistake { setting, problem }];
                    return Err(Mistakes { source: name, list });
                }
            }
        }
    };
    parse(&name, &text, sources.overrides)
}

fn parse(
    name: &str,
    text: &str,
    overrides: Vec<(&'static str, String)>,
) -> Result<Config, Mistakes> {
    let overrides = overrides
        .into_iter()
        .map(|(setting, value)| (setting, Value::String(value)))
        .collect();
    let mut reader = Reader::new(name, text, overrides);
    let data_dir = reader.path("data_dir");
    let data_dir = reader.required("data_dir", data_dir);
    let listen_http = reader.listen_address("listen.http");
    let max_jobs = reader.number("delivery.max_jobs", 1..=65_536);
    let max_bytes = reader.number("delivery.max_bytes", 65_536..=1 << 32);
    let log_format = reader.parsed("log.format");
    let log_filter = reader.text("log.filter");
    if let Some(filter) = log_filter.as_ref().filter(|it| !logging::is_filter(it)) {
        let problem = format!("'{filter}' is neither a level (info) nor a list of targets");
        reader.mistake("log.filter", problem);
    }
    let shutdown_deadline = reader.seconds("shutdown.deadline_seconds", 1..=300);
    reader.finish(|| {
        Some(Config {
            data_dir: data_dir?,
            listen_http,
            max_jobs: max_jobs.and_then(|it| it.try_into().ok()).unwrap_or(1024),
            max_bytes: max_bytes.unwrap_or(64 << 20),
            log_format: log_format.unwrap_or_default(),
            log_filter: log_filter.unwrap_or_else(|| "info".to_owned()),
            shutdown_deadline: shutdown_deadline.unwrap_or(Duration::from_secs(10)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_enough_and_flags_win() {
        let flags = vec![("data_dir", "/d".to_owned())];
        let config = parse("c.toml", "data_dir = '/elsewhere'", flags).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!((config.max_jobs, config.max_bytes), (1024, 64 << 20));
        assert_eq!(config.listen_http, None);
    }

    #[test]
    fn every_mistake_is_reported() {
        let text = "
            [listen]\nhttp = 'here'
            [delivery]\nmax_jobs = 0\nmax_byte = 1
            [log]\nformat = 'xml'\nfilter = '=='
        ";
        let mistakes = parse("c.toml", text, Vec::new()).unwrap_err();
        let settings: Vec<&str> = mistakes.list.iter().map(|it| it.setting.as_str()).collect();
        for setting in [
            "data_dir",
            "listen.http",
            "delivery.max_jobs",
            "delivery.max_byte",
            "log.format",
            "log.filter",
        ] {
            assert!(settings.contains(&setting), "{setting}: {mistakes}");
        }
        assert_eq!(settings.len(), 6, "{mistakes}");
    }

    #[test]
    fn a_missing_file_is_a_mistake() {
        let sources = Sources {
            file: Some("/nonexistent/agent.toml".into()),
            ..Sources::default()
        };
        let mistakes = read(sources).unwrap_err();
        assert!(mistakes.to_string().contains("can't be read"), "{mistakes}");
    }
}
