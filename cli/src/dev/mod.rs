//! `countersign dev`: the whole product on one machine. A control plane and an enrolled agent as
//! child processes, a receiver that demands mutual TLS in this one, a delivery from end to end, and
//! a timeline of what each side saw. It then stays up for whoever wants to try more.
//!
//! Floors in this folder, lowest first; a module imports only from floors below its own:
//!
//! 1. `certificate`, `grpcurl_hints`, `timeline`
//! 2. `receiver::record`
//! 3. `receiver::{tls, webhook}`, `report`
//! 4. `receiver` with `receiver::door`, `story`, `failure`
//! 5. `system`
//! 6. `steps::control_plane`, `steps::stay`
//! 7. `steps::{account, agent, delivery}`
//! 8. `steps::destination`
//! 9. `steps`
//! 10. `lifecycle`

mod certificate;
mod failure;
mod grpcurl_hints;
mod lifecycle;
mod receiver;
mod report;
mod steps;
mod story;
mod system;
mod timeline;

use std::{io, path::PathBuf, pin::pin, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use countersign_shared::{
    VERSION,
    logging::{self, LogFormat},
    tasks::stop_signal,
    time::SystemClock,
    tls,
};

use crate::{
    local::directory::Directory,
    output::{self, Console, Stream},
};
use failure::Failure;
use lifecycle::{Outcome, Story};
use report::Report;
use steps::Running;
use system::System;

/// How long everything may take until the first delivery is confirmed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Of the temporary directory's name.
const PREFIX: &str = "countersign-dev-";

const NOTES: &str = "\
Everything listens on free ports of the loopback interface. Control plane and agent write their logs \
to control-plane.log and agent.log in the data directory.

Examples:
  countersign dev                          look, then try the grpcurl commands that it prints
  countersign dev --data-dir ./demo        keep accounts, keys and deliveries for the next time
  countersign dev --once --json | jq .     one delivery for a script; exit status 0 if confirmed
  countersign dev --story rotation         certificates that live a minute, renewed amid deliveries

A story takes ten seconds to two minutes and ends by itself: exit status 0 if its promise was kept, which \
its summary shows with what both ends counted. With --json the summary is one JSON object.";

/// Flags of `countersign dev`.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub(crate) struct Arguments {
    /// Where to keep everything. Default: a temporary directory, removed at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Stop after the first confirmed delivery: exit status 0, or 1 with the reason.
    #[arg(long)]
    once: bool,
    /// Print one JSON object on standard output; the timeline goes to standard error.
    #[arg(long)]
    json: bool,
    /// Keep the temporary directory.
    #[arg(long)]
    keep: bool,
    /// Show what becomes of certificates, with deliveries flowing all the time.
    #[arg(long, value_name = "STORY", conflicts_with = "once")]
    story: Option<Story>,
    /// How many seconds the certificates of the stories rotation and expiry live.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "story",
          value_parser = clap::value_parser!(u64).range(30..=600))]
    life: u64,
}

/// Runs the demonstration; returns when it has ended and nothing of it is left running.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    tls::install_default_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let started = runtime
        .map_err(Failure::io("can't start"))
        .and_then(|runtime| {
            // The filter is one that is understood.
            let _ = logging::init(LogFormat::Human, "warn");
            let directory = Directory::open(arguments.data_dir.as_deref(), arguments.keep, PREFIX)
                .map_err(Failure::io("can't use the data directory"))?;
            Ok((runtime, directory))
        });
    match started {
        Ok((runtime, directory)) => runtime.block_on(show(&arguments, directory)),
        Err(failure) => {
            output::error(&format!("countersign dev: {failure}"));
            if arguments.json {
                let mut report = Report::default();
                report.failed(failure.to_string());
                output::result(&report.to_json());
            }
            ExitCode::FAILURE
        }
    }
}

/// The demonstration from its first line to its last.
async fn show(arguments: &Arguments, directory: Directory) -> ExitCode {
    let stream = if arguments.json {
        Stream::Error
    } else {
        Stream::Output
    };
    let console = Console::new(stream);
    let mut system = System::new(directory, console, Arc::new(SystemClock));
    let ended = match arguments.story {
        Some(story) => tell_story(arguments, story, &mut system).await,
        None => until_the_end(arguments, &mut system).await,
    };
    let killed = tokio::select! {
        killed = system.stop() => killed,
        // A second signal: what still runs is killed when it is dropped.
        _ = stop_signal() => vec!["what was still running"],
    };
    system.close(&killed);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The first delivery, the report about it, and, unless it is to be the only one, what comes after.
///
/// # Errors
/// [`Failure`]; the user has been told of it.
async fn until_the_end(arguments: &Arguments, system: &mut System) -> Result<(), Failure> {
    system.say(&format!(
        "Countersign {VERSION}: one webhook over mutual TLS, from end to end\n"
    ));
    let mut signal = pin!(stop_signal());
    let first = tokio::select! {
        first = tokio::time::timeout(DEADLINE, steps::demonstrate(system)) => first,
        signal = signal.as_mut() => Ok(Err(interrupted(signal))),
    };
    let first = first.unwrap_or_else(|_| Err(system.deadline_passed(DEADLINE)));
    system.idle();
    if let Err(failure) = &first {
        system.fail(failure);
    }
    if arguments.json {
        output::result(&system.report.to_json());
    }
    let Running { mut events, hints } = first?;
    if arguments.once {
        system.tell(&story::stopping("Done"));
        return Ok(());
    }
    system.say(&hints);
    let failure = tokio::select! {
        failure = steps::stay(system, &mut events) => failure,
        signal = signal => match signal {
            Ok(name) => {
                system.tell(&story::stopping(name));
                return Ok(());
            }
            Err(error) => interrupted(Err(error)),
        },
    };
    system.fail(&failure);
    Err(failure)
}

/// A story of certificates, and its summary.
///
/// # Errors
/// [`Failure`]; the user has been told of it.
async fn tell_story(
    arguments: &Arguments,
    story: Story,
    system: &mut System,
) -> Result<(), Failure> {
    system.say(&format!(
        "Countersign {VERSION}: what becomes of certificates while deliveries flow\n"
    ));
    let played = tokio::select! {
        played = lifecycle::play(system, story, arguments.life) => played,
        signal = stop_signal() => Err(interrupted(signal)),
    };
    system.idle();
    let outcome = match played {
        Ok(outcome) => outcome,
        Err(failure) => {
            system.fail(&failure);
            if arguments.json {
                output::result(&Outcome::broken_off(story.name(), &failure.to_string()).to_json());
            }
            return Err(failure);
        }
    };
    system.say(&format!("\n{}", outcome.to_text()));
    if arguments.json {
        output::result(&outcome.to_json());
    }
    match outcome.broken.is_empty() {
        true => {
            system.tell(&story::stopping("The end"));
            Ok(())
        }
        false => Err(Failure::Promise(outcome.broken.join("; "))),
    }
}

fn interrupted(signal: io::Result<&'static str>) -> Failure {
    match signal {
        Ok(name) => Failure::Interrupted(name),
        Err(error) => Failure::io("can't wait for signals")(error),
    }
}
