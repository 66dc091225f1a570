//! The composition root: everything is built from the configuration first, then run. The list of
//! background tasks is in `start`; how they end is in `stop`.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use countersign_shared::{
    job::LeasedJob,
    seal::SealingKey,
    tasks::{Failures, OnFailure, Tasks, stop_signal},
    time::{Clock, SystemClock},
    tls,
};
use thiserror::Error;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, JournalKey},
    data_dir::{DataDir, DataDirError},
    deliver::{self, Activation, Clients, Dialler, Lanes, Probes, Receipts},
    identity::{
        FileError, Held, IdentityFile, JournalKeyError, KekError, OnDisk, journal_key, kek_file,
        open_kek, renew,
    },
    journal::{self, Contents, Journal, JournalError, Outbox},
    metrics::Metrics,
    status::StatusListener,
    transport::Places,
    upstream::{self, BundleIntake, Limits},
};

/// Bundles whose first use may wait to be told.
const ACTIVATIONS: usize = 1024;
/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Why the agent can't run, or had to stop.
#[derive(Debug, Error)]
pub enum AppError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no identity.
    #[error("the data directory {0} holds no identity: run `enroll` first, with a join token")]
    NotEnrolled(String),
    /// The agent's key.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] FileError),
    /// The journal's key.
    #[error(transparent)]
    JournalKey(#[from] JournalKeyError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The HTTP listener.
    #[error("can't listen at {0} for metrics and health ({1})")]
    Listen(std::net::SocketAddr, io::Error),
    /// Threads or signals.
    #[error("the operating system refuses what the agent needs ({0})")]
    System(#[from] io::Error),
    /// A background task without which the agent can't work.
    #[error("stopped because a part of the agent failed: {0}")]
    Failed(String),
}

/// Everything that runs.
struct Agent {
    _data_dir: DataDir,
    tasks: Tasks,
    failures: Failures,
    lanes: Lanes,
    outbox: Arc<Outbox>,
    /// Cancelled when the way up has finished.
    finished: CancellationToken,
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// [`AppError`].
pub async fn run(config: Config) -> Result<(), AppError> {
    run_until(config, stop_signal()).await
}

/// Runs the agent until `stop` says why to stop, or until a part of it fails that it can't do
/// without.
///
/// # Errors
/// [`AppError`].
pub async fn run_until(
    config: Config,
    stop_reason: impl Future<Output = io::Result<&'static str>>,
) -> Result<(), AppError> {
    let mut agent = start(&config).await?;
    let ended = tokio::select! {
        reason = stop_reason => {
            tracing::info!(reason = reason?, "stopping");
            Ok(())
        }
        failure = agent.failures.next() => Err(AppError::Failed(failure)),
    };
    stop(agent, config.shutdown_deadline).await;
    ended
}

async fn start(config: &Config) -> Result<Agent, AppError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::default());
    let (tasks, failures) = Tasks::new();
    // Before the directory is made: a mistyped path should leave nothing behind.
    if !config.data_dir.join("identity").exists() {
        let shown = config.data_dir.display().to_string();
        return Err(AppError::NotEnrolled(shown));
    }
    let data_dir = DataDir::take(&config.data_dir)?;
    let (kek, file, identity) = identity(config, &data_dir, &metrics)?;
    let listener = match config.listen_http {
        Some(address) => Some((
            address,
            StatusListener::bind(address)
                .await
                .map_err(|error| AppError::Listen(address, error))?,
        )),
        None => None,
    };

    if tls::is_fips() {
        tracing::info!("TLS and certificates are done by the FIPS 140-3 module");
    }
    let places = Places::new(
        &config.control_planes,
        &identity.load().control_plane,
        config.stay,
    );
    tracing::info!(control_planes = %places, "served by any of these");
    let journal_key = match config.journal_key {
        JournalKey::File => kek,
        JournalKey::ControlPlane => journal_key::released(&identity.load(), &places).await?,
    };
    let (store, contents) = journal::open(data_dir.path(), &journal_key, clock.now())?;
    let Contents {
        bundles,
        outcomes,
        jobs,
    } = contents;
    let journal = Journal::start(store, &tasks)?;
    let outbox = Arc::new(Outbox::new(
        journal.clone(),
        outcomes,
        jobs,
        Arc::clone(&metrics),
        clock.now(),
    ));
    let (activations, activated) = mpsc::channel::<Activation>(ACTIVATIONS);
    let lanes = Lanes::new(deliver::Parts {
        outbox: Arc::clone(&outbox),
        tasks: tasks.clone(),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        receipts: Some(Arc::new(Receipts::new(Arc::clone(&identity)))),
        activations,
    });
    let dialler = Dialler::new(config.egress.clone());
    let clients = Clients::new(dialler, Arc::clone(&clock), Arc::clone(&metrics));
    let clients = Arc::new(clients);
    let intake = BundleIntake::new(lanes.clone(), Arc::clone(&clients), journal);
    intake.restore(&bundles);
    let kept = outbox.kept();
    if !kept.is_empty() {
        tracing::info!(jobs = kept.len(), "going on with jobs of before");
    }
    for job in kept {
        lanes.take(LeasedJob::clone(&job));
    }

    let shutdown = tasks.shutdown().clone();
    let finished = CancellationToken::new();
    let idle = Arc::clone(&clients);
    let up = upstream::Parts {
        identity: Arc::clone(&identity),
        places: Arc::clone(&places),
        lanes: lanes.clone(),
        bundles: intake,
        clients,
        probes: Probes::new(lanes.clone(), Arc::clone(&clock), Arc::clone(&metrics)),
        outbox: Arc::clone(&outbox),
        limits: Limits {
            jobs: config.max_jobs,
            bytes: config.max_bytes,
        },
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    };

    // The background tasks, beside the journal's thread, the delivery workers, probes and
    // revocations.
    let (done, writer) = (finished.clone().drop_guard(), Arc::clone(&outbox));
    tasks.spawn("session", OnFailure::StopProcess, async move {
        upstream::run(up, activated).await;
        drop(done);
        Ok::<_, Infallible>(())
    });
    tasks.spawn("outbox", OnFailure::StopProcess, async move {
        writer.write_behind().await;
        Ok::<_, Infallible>(())
    });
    let sweeping = shutdown.clone();
    tasks.spawn("idle connections", OnFailure::StopProcess, async move {
        let every_so_often = async {
            loop {
                tokio::time::sleep(SWEEP).await;
                idle.sweep(Instant::now());
            }
        };
        sweeping.run_until_cancelled(every_so_often).await;
        Ok::<_, Infallible>(())
    });
    let (renewing, renewing_metrics) = (shutdown.clone(), Arc::clone(&metrics));
    tasks.spawn("identity renewal", OnFailure::StopProcess, async move {
        renew::keep_fresh(identity, places, file, clock, renewing_metrics, renewing).await;
        Ok::<_, Infallible>(())
    });
    if let Some((address, listener)) = listener {
        let address = listener.address().unwrap_or(address);
        tracing::info!(%address, "serving metrics and health");
        tasks.spawn(
            "status",
            OnFailure::StopProcess,
            listener.serve(metrics, shutdown),
        );
    }
    Ok(Agent {
        _data_dir: data_dir,
        tasks,
        failures,
        lanes,
        outbox,
        finished,
    })
}

/// The agent's key, its identity file, and the identity in it.
fn identity(
    config: &Config,
    data_dir: &DataDir,
    metrics: &Metrics,
) -> Result<(SealingKey, IdentityFile, Held), AppError> {
    let path = data_dir.path();
    let kek = open_kek(&kek_file(path, config.kek_file.as_deref()))?;
    let file = IdentityFile::new(path, &kek);
    let OnDisk::Enrolled(identity) = file.load()? else {
        return Err(AppError::NotEnrolled(path.display().to_string()));
    };
    tracing::info!(agent = %identity.agent, region = identity.region, "starting");
    metrics.identity_expires(identity.not_after);
    Ok((kek, file, Arc::new(ArcSwap::from_pointee(*identity))))
}

/// Takes no more jobs, finishes attempts in flight, reports or journals their outcomes. Whatever is
/// not done by the deadline is done by another agent when its lease ends.
async fn stop(agent: Agent, deadline: Duration) {
    let until = Instant::now() + deadline;
    agent.tasks.shutdown().cancel();
    agent.lanes.close();
    // A tenth of the time is for the journal.
    let reporting = deadline.mul_f64(0.9);
    let finished = tokio::time::timeout(reporting, agent.finished.cancelled()).await;
    if finished.is_err() {
        let (attempts, _) = agent.lanes.in_hand().size();
        let outcomes = agent.outbox.len();
        tracing::warn!(
            attempts,
            outcomes,
            "not finished by the deadline: outcomes stay in the journal, attempts are repeated when their leases end"
        );
    }
    agent.outbox.finish();
    let Agent {
        tasks,
        lanes,
        outbox,
        ..
    } = agent;
    // They hold the journal open.
    drop((lanes, outbox));
    let left = until.saturating_duration_since(Instant::now());
    match tasks.stop(left.max(Duration::from_millis(100))).await {
        Ok(()) => tracing::info!("stopped"),
        Err(late) => tracing::warn!(tasks = ?late, "stopped without waiting any longer"),
    }
}
