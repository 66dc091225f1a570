//! The command line: flags over the configuration file, and exit codes. 0: stopped as asked; 1: could
//! not start or go on; 2: the configuration has mistakes.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use countersign_shared::{config::Mistakes, hygiene, logging, secret::SecretText, tls};
use toml::Value;

use crate::{app, config::Config, maintenance};

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
    if let Some(name) = hygiene::secret_in_environment() {
        complain(&hygiene::instead_of_environment(&name));
        return ExitCode::from(2);
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

/// What is to be done with the store on a PostgreSQL server.
#[derive(Debug, Clone, Args)]
pub struct StoreArguments {
    #[command(subcommand)]
    action: StoreAction,
    /// Configuration file (TOML) of the control planes: its store.url says which server
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Subcommand)]
enum StoreAction {
    /// Bring the server's tables to this version. A control plane does it too when it starts
    Migrate,
    /// Look whether the server can be reached and serves, and what is on it; nothing is changed
    Check,
    /// Move an embedded store to the server, which must have none: all of it or nothing, compared by counts
    /// and hashes. The control plane must be stopped; its data directory stays as it is
    Copy {
        /// The data directory with the embedded store
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
    },
}

/// Does what is to be done with the store.
pub fn run_store(arguments: StoreArguments) -> ExitCode {
    if let Some(name) = hygiene::secret_in_environment() {
        complain(&hygiene::instead_of_environment(&name));
        return ExitCode::from(2);
    }
    tls::install_default_provider();
    // The data directory plays no part here, and has no default.
    let data_dir = Value::String("/nonexistent".to_owned());
    let config = match read_config(arguments.config.as_deref(), vec![("data_dir", data_dir)]) {
        Ok(config) => config,
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match arguments.action {
                StoreAction::Migrate => maintenance::migrate(&config).await,
                StoreAction::Check => maintenance::check(&config).await,
                StoreAction::Copy { from } => maintenance::copy(&config, from, show_copying).await,
            }
            .map_err(|error| error.to_string())
        }),
        Err(error) => Err(error.to_string()),
    };
    match done {
        Ok(said) => {
            say(&said);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&format!("countersign store: {problem}"));
            ExitCode::FAILURE
        }
    }
}

/// One line when a table begins, and one after every hundred thousand rows.
fn show_copying(table: &str, done: u64, all: u64) {
    if done == all || done.is_multiple_of(100_000) {
        complain(&format!("{table}: {done} of {all}"));
    }
}

fn read(arguments: &Arguments) -> Result<Config, String> {
    read_config(arguments.config.as_deref(), arguments.overrides())
}

fn read_config(
    file: Option<&Path>,
    overrides: Vec<(&'static str, Value)>,
) -> Result<Config, String> {
    let (source, text) = match file {
        None => ("command line".to_owned(), String::new()),
        Some(path) => {
            let source = path.display().to_string();
            let text = fs::read_to_string(path).map_err(|error| format!("{source}: {error}"))?;
            (source, text)
        }
    };
    Config::read(&source, &text, overrides).map_err(|mistakes: Mistakes| mistakes.to_string())
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
