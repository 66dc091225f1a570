//! `countersign bench backlog`: deliveries are accepted while no agent is there; then the control plane
//! is killed and started again, an agent comes, and the first delivery goes out.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use clap::{Args, value_parser};
use countersign_proto::v1;
use countersign_shared::{VERSION, name::Id};
use serde::Serialize;

use super::{
    failure::Failure,
    files::{Plan, PlannedDestination, Submitted, told},
    machine::Machine,
    measure::start_load,
    pace::Kind,
    parts::Parts,
    receiver::DELIVERIES,
    settled::Metrics,
    setup::{self, Prepared},
};
use crate::local::{children, commands};

/// Deliveries submitted in a second.
const RATE: u32 = 20_000;
/// How long the rest may take: answers, starts, a first delivery.
const PATIENCE: Duration = Duration::from_secs(120);

/// Flags of `countersign bench backlog`. In the report they are `options`, by the same names.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// Deliveries to accept, in whole 20,000s.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = value_parser!(u32).range(20_000..=20_000_000))]
    pub(crate) count: u32,
    /// Destinations, which get deliveries in turn.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) destinations: u32,
    /// Size of a payload in bytes, at least 2.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = value_parser!(u32).range(2..=1_048_576))]
    pub(crate) payload: u32,
    /// Where to keep everything: a directory that is empty or does not exist. Default: a temporary
    /// one, removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Version of the product.
    version: &'static str,
    /// What was asked for.
    options: Options,
    /// Where it ran.
    machine: Machine,
    /// Deliveries that were accepted and wait.
    pending: u64,
    /// The most memory that the control plane had resident when all were accepted, in bytes.
    peak_rss_bytes: u64,
    /// Size of its store, in bytes.
    store_bytes: u64,
    /// From its start after a kill until it listens, in milliseconds.
    listening_after_ms: f64,
    /// From its start after a kill until a first delivery was delivered and settled, by an agent that
    /// is started when the control plane listens, in milliseconds.
    first_delivered_after_ms: f64,
    /// The most memory that it had resident by then, in bytes.
    restarted_peak_rss_bytes: u64,
}

/// Measures.
///
/// # Errors
/// The first [`Failure`]; what was started until then is in `parts`.
pub(crate) async fn run(parts: &mut Parts, options: &Options) -> Result<Report, Failure> {
    let prepared = setup::prepare(parts, 1, None).await?;
    let destinations = destinations(parts, &prepared, options).await?;
    let agent = enroll(parts, &prepared).await?;
    let pending = fill(parts, &prepared, destinations, options).await?;
    let peak_rss_bytes = parts.control_plane_usage()?.peak_rss;
    let path = parts.directory.control_plane().join("store.sqlite");
    let store_bytes = fs::metadata(path)
        .map(|file| file.len())
        .unwrap_or_default();

    let started = setup::restart(parts, prepared.addresses, None).await?;
    let listening = started.elapsed();
    let arguments = commands::agent(&parts.directory, &agent);
    let child = parts.start("agent", "agent-1", arguments)?;
    parts.agents.push(child);
    let metrics = Metrics::new([prepared.addresses.http])?;
    let delivers = parts.wait_for("a first delivery", PATIENCE, async |_| {
        Ok((metrics.counters().await?.delivered > 0).then_some(()))
    });
    delivers.await?;
    let first = started.elapsed();
    Ok(Report {
        version: VERSION,
        options: options.clone(),
        machine: Machine::this(),
        pending,
        peak_rss_bytes,
        store_bytes,
        listening_after_ms: listening.as_secs_f64() * 1e3,
        first_delivered_after_ms: first.as_secs_f64() * 1e3,
        restarted_peak_rss_bytes: parts.control_plane_usage()?.peak_rss,
    })
}

async fn destinations(
    parts: &mut Parts,
    prepared: &Prepared,
    options: &Options,
) -> Result<Vec<PlannedDestination>, Failure> {
    let mut made = Vec::new();
    for number in 0..options.destinations {
        let console = &mut parts.console;
        console.progress(|| format!("destinations: {number} of {}", options.destinations));
        let wanted = v1::Destination {
            url: format!("https://{}{DELIVERIES}{number}", prepared.receiver),
            server_ca_pem: prepared.receiver_ca_pem.clone(),
            ..v1::Destination::default()
        };
        let (account, id) = (&prepared.accounts[0], format!("d{number}"));
        let (destination, _) = prepared
            .administrator
            .destination(account, &id, wanted)
            .await?;
        made.push(PlannedDestination {
            name: destination.name,
            kind: Kind::Live,
        });
    }
    Ok(made)
}

/// An agent that is known and does not run yet.
async fn enroll(parts: &Parts, prepared: &Prepared) -> Result<Id, Failure> {
    let id = Id::chosen("agent-1").map_err(|_| Failure::Unreadable("an agent's id"))?;
    let token = prepared.administrator.join_token(&id).await?;
    let arguments = commands::enroll(&parts.directory, &id, prepared.addresses.agents);
    let log = parts.directory.log("agent-1");
    children::run_to_end("agent's enrollment", arguments, &token, &log).await?;
    Ok(id)
}

/// Submits; answers with how many wait then.
async fn fill(
    parts: &mut Parts,
    prepared: &Prepared,
    destinations: Vec<PlannedDestination>,
    options: &Options,
) -> Result<u64, Failure> {
    let root = parts.directory.root();
    let plan = Plan {
        apis: vec![prepared.addresses.api],
        ca_file: parts.directory.ca_file(),
        key_file: parts.directory.key_file(),
        destinations,
        rate: RATE,
        payload: options.payload as usize,
        request_ids: false,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs((options.count / RATE).into()),
        started: root.join("started.json"),
        records: root.join("accepted"),
        submitted: root.join("submitted.json"),
    };
    start_load(parts, &plan).await?;
    let metrics = Metrics::new([prepared.addresses.http])?;
    let patience = 4 * plan.duration + PATIENCE;
    let submitted = parts.wait_for("the load to end", patience, async |console| {
        if console.shows_progress() {
            let counters = metrics.counters().await?;
            console.progress(|| format!("accepted: {}", counters.accepted));
        }
        let submitted = told::<Submitted>(&plan.submitted);
        submitted.map_err(Failure::io("the generator's result"))
    });
    submitted.await?;
    Ok(metrics.counters().await?.accepted)
}

impl Report {
    /// As one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        // Plain numbers and texts serialize.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// As lines for people.
    pub(crate) fn table(&self) -> String {
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let model = self.machine.cpu_model.as_deref();
        let model = model.unwrap_or("unknown processor");
        let rows = [
            ("machine", format!("{} cores, {model}", self.machine.cores)),
            ("accepted and pending", self.pending.to_string()),
            ("control plane's memory", mebibytes(self.peak_rss_bytes)),
            ("its store", mebibytes(self.store_bytes)),
            (
                "listens after a kill",
                format!("{:.0} ms", self.listening_after_ms),
            ),
            (
                "first delivery settled",
                format!("{:.0} ms", self.first_delivered_after_ms),
            ),
            ("memory by then", mebibytes(self.restarted_peak_rss_bytes)),
        ];
        let mut table = String::new();
        for (name, value) in rows {
            // Writing to a String can't fail.
            let _ = writeln!(table, "{name:<26}{value}");
        }
        table
    }
}
