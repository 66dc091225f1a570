//! AgentSessionService: one stream an agent. This file reads what the agent says; what goes to it is
//! in `outbound`, what must be recorded in `recorder`.

use std::{sync::Arc, time::Duration};

use countersign_proto::v1::{
    self, agent_session_service_server::AgentSessionService, connect_request::Message,
};
use countersign_shared::{
    hpke,
    name::AgentName,
    tasks::{OnFailure, Tasks},
    time::Timestamp,
    wire::{
        Records, WireError, duration_to_wire, lease_from_wire, outcome_with,
        probe_report_from_wire, timestamp_from_wire, timestamp_to_wire,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    authenticate,
    outbound::Outbound,
    recorder::{QUEUE, Recorder, Report},
    status::{self, status},
};
use crate::{
    audit::Refusal,
    deliveries::Settle,
    dispatch::{Attach, AttachError, Control, Fleet, Greeting, HeldBundle, Probes, Session},
    model::{BundleAcknowledgement, BundleStatus},
};

/// How long an agent may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// After so many heartbeats without a word the agent is taken to be gone.
const SILENT_HEARTBEATS: u32 = 3;
/// How long a graceful stop waits for the outcomes of jobs that are out.
const DRAIN: Duration = Duration::from_secs(3);
/// Most bundles and leases that a hello may list.
const MAX_HELD: usize = 200_000;
/// Longest reason that is kept of a refused bundle, in characters.
const MAX_REASON: usize = 300;

/// AgentSessionService over the dispatcher's sessions.
#[derive(Clone)]
pub struct AgentSessionApi {
    /// Begins sessions.
    pub attach: Attach,
    /// Takes outcomes.
    pub settle: Settle,
    /// The handshakes that outcomes tell of.
    pub handshakes: Arc<Records>,
    /// Takes what probes found.
    pub probes: Arc<Probes>,
    /// Tells agents what they have to stop using.
    pub fleet: Fleet,
    /// Runs sessions.
    pub tasks: Tasks,
    /// How often both ends send a sign of life.
    pub heartbeat: Duration,
    /// Within which time an agent reconnects after a first failure.
    pub reconnect_window: Duration,
    /// How long a lease lasts.
    pub lease: Duration,
}

#[tonic::async_trait]
impl AgentSessionService for AgentSessionApi {
    type ConnectStream = Outbound;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Outbound>, Status> {
        let agent = authenticate::agent(&request)?;
        let presented = authenticate::agent_key(&request)?;
        let certificate = authenticate::agent_certificate(&request)?;
        let mut inbound = request.into_inner();
        let hello = hello(&mut inbound).await?;
        let (key, signature) = (&hello.sealing_key, &hello.sealing_key_signature);
        let sealing_key = hpke::check_vouched(&agent, key, signature, &certificate);
        let sealing_key = sealing_key.map_err(|error| {
            let text = format!("hello: sealing_key {error}");
            status(Code::InvalidArgument, "SEALING_KEY_REFUSED", text)
        })?;
        let greeting = greeting(hello, sealing_key).map_err(|error| {
            let text = format!("hello: {error}");
            status(Code::InvalidArgument, "HELLO_EXPECTED", text)
        })?;
        let attached = self.attach.attach(&agent, presented, greeting).await;
        let (session, lanes) = attached.map_err(|error| match error {
            AttachError::Unknown(_) => {
                status(Code::PermissionDenied, "AGENT_UNKNOWN", error.to_string())
            }
            AttachError::Evicted(_) => {
                status(Code::PermissionDenied, "AGENT_EVICTED", error.to_string())
            }
            AttachError::Replaced(_) => {
                status(Code::PermissionDenied, "AGENT_REPLACED", error.to_string())
            }
            AttachError::Suspended(_) => {
                status(Code::PermissionDenied, "AGENT_SUSPENDED", error.to_string())
            }
            AttachError::Store(error) => status::store(error),
        })?;
        tracing::info!(%agent, session = session.id, "agent connected");
        let reminded = self.fleet.remind(&session).await;
        reminded.map_err(status::store)?;
        self.spawn(Arc::clone(&session), inbound);
        let clock = Arc::clone(&self.attach.clock);
        let ended = session.ended.clone();
        Ok(Response::new(Outbound {
            welcome: Some(self.welcome(&session)),
            lanes,
            session,
            clock,
            ended: Box::pin(async move { ended.cancelled().await }),
            done: false,
        }))
    }
}

impl AgentSessionApi {
    /// An agent refuses what is older than what it has, and what does not open: it may be a replay.
    fn put_on_record(&self, word: &BundleAcknowledgement, now: Timestamp) {
        let refusal = Refusal {
            principal: word.agent.to_string(),
            address: None,
            method: format!("AgentSessionService/Connect bundle of {}", word.destination),
            reason: "BUNDLE_REFUSED".to_owned(),
        };
        self.settle.refusals.note(refusal, now);
    }

    fn welcome(&self, session: &Session) -> v1::Welcome {
        v1::Welcome {
            session_id: session.id.clone(),
            heartbeat_interval: Some(duration_to_wire(self.heartbeat)),
            reconnect_window: Some(duration_to_wire(self.reconnect_window)),
            control_plane_time: Some(timestamp_to_wire(self.attach.clock.now())),
        }
    }

    fn spawn(&self, session: Arc<Session>, inbound: Streaming<v1::ConnectRequest>) {
        let (reports, waiting) = mpsc::channel(QUEUE);
        let recorder = Recorder {
            store: Arc::clone(&self.attach.store),
            settle: self.settle.clone(),
            wake: Arc::clone(&self.attach.wake),
            clock: Arc::clone(&self.attach.clock),
            session: Arc::clone(&session),
            lease: self.lease,
        };
        self.tasks
            .spawn("agent reports", OnFailure::Log, recorder.run(waiting));
        let api = self.clone();
        self.tasks.spawn("agent session", OnFailure::Log, async move {
            let reason = api.read(&session, inbound, &reports).await;
            api.attach.sessions.remove(&session);
            tracing::info!(agent = %session.agent, session = session.id, reason, "agent disconnected");
            Ok::<_, Status>(())
        });
    }

    /// Reads until the stream ends, the session is replaced, the agent falls silent, or the control
    /// plane stops; answers which.
    async fn read(
        &self,
        session: &Session,
        mut inbound: Streaming<v1::ConnectRequest>,
        reports: &mpsc::Sender<Report>,
    ) -> &'static str {
        let mut heartbeat = tokio::time::interval(self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_heard = Instant::now();
        let mut drain_until = None;
        loop {
            tokio::select! {
                () = session.ended.cancelled() => return "replaced, or the connection is gone",
                () = self.tasks.shutdown().cancelled(), if drain_until.is_none() => {
                    drain_until = Some(Instant::now() + DRAIN);
                    session.send_control(Control::Drain(DRAIN)).await;
                    heartbeat = tokio::time::interval(Duration::from_millis(20));
                }
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        last_heard = Instant::now();
                        if let Err(error) = self.take(session, message, reports).await {
                            tracing::warn!(agent = %session.agent, %error, "message not understood");
                        }
                    }
                    Ok(None) => return "it said goodbye",
                    Err(_) => return "the connection broke",
                },
                _ = heartbeat.tick() => {
                    if drain_until.is_some_and(|until| session.leased() == 0 || Instant::now() >= until) {
                        return "the control plane stops";
                    }
                    if drain_until.is_none() {
                        session.send_control(Control::Heartbeat).await;
                    }
                    if last_heard.elapsed() > self.heartbeat * SILENT_HEARTBEATS {
                        return "it fell silent";
                    }
                }
            }
        }
    }

    async fn take(
        &self,
        session: &Session,
        message: v1::ConnectRequest,
        reports: &mpsc::Sender<Report>,
    ) -> Result<(), WireError> {
        let report = match message.message.ok_or(WireError::Missing("message"))? {
            Message::Hello(_) => return Err(WireError::Value("a second hello")),
            Message::Credit(credit) => {
                session.add_credit(i64::from(credit.jobs), credit.bytes);
                self.attach.wake.poke();
                return Ok(());
            }
            Message::Heartbeat(heartbeat) => {
                let theirs = heartbeat.time.map(timestamp_from_wire);
                let ours = self.attach.clock.now().as_unix_micros();
                if let Some(theirs) = theirs {
                    session.measured_clock_skew(theirs.as_unix_micros() - ours);
                }
                return Ok(());
            }
            Message::Stopping(_) => {
                tracing::info!(agent = %session.agent, "the agent is stopping");
                session.set_stopping();
                self.attach.wake.poke();
                return Ok(());
            }
            Message::ProbeResult(result) => {
                let report = probe_report_from_wire(result)?;
                self.probes.answered(&session.agent, report);
                return Ok(());
            }
            Message::RevocationAcknowledgement(stopped) => {
                Report::Stopped(stopped.destination.parse()?, stopped.serial_numbers)
            }
            Message::OutcomeReport(report) => {
                let outcomes = report
                    .outcomes
                    .into_iter()
                    .map(|outcome| outcome_with(outcome, |encoded| self.handshakes.read(encoded)));
                Report::Outcomes(outcomes.collect::<Result<_, _>>()?)
            }
            Message::LeaseExtension(extension) => {
                let leases = extension.leases.iter().map(lease_from_wire);
                Report::Extend(leases.collect::<Result<_, _>>()?)
            }
            Message::BundleAcknowledgement(word) => {
                let now = self.attach.clock.now();
                let word = acknowledgement(&session.agent, word, now)?;
                if word.status == BundleStatus::Refused {
                    self.put_on_record(&word, now);
                }
                Report::Bundle(word)
            }
        };
        // The recorder ends only after this loop.
        let _ = reports.send(report).await;
        Ok(())
    }
}

async fn hello(inbound: &mut Streaming<v1::ConnectRequest>) -> Result<v1::Hello, Status> {
    let refused = |text: &str| status(Code::InvalidArgument, "HELLO_EXPECTED", text);
    let first = tokio::time::timeout(HELLO_WITHIN, inbound.message()).await;
    let first = first.map_err(|_| refused("no hello came in time"))??;
    let Some(Message::Hello(hello)) = first.and_then(|message| message.message) else {
        return Err(refused("the first message must be hello"));
    };
    if hello.held_bundles.len() > MAX_HELD || hello.held_leases.len() > MAX_HELD {
        return Err(refused("hello lists too much"));
    }
    Ok(hello)
}

fn greeting(
    hello: v1::Hello,
    sealing_key: [u8; hpke::PUBLIC_LENGTH],
) -> Result<Greeting, WireError> {
    let mut bundles = Vec::with_capacity(hello.held_bundles.len());
    for held in hello.held_bundles {
        bundles.push(HeldBundle {
            destination: held.destination.parse()?,
            generation: u64::try_from(held.generation)
                .map_err(|_| WireError::Value("generation"))?,
            content_sha256: held.content_sha256.to_vec(),
        });
    }
    let leases = hello.held_leases.iter().map(lease_from_wire);
    Ok(Greeting {
        version: hello.version,
        bundles,
        leases: leases.collect::<Result<_, _>>()?,
        time: hello.agent_time.map(timestamp_from_wire),
        sealing_key,
    })
}

fn acknowledgement(
    agent: &AgentName,
    word: v1::BundleAcknowledgement,
    at: Timestamp,
) -> Result<BundleAcknowledgement, WireError> {
    let status = match v1::BundleStatus::try_from(word.status) {
        Ok(v1::BundleStatus::Received) => BundleStatus::Received,
        Ok(v1::BundleStatus::Durable) => BundleStatus::Durable,
        Ok(v1::BundleStatus::Active) => BundleStatus::Active,
        Ok(v1::BundleStatus::Refused) => BundleStatus::Refused,
        _ => return Err(WireError::Value("status")),
    };
    if status == BundleStatus::Refused {
        let (destination, reason) = (&word.destination, &word.reason);
        tracing::warn!(%agent, destination, reason, "the agent refused a bundle");
    }
    Ok(BundleAcknowledgement {
        agent: agent.clone(),
        destination: word.destination.parse()?,
        generation: u64::try_from(word.generation).map_err(|_| WireError::Value("generation"))?,
        status,
        reason: word.reason.chars().take(MAX_REASON).collect(),
        at,
    })
}
