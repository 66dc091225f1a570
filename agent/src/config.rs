//! The configuration of `agent run`: a TOML file, flags over it, read once, every mistake reported
//! at once. What enrollment decided (control plane, name, identity) is not in it.

use std::{fs, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use countersign_shared::{
    config::{Mistake, Mistakes, Reader},
    logging::{self, LogFormat},
};
use toml::Value;

use crate::{
    egress::{Egress, Policy, Proxy, ProxyAddress, ProxyCredentials},
    transport::ControlPlaneUrl,
};

/// How an agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where identity, key and journal are.
    pub data_dir: PathBuf,
    /// Where the agent's key is. Default: `kek` in the data directory.
    pub kek_file: Option<PathBuf>,
    /// Where the journal's key comes from. Default: it follows from the agent's key.
    pub journal_key: JournalKey,
    /// Where metrics and health are served; nowhere when absent.
    pub listen_http: Option<SocketAddr>,
    /// Control planes of the installation, to be served by any of. Default: where it was enrolled.
    pub control_planes: Vec<ControlPlaneUrl>,
    /// After so long, half as much more or less, the agent goes on to the next of several control planes.
    /// 1 to 86,400 s, default 2,700 s.
    pub stay: Duration,
    /// Most jobs in hand, unacknowledged outcomes included. 1 to 65,536, default 2,048.
    pub max_jobs: u32,
    /// Most payload bytes in hand; one job may exceed it. 64 KiB to 4 GiB, default 64 MiB.
    pub max_bytes: u64,
    /// Where the agent may connect to for deliveries, and by which way. Default: public addresses,
    /// directly.
    pub egress: Egress,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: String,
    /// How long stopping may take. 1 to 300 s, default 10 s.
    pub shutdown_deadline: Duration,
}

/// Where the journal's key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JournalKey {
    /// It follows from the agent's key, which is in a file.
    #[default]
    File,
    /// The control plane releases it at each start, and it is held in memory alone.
    ControlPlane,
}

impl FromStr for JournalKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "file" => Ok(Self::File),
            "control-plane" => Ok(Self::ControlPlane),
            _ => Err("is neither 'file' nor 'control-plane'"),
        }
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// Settings that flags override, dotted.
    pub overrides: Vec<(&'static str, Value)>,
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
    overrides: Vec<(&'static str, Value)>,
) -> Result<Config, Mistakes> {
    let mut reader = Reader::new(name, text, overrides);
    let data_dir = reader.path("data_dir");
    let data_dir = reader.required("data_dir", data_dir);
    let kek_file = reader.path("kek.file");
    let journal_key = reader.parsed("journal.key").unwrap_or_default();
    let listen_http = reader.listen_address("listen.http");
    let control_planes = reader.parsed_list("control_planes").unwrap_or_default();
    let stay = reader.seconds("control_plane_stay_seconds", 1..=86_400);
    let max_jobs = reader.number("delivery.max_jobs", 1..=65_536);
    let max_bytes = reader.number("delivery.max_bytes", 65_536..=1 << 32);
    let egress = egress(&mut reader);
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
            kek_file,
            journal_key,
            listen_http,
            control_planes,
            stay: stay.unwrap_or(Duration::from_secs(2_700)),
            max_jobs: max_jobs.and_then(|it| it.try_into().ok()).unwrap_or(2048),
            max_bytes: max_bytes.unwrap_or(64 << 20),
            egress,
            log_format: log_format.unwrap_or_default(),
            log_filter: log_filter.unwrap_or_else(|| "info".to_owned()),
            shutdown_deadline: shutdown_deadline.unwrap_or(Duration::from_secs(10)),
        })
    })
}

fn egress(reader: &mut Reader) -> Egress {
    let allow = reader.parsed_list("egress.allow").unwrap_or_default();
    let deny = reader.parsed_list("egress.deny").unwrap_or_default();
    Egress {
        policy: Policy { allow, deny },
        proxy: proxy(reader),
    }
}

/// The proxy. A mistake does not repeat the URL: somebody may have put a password into it.
fn proxy(reader: &mut Reader) -> Option<Proxy> {
    let url = reader.text("egress.proxy");
    let file = reader.path("egress.proxy_credentials_file");
    if url.is_none() && file.is_some() {
        reader.mistake("egress.proxy_credentials_file", "needs egress.proxy");
    }
    let credentials = file.and_then(|path| {
        let read = ProxyCredentials::read(&path);
        let noted = read.map_err(|error| {
            reader.mistake("egress.proxy_credentials_file", error.to_string());
        });
        noted.ok()
    });
    match url?.parse::<ProxyAddress>() {
        Ok(address) => Some(Proxy {
            address,
            credentials,
        }),
        Err(error) => {
            reader.mistake("egress.proxy", error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_enough_and_flags_win() {
        let flags = vec![("data_dir", "/d".into())];
        let config = parse("c.toml", "data_dir = '/elsewhere'", flags).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!((config.max_jobs, config.max_bytes), (2048, 64 << 20));
        assert_eq!(config.listen_http, None);
        assert_eq!(config.egress, Egress::default());
    }

    #[test]
    fn egress_is_read_and_a_flag_replaces_the_file_s_ranges() {
        let text = "
            data_dir = '/d'
            [egress]\nallow = ['10.1.0.0/16', '::1/128']\ndeny = ['10.1.2.0/24']
            proxy = 'socks5://proxy:1080'
        ";
        let egress = parse("c.toml", text, Vec::new()).unwrap().egress;
        assert_eq!(
            (egress.policy.allow.len(), egress.policy.deny.len()),
            (2, 1)
        );
        assert_eq!(egress.proxy.unwrap().address.port, 1080);
        let flag = Value::Array(vec!["127.0.0.0/8".into()]);
        let egress = parse("c.toml", text, vec![("egress.allow", flag)])
            .unwrap()
            .egress;
        assert_eq!(egress.policy.allow, ["127.0.0.0/8".parse().unwrap()]);
    }

    #[test]
    fn every_mistake_about_egress_is_reported_and_no_password() {
        let text = "
            data_dir = '/d'
            [egress]\nallow = ['10.0.0.1/8', 'home']\ndeny = '10.0.0.0/8'
            proxy = 'http://us:hunter2@proxy:3128'
            proxy_credentials_file = '/nonexistent/credentials'
        ";
        let mistakes = parse("c.toml", text, Vec::new()).unwrap_err();
        assert_eq!(mistakes.list.len(), 5, "{mistakes}");
        assert!(!mistakes.to_string().contains("hunter2"), "{mistakes}");
        let text = "data_dir = '/d'\negress.proxy_credentials_file = '/nonexistent'";
        let mistakes = parse("c.toml", text, Vec::new()).unwrap_err();
        assert!(
            mistakes.to_string().contains("needs egress.proxy"),
            "{mistakes}"
        );
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
