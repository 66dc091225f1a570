//! The command line: `agent enroll` and `agent run`, as flags of `countersign-agent` and of
//! `countersign agent` alike. Exit code 0: done; 1: failed; 2: a mistake in what was asked for.

use std::{
    fmt::Display,
    io::{self, Read as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use countersign_shared::{
    hygiene,
    join_token::JoinToken,
    logging::{self, LogFormat},
    name::{AgentName, Id},
    secret::SecretText,
    time::{Clock as _, SystemClock},
    tls,
};
use tokio::runtime::Runtime;
use toml::Value;
use zeroize::Zeroizing;

use crate::{
    app,
    config::{self, Sources},
    identity::{
        enroll::{Enrolled, Enrollment, enroll},
        name_from_host,
    },
    transport::ControlPlaneUrl,
};

/// Longest token file that is read, in bytes.
const MAX_TOKEN: u64 = 4096;
const FAILURE: u8 = 1;
const MISTAKE: u8 = 2;

/// What the agent is told to do.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Exchange a join token for an identity, once per agent.
    Enroll(EnrollArguments),
    /// Deliver, until a signal to stop.
    Run(RunArguments),
}

#[derive(Args)]
struct EnrollArguments {
    /// Where the agent keeps its key, identity and journal. Made if it does not exist.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the control plane listens for agents.
    #[arg(long, value_name = "https://HOST:PORT")]
    control_plane: String,
    /// File with the join token; - is standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "token")]
    token_file: Option<PathBuf>,
    /// Refused: arguments can be seen by every user of the host.
    #[arg(long, hide = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// File with the agent's key, made there if it is not. Default: kek in the data directory.
    #[arg(long, value_name = "FILE")]
    kek_file: Option<PathBuf>,
    /// The agent's name: 1 to 63 of a-z, 0-9 and '-'. Default: made from the host's name.
    #[arg(long)]
    name: Option<String>,
}

/// Without the token.
impl std::fmt::Debug for EnrollArguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollArguments")
            .field("data_dir", &self.data_dir)
            .field("control_plane", &self.control_plane)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Args)]
struct RunArguments {
    /// The data directory that was enrolled.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration in TOML; flags override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Be served by this control plane, not by the one where the agent was enrolled; may be repeated for
    /// several of one installation, of which any will do.
    #[arg(long, value_name = "https://HOST:PORT")]
    control_plane: Vec<String>,
    /// File with the agent's key, where it was enrolled with one that is not in the data directory.
    #[arg(long, value_name = "FILE")]
    kek_file: Option<PathBuf>,
    /// Serve /metrics, /livez and /readyz there; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_http: Option<String>,
    /// Connect to addresses in this range too, not to public ones alone; may be repeated.
    #[arg(long, value_name = "CIDR")]
    egress_allow: Vec<String>,
    /// How log lines are written: human or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which log lines are written: a level (info) or targets (warn,countersign_agent=debug).
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Read the configuration, report every mistake, start nothing.
    #[arg(long)]
    check: bool,
}

/// Does what `arguments` say.
pub fn run(arguments: Arguments) -> ExitCode {
    if let Err(error) = hygiene::keep_to_itself() {
        let problem = format!("core dumps can't be switched off: {error}");
        return complain(problem, FAILURE);
    }
    if let Some(name) = hygiene::secret_in_environment() {
        return complain(hygiene::instead_of_environment(&name), MISTAKE);
    }
    tls::install_default_provider();
    match arguments.action {
        Action::Enroll(arguments) => run_enroll(arguments),
        Action::Run(arguments) => run_agent(arguments),
    }
}

fn run_enroll(arguments: EnrollArguments) -> ExitCode {
    let data_dir = arguments.data_dir.clone();
    let enrollment = match enrollment(arguments) {
        Ok(enrollment) => enrollment,
        Err(mistake) => return complain(mistake, MISTAKE),
    };
    let runtime = match start(LogFormat::Human, "warn") {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(enroll(&data_dir, &enrollment, SystemClock.now())) {
        Ok(Enrolled::Now(identity)) => say(format!(
            "enrolled as {} in region '{}', valid until {}; next: run --data-dir {}",
            identity.agent,
            identity.region,
            identity.not_after,
            data_dir.display()
        )),
        Ok(Enrolled::Already(identity)) => say(format!(
            "already enrolled as {} with {}, valid until {}; nothing was changed",
            identity.agent, identity.control_plane, identity.not_after
        )),
        Err(error) => complain(error, 1),
    }
}

fn enrollment(arguments: EnrollArguments) -> Result<Enrollment, String> {
    let control_plane = arguments
        .control_plane
        .parse::<ControlPlaneUrl>()
        .map_err(|error| format!("--control-plane '{}' {error}", arguments.control_plane))?;
    let agent = match &arguments.name {
        Some(name) => Id::chosen(name)
            .map(AgentName::from)
            .map_err(|error| format!("--name: {error}"))?,
        None => name_from_host(&gethostname::gethostname().to_string_lossy())
            .ok_or("the host's name makes no agent name: give one with --name")?,
    };
    let token = match (arguments.token, arguments.token_file) {
        (Some(_), _) => {
            return Err("--token is refused: arguments can be seen by every user of this host, and are kept in \
                        the shell's history. Write the token to a file, or to standard input, and give \
                        --token-file FILE or --token-file -"
                .to_owned());
        }
        (None, Some(file)) => read_token(&file)
            .map_err(|error| format!("--token-file {}: {error}", file.display()))?,
        (None, None) => return Err("give the join token with --token-file".to_owned()),
    };
    let token = JoinToken::parse(token.expose()).map_err(|error| error.to_string())?;
    Ok(Enrollment {
        control_plane,
        token,
        agent,
        kek_file: arguments.kek_file,
    })
}

fn read_token(file: &std::path::Path) -> io::Result<SecretText> {
    let mut text = Zeroizing::new(String::new());
    if file.as_os_str() == "-" {
        io::stdin().take(MAX_TOKEN).read_to_string(&mut text)?;
    } else {
        let file = std::fs::File::open(file)?;
        file.take(MAX_TOKEN).read_to_string(&mut text)?;
    }
    Ok(SecretText::from(std::mem::take(&mut *text)))
}

fn run_agent(arguments: RunArguments) -> ExitCode {
    let check = arguments.check;
    let config = match config::read(sources(arguments)) {
        Ok(config) => config,
        Err(mistakes) => return complain(mistakes, MISTAKE),
    };
    if check {
        return say("the configuration has no mistakes");
    }
    let runtime = match start(config.log_format, &config.log_filter) {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let ended = runtime.block_on(app::run(config));
    // What did not end by its deadline is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error, 1),
    }
}

fn sources(arguments: RunArguments) -> Sources {
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let overrides = [
        ("data_dir", arguments.data_dir.map(path)),
        ("kek.file", arguments.kek_file.map(path)),
        ("listen.http", arguments.listen_http),
        ("log.format", arguments.log_format),
        ("log.filter", arguments.log_filter),
    ];
    let overrides = overrides.map(|(setting, value)| (setting, value.map(Value::String)));
    // A flag that is not given says nothing.
    let list = |texts: Vec<String>| (!texts.is_empty()).then(|| Value::from(texts));
    let lists = [
        ("control_planes", list(arguments.control_plane)),
        ("egress.allow", list(arguments.egress_allow)),
    ];
    Sources {
        file: arguments.config,
        overrides: overrides
            .into_iter()
            .chain(lists)
            .filter_map(|(setting, value)| Some((setting, value?)))
            .collect(),
    }
}

/// Logging and the runtime.
fn start(format: LogFormat, filter: &str) -> Result<Runtime, ExitCode> {
    logging::init(format, filter).map_err(|error| complain(error, MISTAKE))?;
    Runtime::new().map_err(|error| complain(error, 1))
}

#[allow(clippy::print_stdout)] // the answer of a command
fn say(answer: impl Display) -> ExitCode {
    println!("{answer}");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr)] // the answer of a command that failed
fn complain(problem: impl Display, code: u8) -> ExitCode {
    eprintln!("countersign agent: {problem}");
    ExitCode::from(code)
}
