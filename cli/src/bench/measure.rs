//! The run itself: the bare client, the load, the bare client again, and what everybody says about it.

use std::{collections::HashMap, io, path::Path, time::Duration};

use countersign_shared::time::{Clock as _, SystemClock, Timestamp};

use super::{
    failure::Failure,
    files::{BareResult, Plan, Started, Submitted, tell, told},
    join::{self, Settled},
    options::Options,
    pace::Kind,
    parts::{Costs, Parts},
    records::{self, Accepted, DeliveryNumber, Received},
    settled::{self, Metrics},
    setup::Setup,
};
use crate::{local::children, output::Console};

/// The bare client need not run longer, before the load and after it.
const LONGEST_BARE: Duration = Duration::from_secs(5);
/// Beyond what they should take, for processes to start and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was measured, before it is put into numbers for people.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The bare client.
    pub(crate) bare: BareResult,
    /// Refusals of the control plane.
    pub(crate) submitted: Submitted,
    /// When the measured time began.
    pub(crate) start: Timestamp,
    /// When everything was settled.
    pub(crate) end: Timestamp,
    /// What it cost between.
    pub(crate) costs: Costs,
    /// Receptions between.
    pub(crate) received_between: usize,
    /// Receptions while the generator submitted.
    pub(crate) received_under_load: usize,
    /// What became of the deliveries.
    pub(crate) joined: join::Joined,
}

/// Measures.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn run(
    parts: &mut Parts,
    setup: &Setup,
    options: &Options,
) -> Result<Measured, Failure> {
    let floor = bare(parts, setup, options).await?;
    let plan = plan(parts, setup, options);
    let metrics = Metrics::new(setup.all().map(|addresses| addresses.http))?;
    let start = start_load(parts, &plan).await?;
    let before = parts.costs()?;
    let submitted = submit(parts, &plan, &metrics, options).await?;
    let accepted: Vec<Accepted> = load(&plan.records)?;
    let live = |index: u32| is_live(setup, index);
    let expected = accepted.iter().filter(|it| live(it.destination)).count();
    settle(parts, &metrics, expected as u64, options.deadline()).await?;
    let end = SystemClock.now();
    let costs = parts.costs()?.since(before);
    // A shared machine is not equally fast all the time: what was before the load and after it counts.
    let floor = floor.and(bare(parts, setup, options).await?);
    parts.console.busy("the records of all deliveries");
    let times = settled::delivered(&setup.administrator, &setup.accounts).await?;
    parts.stop_receiver().await;
    let received: Vec<Received> = load(&setup.received)?;
    parts.console.idle();
    Ok(together(
        Window {
            start,
            load_end: start.plus(options.duration()),
            end,
        },
        (floor, submitted, costs),
        (&accepted, &received, &times),
        live,
    ))
}

/// The measured time.
struct Window {
    start: Timestamp,
    load_end: Timestamp,
    end: Timestamp,
}

fn together(
    window: Window,
    (bare, submitted, costs): (BareResult, Submitted, Costs),
    (accepted, received, times): (&[Accepted], &[Received], &HashMap<DeliveryNumber, Settled>),
    live: impl Fn(u32) -> bool,
) -> Measured {
    let between = |from: Timestamp, to: Timestamp| {
        let within = received.iter().filter(|it| it.at >= from && it.at < to);
        within.count()
    };
    Measured {
        bare,
        submitted,
        start: window.start,
        end: window.end,
        costs,
        received_between: between(window.start, window.end),
        received_under_load: between(window.start, window.load_end),
        joined: join::join(accepted, received, times, window.start, live),
    }
}

fn is_live(setup: &Setup, index: u32) -> bool {
    let destination = setup.destinations.get(index as usize);
    destination.is_some_and(|destination| destination.kind == Kind::Live)
}

fn load<R: records::Record>(path: &Path) -> Result<Vec<R>, Failure> {
    records::load(path).map_err(Failure::io("the records of the deliveries"))
}

/// The floor, while there is no load.
async fn bare(parts: &mut Parts, setup: &Setup, options: &Options) -> Result<BareResult, Failure> {
    parts.console.busy("the bare client");
    let result = parts.directory.root().join("bare.json");
    let duration = options.duration().min(LONGEST_BARE);
    let arguments = vec![
        "bench-bare".into(),
        "--listening".into(),
        setup.listening.clone().into(),
        "--payload".into(),
        options.payload.to_string().into(),
        "--concurrency".into(),
        options.bare_concurrency.to_string().into(),
        "--milliseconds".into(),
        duration.as_millis().to_string().into(),
        "--result".into(),
        result.clone().into(),
    ];
    let log = parts.directory.log("bare");
    children::run_to_end("bare client", arguments, &setup.client.pem, &log).await?;
    let found = told(&result).and_then(|found| found.ok_or(io::ErrorKind::NotFound.into()));
    found.map_err(Failure::io("the bare client's result"))
}

fn plan(parts: &Parts, setup: &Setup, options: &Options) -> Plan {
    let root = parts.directory.root();
    Plan {
        apis: setup.all().map(|addresses| addresses.api).collect(),
        ca_file: parts.directory.ca_file(),
        key_file: parts.directory.key_file(),
        destinations: setup.destinations.clone(),
        rate: options.rate,
        payload: options.payload as usize,
        request_ids: options.request_ids,
        warm_up: options.warm_up(),
        duration: options.duration(),
        started: root.join("started.json"),
        records: root.join("accepted"),
        submitted: root.join("submitted.json"),
    }
}

/// Starts the generator and waits until its measured time begins.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn start_load(parts: &mut Parts, plan: &Plan) -> Result<Timestamp, Failure> {
    let file = parts.directory.root().join("plan.json");
    tell(&file, plan).map_err(Failure::io("can't write to the data directory"))?;
    let arguments = vec!["bench-generator".into(), "--plan".into(), file.into()];
    parts.generator = Some(parts.start("generator", "generator", arguments)?);
    let patience = plan.warm_up + PATIENCE;
    let started: Started = parts
        .wait_for("the warm-up to end", patience, async |_| {
            told(&plan.started).map_err(Failure::io("the generator's start"))
        })
        .await?;
    tokio::time::sleep(started.at().since(SystemClock.now())).await;
    Ok(started.at())
}

/// Waits until the generator has its answers.
async fn submit(
    parts: &mut Parts,
    plan: &Plan,
    metrics: &Metrics,
    options: &Options,
) -> Result<Submitted, Failure> {
    let patience = plan.duration + options.deadline();
    parts
        .wait_for("the load to end", patience, async |console| {
            show(console, metrics).await?;
            told(&plan.submitted).map_err(Failure::io("the generator's result"))
        })
        .await
}

/// Waits until as many are delivered as `expected`. When that takes too long, the result tells how
/// many are missing.
async fn settle(
    parts: &mut Parts,
    metrics: &Metrics,
    expected: u64,
    deadline: Duration,
) -> Result<(), Failure> {
    let settled = parts
        .wait_for("everything to be settled", deadline, async |console| {
            let counters = metrics.counters().await?;
            console.progress(|| format!("settled: {} of {expected}", counters.delivered));
            Ok((counters.delivered >= expected).then_some(()))
        })
        .await;
    match settled {
        Err(Failure::Deadline { .. }) => Ok(()),
        other => other,
    }
}

/// The metrics page costs the control plane a little: it is asked for only where it is shown.
async fn show(console: &mut Console, metrics: &Metrics) -> Result<(), Failure> {
    if console.shows_progress() {
        let counters = metrics.counters().await?;
        console.progress(|| {
            format!(
                "accepted: {}, delivered: {}",
                counters.accepted, counters.delivered
            )
        });
    }
    Ok(())
}
