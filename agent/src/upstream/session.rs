//! One session: what comes in is acted on at once, what goes out waits in a queue while the wire is
//! full, so that reading never stops for writing. An outcome is reported as it comes; those that come
//! close behind go together, a millisecond later.

mod bundles;

use std::{collections::VecDeque, pin::Pin, task::Poll, time::Duration};

use countersign_proto::v1::{
    self, BundleStatus, ConnectRequest, LeaseExtension, LeaseExtensionResult,
    OutcomeAcknowledgement, OutcomeReport, connect_request::Message as Out,
    connect_response::Message as In,
};
use countersign_shared::{
    hpke::RecipientKey,
    job::LeaseId,
    wire::{self, lease_from_wire, lease_to_wire},
};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};
use tokio_stream::Stream as _;
use tonic::{Status, Streaming};

use self::bundles::{ToDisk, on_disk};
use super::{answers::Answers, connect::Open, credit::Granted, parts::Parts};
use crate::deliver::Activation;

/// Most outcomes in one message.
const REPORT: usize = 256;
/// How long after a report the next one comes at the soonest.
const PAUSE: Duration = Duration::from_millis(1);
/// Most messages that are acted on in a row, when they are there.
const IN_A_ROW: usize = 64;
/// Most leases in one message.
const EXTENSION: usize = 1024;
/// How often leases are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often heartbeats go both ways, where the control plane does not say, and what it may say.
const HEARTBEAT: (Duration, Duration, Duration) = (
    Duration::from_secs(10),
    Duration::from_millis(100),
    Duration::from_secs(300),
);

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The agent is stopping and everything is reported.
    Done,
    /// The agent goes on to the next of several control planes.
    Moves,
    /// The control plane ended it without an error.
    Closed,
    /// Nothing was heard for three heartbeats.
    Silent,
    /// The control plane, or the connection, ended it with an error.
    Failed(Status),
}

/// A session that is up.
pub(super) struct Session<'a> {
    parts: &'a Parts,
    /// What this session's secrets are sealed to.
    key: &'a RecipientKey,
    answers: Answers,
    queue: VecDeque<Out>,
    to_disk: VecDeque<ToDisk>,
    granted: Granted,
    draining: bool,
    /// The control plane has said that no more jobs come.
    no_more_jobs: bool,
    heard: Instant,
    /// When outcomes may be reported again.
    report_at: Instant,
    heartbeat: Duration,
}

impl<'a> Session<'a> {
    pub(super) fn new(parts: &'a Parts, key: &'a RecipientKey, welcome: &v1::Welcome) -> Self {
        let (default, least, most) = HEARTBEAT;
        let heartbeat = welcome
            .heartbeat_interval
            .and_then(wire::duration_from_wire);
        Self {
            parts,
            key,
            answers: Answers::new(),
            queue: VecDeque::new(),
            to_disk: VecDeque::new(),
            granted: Granted::default(),
            draining: false,
            no_more_jobs: false,
            heard: Instant::now(),
            report_at: Instant::now(),
            heartbeat: heartbeat.unwrap_or(default).clamp(least, most),
        }
    }

    /// Talks until the session ends.
    pub(super) async fn talk(
        mut self,
        mut incoming: Streaming<v1::ConnectResponse>,
        outgoing: mpsc::Sender<ConnectRequest>,
        activations: &mut mpsc::Receiver<Activation>,
    ) -> Ended {
        let mut heartbeat = ticks(self.heartbeat);
        let mut look = ticks(LOOK);
        let mut stopping = false;
        let stay = self.parts.places.stay();
        let leave_at = Instant::now() + stay.unwrap_or_default();
        // What the last session may not have heard.
        for bundle in self.parts.lanes.bundles() {
            if bundle.is_active() {
                self.acknowledge(
                    &bundle.destination,
                    bundle.generation,
                    BundleStatus::Active,
                    "",
                );
            }
        }
        loop {
            if stopping && self.no_more_jobs && self.is_done() {
                return Ended::Done;
            }
            self.grant(stopping);
            let unsent = self.parts.outbox.has_unsent();
            let report = unsent && Instant::now() >= self.report_at;
            let has_news = report || !self.queue.is_empty();
            tokio::select! {
                message = incoming.message() => {
                    if let Err(ended) = self.receive_all(message, &mut incoming).await {
                        return ended;
                    }
                }
                permit = outgoing.reserve(), if has_news => match permit {
                    Ok(permit) => {
                        if let Some(message) = self.next() {
                            permit.send(ConnectRequest { message: Some(message) });
                        }
                    }
                    Err(_) => return Ended::Closed,
                },
                () = sleep_until(self.report_at), if unsent && !report => {}
                () = self.parts.outbox.news(), if !unsent => {}
                Some(used) = activations.recv() => {
                    self.acknowledge(&used.destination, used.generation, BundleStatus::Active, "");
                }
                Some(answer) = self.answers.next() => self.answer(answer),
                result = on_disk(&mut self.to_disk) => self.stored(result),
                _ = heartbeat.tick() => {
                    if self.heard.elapsed() > 3 * self.heartbeat {
                        return Ended::Silent;
                    }
                    self.queue.push_back(Out::Heartbeat(v1::Heartbeat { time: self.now() }));
                }
                _ = look.tick() => self.extend_leases(),
                () = sleep_until(leave_at), if stay.is_some() && !stopping => return Ended::Moves,
                () = self.parts.shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    // Jobs may be on their way until the control plane has answered this.
                    self.no_more_jobs = false;
                    self.queue.push_back(Out::Stopping(v1::Stopping {}));
                }
            }
        }
    }

    fn now(&self) -> Option<prost_types::Timestamp> {
        Some(wire::timestamp_to_wire(self.parts.clock.now()))
    }

    /// Nothing is being attempted and everything is acknowledged.
    fn is_done(&self) -> bool {
        self.parts.lanes.in_hand().size().0 == 0 && self.parts.outbox.is_empty()
    }

    /// Grants what is free, unless no more jobs are wanted or come.
    fn grant(&mut self, stopping: bool) {
        if stopping || self.draining {
            return;
        }
        let (jobs, bytes) = self.parts.lanes.in_hand().size();
        let jobs = jobs + self.parts.outbox.len();
        if let Some(credit) = self.granted.more(self.parts.limits, jobs, bytes) {
            self.queue.push_back(Out::Credit(credit));
        }
    }

    /// Acts on a message, and on those behind it that are there already.
    async fn receive_all(
        &mut self,
        first: Result<Option<v1::ConnectResponse>, Status>,
        incoming: &mut Streaming<v1::ConnectResponse>,
    ) -> Result<(), Ended> {
        let mut message = first.map_err(Ended::Failed)?.ok_or(Ended::Closed)?;
        for _ in 1..IN_A_ROW {
            self.receive(message).await;
            message = match arrived(incoming).await {
                Some(next) => next.map_err(Ended::Failed)?,
                None => return Ok(()),
            };
        }
        self.receive(message).await;
        Ok(())
    }

    async fn receive(&mut self, message: v1::ConnectResponse) {
        self.heard = Instant::now();
        match message.message {
            Some(In::Job(job)) => self.take_job(job),
            Some(In::OutcomeAcknowledgement(acknowledged)) => self.forget(&acknowledged),
            Some(In::Bundle(bundle)) => self.take_bundle(bundle).await,
            Some(In::BundleRemoval(removal)) => self.remove_bundle(&removal.destination).await,
            Some(In::LeaseExtensionResult(result)) => self.leases_extended(&result),
            Some(In::Drain(_)) => {
                tracing::info!("the control plane is going away; finishing what is in hand");
                self.draining = true;
            }
            Some(In::NoMoreJobs(_)) => {
                self.no_more_jobs = true;
                self.parts.lanes.give_back();
            }
            Some(In::Probe(probe)) => self.answers.probe(self.parts, &probe),
            Some(In::Revocation(revocation)) => self.answers.revoke(self.parts, revocation),
            Some(In::Heartbeat(_) | In::Welcome(_)) => {}
            // A newer control plane may say what this agent does not know.
            None => tracing::debug!("a message of an unknown kind was ignored"),
        }
    }

    /// That a revoked certificate is out of use is said before anything else.
    fn answer(&mut self, answer: Out) {
        match answer {
            Out::RevocationAcknowledgement(_) => self.queue.push_front(answer),
            _ => self.queue.push_back(answer),
        }
    }

    /// What goes out next: what is queued, or else outcomes.
    fn next(&mut self) -> Option<Out> {
        if let Some(message) = self.queue.pop_front() {
            return Some(message);
        }
        let outcomes = self.parts.outbox.take_unsent(REPORT);
        if outcomes.is_empty() {
            return None;
        }
        // A full report has more behind it.
        if outcomes.len() < REPORT {
            self.report_at = Instant::now() + PAUSE;
        }
        let outcomes = outcomes.iter().map(|it| wire::outcome_to_wire(it));
        let outcomes = outcomes.collect();
        Some(Out::OutcomeReport(OutcomeReport { outcomes }))
    }

    fn take_job(&mut self, job: v1::Job) {
        self.granted.used(job.payload.len());
        match wire::job_from_wire(job, self.parts.clock.now()) {
            Ok(job) => self.parts.lanes.take(job),
            Err(error) => tracing::warn!(%error, "a job is not understood; its lease will end"),
        }
    }

    fn forget(&self, acknowledged: &OutcomeAcknowledgement) {
        let leases: Vec<LeaseId> = leases(&acknowledged.outcomes);
        self.parts.outbox.acknowledge(&leases);
    }

    fn extend_leases(&mut self) {
        let due = self.parts.lanes.in_hand().to_extend(self.parts.clock.now());
        for some in due.chunks(EXTENSION) {
            let leases = some.iter().copied().map(lease_to_wire).collect();
            self.queue
                .push_back(Out::LeaseExtension(LeaseExtension { leases }));
        }
    }

    fn leases_extended(&self, result: &LeaseExtensionResult) {
        let in_hand = self.parts.lanes.in_hand();
        in_hand.lost(&leases(&result.lost));
        if let Some(lasts) = result.lease_duration.and_then(wire::duration_from_wire) {
            let now = self.parts.clock.now();
            in_hand.extended(&leases(&result.extended), now, lasts);
        }
    }
}

/// The next message if it is there already; `None` also when the stream has ended, which the next look
/// tells.
async fn arrived(
    incoming: &mut Streaming<v1::ConnectResponse>,
) -> Option<Result<v1::ConnectResponse, Status>> {
    let mut incoming = Pin::new(incoming);
    std::future::poll_fn(|context| match incoming.as_mut().poll_next(context) {
        Poll::Ready(message) => Poll::Ready(message),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn leases(list: &[v1::HeldLease]) -> Vec<LeaseId> {
    // What is no lease can't be one of ours.
    list.iter()
        .filter_map(|it| lease_from_wire(it).ok())
        .collect()
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Opens into a session.
pub(super) async fn converse(
    parts: &Parts,
    open: Open,
    key: &RecipientKey,
    activations: &mut mpsc::Receiver<Activation>,
) -> Ended {
    let session = Session::new(parts, key, &open.welcome);
    session
        .talk(open.incoming, open.outgoing, activations)
        .await
}
