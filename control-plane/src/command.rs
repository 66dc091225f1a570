//! The command line: flags over the configuration file, and exit codes. 0: stopped as asked; 1: could
//! not start or go on; 2: the configuration has mistakes.

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;
use countersign_shared::{config::Mistakes, hygiene, logging, secret::SecretText, tls};
use toml::Value;

use crate::{app, config::Config};

/// Flags of the control plane; each replaces a setting of the file.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Configuration file (TOML). Every setting has a default but data_dir
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the store, the KEK and the CA file are; made on the first start (mode 0700)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API for clients; port 0 is any free one [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_api: Option<SocketAddr>,
    /// Address for agents [default: 127.0.0.1:8444]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_agents: Option<SocketAddr>,
    /// Address of metrics, health and trust bundles, plain HTTP [default: 127.0.0.1:8445]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_http: Option<SocketAddr>,
    /// How log lines are written: human or json [default: human]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Which log lines are written: a level, or targets such as warn,countersign_control_plane=debug
    /// [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// On the first start, write the administrator's API key to this file (mode 0600) instead of
    /// printing it
    #[arg(long, value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,
    /// Read the configuration, report every mistake, and start nothing
    #[arg(long)]
    pub check: bool,
}

impl Arguments {
    fn overrides(&self) -> Vec<(&'static str, Value)> {
        let path = |path: &PathBuf| path.display().to_string();
        let address = |address: &SocketAddr| address.to_string();
        [
            ("data_dir", self.data_dir.as_ref().map(path)),
            ("listen.api", self.listen_api.as_ref().map(address)),
            ("listen.agents", self.listen_agents.as_ref().map(address)),
            ("listen.http", self.listen_http.as_ref().map(address)),
            ("log.format", self.log_format.clone()),
            ("log.filter", self.log_filter.clone()),
        ]
        .into_iter()
        .filter_map(|(setting, value)| Some((setting, Value::String(value?))))
        .collect()
    }
}

/// Reads the configuration and runs the control plane until it is told to stop.
pub fn run(arguments: Arguments) -> ExitCode {
    if let Err(error) = hygiene::keep_to_itself() {
        complain(&format!("core dumps can't be switched off: {error}"));
        return ExitCode::FAILURE;
    }
    let config = match read(&arguments) {
        Ok(config) => config,
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        say("the configuration is good");
        return ExitCode::SUCCESS;
    }
    match start(config, arguments.admin_key_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&format!("countersign control plane: {problem}"));
            ExitCode::FAILURE
        }
    }
}

fn read(arguments: &Arguments) -> Result<Config, String> {
    let (source, text) = match &arguments.config {
        None => ("command line".to_owned(), String::new()),
        Some(path) => {
            let source = path.display().to_string();
            let text = fs::read_to_string(path).map_err(|error| format!("{source}: {error}"))?;
            (source, text)
        }
    };
    Config::read(&source, &text, arguments.overrides())
        .map_err(|mistakes: Mistakes| mistakes.to_string())
}

fn start(config: Config, admin_key_file: Option<PathBuf>) -> Result<(), String> {
    tls::install_default_provider();
    logging::init(config.log_format, &config.log_filter).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime
        .block_on(app::run(config, admin_key_file, show_first_key))
        .map_err(|error| error.to_string())
}

fn show_first_key(key: &SecretText) {
    say(&format!(
        "Administrator API key, shown only now. Keep it in a file that only you can read:\n{}",
        key.expose()
    ));
}

/// What this command says to people goes to standard output, apart from the log.
#[allow(clippy::print_stdout)] // a command's output
fn say(text: &str) {
    println!("{text}");
}

/// Why it did not do what was asked.
#[allow(clippy::print_stderr)] // before and after there is a log
fn complain(text: &str) {
    eprintln!("{text}");
}
