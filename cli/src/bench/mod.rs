//! `countersign bench`: what the product costs on this machine. Load generator, control plane, agents
//! and receiver as processes of their own, with mutual TLS, signatures and durable commits as in
//! production, beside a bare HTTP client that does the same requests and keeps no promise.
//!
//! Floors in this folder, lowest first; a module imports only from floors below its own:
//!
//! 1. `child`, `failure`, `latency`, `machine`, `pace`, `payload`, `process`, `records`, `sequence`
//! 2. `database`, `files`, `join`, `options`
//! 3. `parts`
//! 4. `receiver`, `settled`, `stream`
//! 5. `bare`, `generator`, `setup`
//! 6. `measure`
//! 7. `report`
//! 8. `backlog`, `certificates`, `sessions`, `table`

mod backlog;
pub(crate) mod bare;
mod certificates;
mod child;
mod database;
mod failure;
mod files;
pub(crate) mod generator;
mod join;
mod latency;
mod machine;
mod measure;
mod options;
mod pace;
mod parts;
mod payload;
mod process;
pub(crate) mod receiver;
mod records;
mod report;
mod sequence;
mod sessions;
mod settled;
mod setup;
mod stream;
mod table;

use std::{fs, path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use countersign_shared::{
    logging::{self, LogFormat},
    tasks::stop_signal,
    tls,
};

use crate::{
    local::directory::Directory,
    output::{self, Console, Stream},
};
use failure::Failure;
use machine::Machine;
use options::Options;
use parts::Parts;
use report::Report;

/// Of the temporary directory's name.
const PREFIX: &str = "countersign-bench-";

const NOTES: &str = "\
What is measured:
  The bare client runs for 5 seconds at most, POSTs of the same payload to the same receiver over \
mutual TLS from a process of its own. Then deliveries are submitted over SubmitDeliveries for \
--duration seconds until all that was accepted to live destinations is settled. Then the bare client \
runs again: both of its runs count together, as shared machines are not equally fast all the time. What \
a request costs depends on how many are under way (--bare-concurrency).

  CPU time (/proc/PID/stat) and bytes written (/proc/PID/io) are counted from the first measured \
submission until everything is settled, and divided by the deliveries received between. Attempts at \
slow and dead destinations count as costs and not as deliveries. Latencies begin when a delivery was \
due by the clock, whether or not the control plane kept up.

Exit status 0: every delivery to a live destination was accepted, received and settled; 1: not.

Examples:
  countersign bench                                       full speed, 100 destinations, 1 KiB
  countersign bench --rate 1000 --duration 60 --json      latency at a rate, for a script
  countersign bench --rate 500 --slow-share 0.1 --dead-share 0.1   do the bad harm the good?
  countersign bench --store postgres --control-planes 2 --agents 2   on a PostgreSQL server of its own
  countersign bench backlog --count 1000000               a million pending, and a kill
  countersign bench sessions --count 1000                 a thousand idle agents, and a kill
  countersign bench certificates --count 100000           issue, store and distribute certificates";

/// Flags of `countersign bench`.
#[derive(Debug, Args)]
#[command(after_help = NOTES, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure how fast client certificates are issued, stored and distributed.
    Certificates(certificates::Options),
    /// Measure what many idle agents cost a control plane, and how soon all are back after a kill.
    Sessions(sessions::Options),
    /// Measure what a large backlog takes: memory while it is accepted and after a kill, and how soon
    /// the first delivery goes out then.
    Backlog(backlog::Options),
}

/// Measures; returns when it has ended and nothing of it is left running.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    tls::install_default_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime
        .map_err(Failure::io("can't start"))
        .and_then(|runtime| {
            // The filter is one that is understood.
            let _ = logging::init(LogFormat::Human, "warn");
            match &arguments.what {
                None => {
                    let report = runtime.block_on(bench(&arguments.options))?;
                    Ok(tell(&report, arguments.options.json))
                }
                Some(What::Backlog(options)) => {
                    let measure = async |parts: &mut Parts| backlog::run(parts, options).await;
                    let measured = with_parts(options.data_dir.as_deref(), measure);
                    let report = runtime.block_on(measured)?;
                    output::result(&match options.json {
                        true => report.to_json(),
                        false => report.table(),
                    });
                    Ok(ExitCode::SUCCESS)
                }
                Some(What::Sessions(options)) => {
                    let measure = async |parts: &mut Parts| sessions::run(parts, options).await;
                    let measured = with_parts(options.data_dir.as_deref(), measure);
                    let report = runtime.block_on(measured)?;
                    output::result(&match options.json {
                        true => report.to_json(),
                        false => report.table(),
                    });
                    Ok(ExitCode::SUCCESS)
                }
                Some(What::Certificates(options)) => {
                    let report = runtime.block_on(certificates(options))?;
                    output::result(&match options.json {
                        true => report.to_json(),
                        false => report.table(),
                    });
                    Ok(ExitCode::SUCCESS)
                }
            }
        });
    result.unwrap_or_else(|failure: Failure| {
        output::error(&format!("countersign bench: {failure}"));
        ExitCode::FAILURE
    })
}

fn tell(report: &Report, json: bool) -> ExitCode {
    if json {
        output::result(&report.to_json());
    } else {
        output::result(&table::table(report));
    }
    if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn certificates(options: &certificates::Options) -> Result<certificates::Report, Failure> {
    let measure = async |parts: &mut Parts| certificates::run(parts, options).await;
    with_parts(options.data_dir.as_deref(), measure).await
}

async fn bench(options: &Options) -> Result<Report, Failure> {
    let measure = async |parts: &mut Parts| measure(parts, options).await;
    let measured = with_parts(options.data_dir.as_deref(), measure).await?;
    Ok(Report::new(options.clone(), Machine::this(), measured))
}

/// Measures, and leaves nothing running.
async fn with_parts<T>(
    data_dir: Option<&Path>,
    measure: impl AsyncFnOnce(&mut Parts) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let directory = directory(data_dir)?;
    let mut parts = Parts::new(directory, Console::new(Stream::Error));
    let measured = tokio::select! {
        measured = measure(&mut parts) => measured,
        signal = stop_signal() => match signal {
            Ok(name) => Err(Failure::Interrupted(name)),
            Err(error) => Err(Failure::io("can't wait for signals")(error)),
        },
    };
    tokio::select! {
        () = parts.stop() => {}
        // A second signal: what still runs is killed when it is dropped.
        _ = stop_signal() => {}
    }
    let closed = parts.directory.close();
    let measured = measured?;
    closed.map_err(Failure::io("can't remove the temporary directory"))?;
    Ok(measured)
}

async fn measure(parts: &mut Parts, options: &Options) -> Result<measure::Measured, Failure> {
    let setup = setup::start(parts, options).await?;
    measure::run(parts, &setup, options).await
}

/// An earlier run's deliveries would be counted as this one's.
fn directory(data_dir: Option<&Path>) -> Result<Directory, Failure> {
    let directory = Directory::open(data_dir, false, PREFIX)
        .map_err(Failure::io("can't use the data directory"))?;
    let mut content = fs::read_dir(directory.root()).map_err(Failure::io("the data directory"))?;
    match content.next() {
        None => Ok(directory),
        Some(_) => Err(Failure::NotEmpty),
    }
}
