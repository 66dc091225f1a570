//! `countersign bench sessions`: many agents that are connected and have nothing to do. What they cost a
//! control plane, and how soon all of them are back after it was killed, with submissions going on.
//!
//! The agents are sessions of this process: each enrolls, connects with its own identity, and sends signs of
//! life, as an agent does.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Args, value_parser};
use countersign_agent::{
    identity::{
        Identity,
        enroll::{Enrolled, Enrollment, enroll},
    },
    transport::{ControlPlaneUrl, channel, dial},
};
use countersign_proto::v1::{
    self, ConnectRequest, Heartbeat, Hello,
    agent_session_service_client::AgentSessionServiceClient, connect_request::Message as Out,
    connect_response::Message as In,
};
use countersign_shared::{
    VERSION,
    hpke::RecipientKey,
    join_token::JoinToken,
    name::Id,
    random,
    tasks::{OnFailure, Tasks},
    time::{Clock as _, SystemClock},
    wire,
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    failure::Failure,
    machine::Machine,
    options::Store,
    parts::Parts,
    setup::{self, Prepared},
};
use crate::local::{
    commands,
    provision::{Administrator, Event},
};

/// How long all of them may take to connect.
const PATIENCE: Duration = Duration::from_secs(300);
/// As in an agent: within which time it reconnects at first, and at last.
const WINDOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// What is submitted.
const EVENT: Event = Event {
    kind: "bench",
    payload: b"{}",
};
/// How often a delivery is submitted while they come back.
const SUBMIT: Duration = Duration::from_millis(50);

/// Flags of `countersign bench sessions`. In the report they are `options`, by the same names.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// Sessions.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=20_000))]
    pub(crate) count: u32,
    /// Where the store is: in the control plane, or on a PostgreSQL server that is started for the run.
    #[arg(long, value_enum, default_value_t = Store::Embedded)]
    pub(crate) store: Store,
    /// How long to look at them while they are idle, in seconds.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = value_parser!(u32).range(1..=3600))]
    pub(crate) idle: u32,
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
    /// Share of one core that the control plane took while all were idle.
    idle_cpu: f64,
    /// The most memory that it had resident by then, in bytes.
    peak_rss_bytes: u64,
    /// From when it listens again after a kill until all were back, in seconds.
    all_back_after_seconds: f64,
    /// The slowest of the submissions meanwhile, in milliseconds.
    slowest_submission_ms: f64,
    /// How many submissions there were meanwhile.
    submissions: usize,
}

/// Measures.
///
/// # Errors
/// The first [`Failure`]; what was started until then is in `parts`.
pub(crate) async fn run(parts: &mut Parts, options: &Options) -> Result<Report, Failure> {
    let settings = setup::store(parts, options.store).await?;
    let prepared = setup::prepare(parts, 1, settings.as_deref()).await?;
    let destination = destination(&prepared).await?;
    let (tasks, _failures) = Tasks::new();
    let connected = Arc::<AtomicUsize>::default();
    for number in 1..=options.count {
        let console = &mut parts.console;
        console.progress(|| format!("enrolled: {number} of {}", options.count));
        let folder = parts.directory.root().join(format!("session-{number}"));
        let agents = prepared.addresses.agents;
        let session = enrolled(&prepared.administrator, &folder, number, agents).await?;
        let (connected, stop) = (Arc::clone(&connected), tasks.shutdown().clone());
        tasks.spawn("session", OnFailure::Log, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = session.keep_up(&connected) => {}
            }
            Ok::<_, std::convert::Infallible>(())
        });
    }
    let all = options.count as usize;
    wait_for_all(parts, &connected, all).await?;
    parts.console.busy("idle sessions");
    let before = parts.control_plane_usage()?;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(options.idle.into())).await;
    let idle = parts.control_plane_usage()?.since(before);
    let idle_cpu = idle.cpu.as_secs_f64() / began.elapsed().as_secs_f64();

    setup::restart(parts, prepared.addresses, settings.as_deref()).await?;
    let listening = Instant::now();
    let (ca_file, key_file) = (parts.directory.ca_file(), parts.directory.key_file());
    let client = commands::connect(prepared.addresses.api, &ca_file, &key_file).await?;
    let administrator = Administrator::new(client);
    let mut slowest = Duration::ZERO;
    let mut submissions = 0;
    while connected.load(Ordering::Relaxed) < all {
        let began = Instant::now();
        administrator.submit(&destination, EVENT).await?;
        slowest = slowest.max(began.elapsed());
        submissions += 1;
        if listening.elapsed() > PATIENCE {
            return Err(Failure::Deadline {
                seconds: PATIENCE.as_secs(),
                what: "all agents to be back",
            });
        }
        tokio::time::sleep(SUBMIT).await;
    }
    let back = listening.elapsed();
    // What is left of them ends with this process.
    let _ = tasks.stop(Duration::from_secs(5)).await;
    Ok(Report {
        version: VERSION,
        options: options.clone(),
        machine: Machine::this(),
        idle_cpu,
        peak_rss_bytes: idle.peak_rss,
        all_back_after_seconds: back.as_secs_f64(),
        slowest_submission_ms: slowest.as_secs_f64() * 1e3,
        submissions,
    })
}

/// Somewhere to submit to.
async fn destination(prepared: &Prepared) -> Result<String, Failure> {
    let wanted = v1::Destination {
        url: format!("https://{}/", prepared.receiver),
        server_ca_pem: prepared.receiver_ca_pem.clone(),
        ..v1::Destination::default()
    };
    let made = prepared
        .administrator
        .destination(&prepared.accounts[0], "d", wanted);
    Ok(made.await?.0.name)
}

async fn wait_for_all(
    parts: &mut Parts,
    connected: &AtomicUsize,
    all: usize,
) -> Result<(), Failure> {
    let waiting = parts.wait_for("all agents to connect", PATIENCE, async |console| {
        let now = connected.load(Ordering::Relaxed);
        console.progress(|| format!("connected: {now} of {all}"));
        Ok((now >= all).then_some(()))
    });
    waiting.await
}

/// One agent's session.
struct Session {
    identity: Identity,
    url: ControlPlaneUrl,
}

async fn enrolled(
    administrator: &Administrator,
    folder: &Path,
    number: u32,
    agents: std::net::SocketAddr,
) -> Result<Session, Failure> {
    let unreadable = || Failure::Unreadable("an agent's name or token");
    let id = Id::chosen(&format!("agent-{number}")).map_err(|_| unreadable())?;
    let token = administrator.join_token(&id).await?;
    let url: ControlPlaneUrl = format!("https://{agents}")
        .parse()
        .map_err(|_| unreadable())?;
    let enrollment = Enrollment {
        kek_file: None,
        control_plane: url.clone(),
        token: JoinToken::parse(token.expose()).map_err(|_| unreadable())?,
        agent: id.into(),
    };
    match enroll(folder, &enrollment, SystemClock.now()).await {
        Ok(Enrolled::Now(identity) | Enrolled::Already(identity)) => Ok(Session { identity, url }),
        Err(error) => Err(Failure::io("an agent can't enroll")(std::io::Error::other(
            error,
        ))),
    }
}

impl Session {
    /// Connects, again and again; counts while it is.
    async fn keep_up(&self, connected: &AtomicUsize) {
        let (mut window, widest) = WINDOW;
        loop {
            if self.connect(connected).await.is_some() {
                window = WINDOW.0;
            }
            tokio::time::sleep(random::full_jitter(window)).await;
            window = widest.min(window * 2);
        }
    }

    /// One session from welcome to its end; `None` when there was none.
    async fn connect(&self, connected: &AtomicUsize) -> Option<()> {
        let stream = dial(&self.url, self.identity.tls().ok()?).await.ok()?;
        let mut client = AgentSessionServiceClient::new(channel(&self.url, stream).await.ok()?);
        let key = RecipientKey::generate().ok()?;
        let (outgoing, messages) = mpsc::channel(4);
        let say = |message| ConnectRequest {
            message: Some(message),
        };
        let hello = Hello {
            version: VERSION.to_owned(),
            agent_time: Some(wire::timestamp_to_wire(SystemClock.now())),
            sealing_key: key.public().to_vec().into(),
            sealing_key_signature: self.identity.vouch(key.public()).ok()?.into(),
            ..Hello::default()
        };
        outgoing.send(say(Out::Hello(hello))).await.ok()?;
        let answer = client.connect(ReceiverStream::new(messages)).await.ok()?;
        let mut incoming = answer.into_inner();
        let Some(In::Welcome(welcome)) = incoming.message().await.ok()??.message else {
            return None;
        };
        let every = welcome
            .heartbeat_interval
            .and_then(wire::duration_from_wire);
        let mut heartbeat = tokio::time::interval(every.unwrap_or(Duration::from_secs(10)));
        connected.fetch_add(1, Ordering::Relaxed);
        loop {
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(_)) => {}
                    _ => break,
                },
                _ = heartbeat.tick() => {
                    let time = Some(wire::timestamp_to_wire(SystemClock.now()));
                    if outgoing.send(say(Out::Heartbeat(Heartbeat { time }))).await.is_err() {
                        break;
                    }
                }
            }
        }
        connected.fetch_sub(1, Ordering::Relaxed);
        Some(())
    }
}

impl Report {
    /// As one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        // Plain numbers and texts serialize.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// As lines for people.
    pub(crate) fn table(&self) -> String {
        let model = self.machine.cpu_model.as_deref();
        let model = model.unwrap_or("unknown processor");
        let rows = [
            ("machine", format!("{} cores, {model}", self.machine.cores)),
            ("sessions", self.options.count.to_string()),
            ("idle", format!("{:.1} % of a core", self.idle_cpu * 100.0)),
            (
                "control plane's memory",
                format!("{:.1} MiB", self.peak_rss_bytes as f64 / 1_048_576.0),
            ),
            (
                "all back after a kill",
                format!("{:.1} s", self.all_back_after_seconds),
            ),
            (
                "slowest submission",
                format!(
                    "{:.0} ms of {}",
                    self.slowest_submission_ms, self.submissions
                ),
            ),
        ];
        let mut table = String::new();
        for (name, value) in rows {
            // Writing to a String can't fail.
            let _ = writeln!(table, "{name:<26}{value}");
        }
        table
    }
}
