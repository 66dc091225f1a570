//! One attempt, as stages that consume each other: a job is signed, sent over a connection of the
//! bundle's client, and what happened is classified. The whole is under the bundle's timeout, the
//! end of the answer included.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    class::FailureClass,
    job::LeasedJob,
    outcome::{AttemptTimings, HandshakeRecord, Outcome},
    time::{Clock, Timestamp},
};
use http::Request;
use hyper_util::client::legacy::{
    self,
    connect::{CaptureConnection, capture_connection},
};
use tokio::time::{Instant, timeout};

use super::{
    classify::classify,
    closed::{GRACE, left_behind},
    connector::{ConnectError, ConnectFailure},
    dial::DialFailure,
    facts::{Ending, Facts, OwnCertificate, Validity},
    handshake::Handshake,
    prepared::Prepared,
    progress::{ATTEMPT, Payload, Progress, Step},
    response::{self, Head},
    sign::{SignedRequest, sign},
    stream::HandshakeOf,
};

/// Why a job was given back.
pub(super) mod given_back {
    pub(in super::super) const NO_BUNDLE: &str =
        "The agent has no usable bundle for the destination.";
    pub(in super::super) const LEASE_ENDED: &str =
        "The lease ended before the attempt could start.";
    pub(in super::super) const STOPPING: &str = "The agent is stopping.";
    pub(in super::super) const CONTENT_TYPE: &str =
        "The content type can't be sent as a header value.";
}

/// What a request led to.
struct Exchange {
    ending: Ending,
    handshake: Option<Arc<Handshake>>,
    /// The connection was opened for this attempt.
    first_use: bool,
    head: Option<Head>,
    response: Option<Duration>,
}

/// Makes one attempt; `queued` is how long the job has waited for it.
pub(super) async fn attempt(
    job: &LeasedJob,
    bundle: &Prepared,
    queued: Duration,
    clock: &dyn Clock,
) -> Outcome {
    let (started_at, started) = (clock.now(), Instant::now());
    let exchange = if started_at >= bundle.not_after {
        Exchange::without(Ending::OwnCertificateExpired)
    } else {
        match sign(job, bundle, started_at) {
            Ok(request) => Box::pin(send(request, bundle, clock)).await,
            Err(_) => return not_attempted(job, started_at, given_back::CONTENT_TYPE),
        }
    };
    let timings = AttemptTimings {
        queued: Some(queued),
        total: Some(started.elapsed()),
        ..AttemptTimings::default()
    };
    let validity = Validity::at(clock.now(), bundle.not_before, bundle.not_after);
    exchange.into_outcome(job, started_at, timings, validity)
}

/// The outcome of a job that is given back without an attempt.
pub(super) fn not_attempted(job: &LeasedJob, at: Timestamp, detail: &'static str) -> Outcome {
    Outcome {
        delivery: job.lease.delivery,
        epoch: job.lease.epoch,
        class: FailureClass::NotAttempted,
        mtls_not_enforced: false,
        http_status: None,
        handshake: None,
        timings: AttemptTimings::default(),
        started_at: at,
        retry_after: None,
        detail: detail.into(),
        refused: None,
    }
}

async fn send(signed: SignedRequest, bundle: &Prepared, clock: &dyn Clock) -> Exchange {
    let progress = Arc::new(Progress::default());
    let mut request = Request::new(Payload::new(signed.payload, Arc::clone(&progress)));
    *request.method_mut() = signed.method;
    *request.uri_mut() = bundle.uri.clone();
    *request.headers_mut() = signed.headers;
    let connection = capture_connection(&mut request);
    let mut connecting = connection.clone();
    let first = async { drop(connecting.wait_for_connection_metadata().await) };
    let begun = Instant::now();
    let exchange = async {
        match bundle.client.request(request).await {
            Ok(answer) => {
                let head = response::head(&answer, clock.now());
                progress.answered(head);
                response::finish(head.status, answer.into_body()).await
            }
            Err(error) => failed(&error, &progress),
        }
    };
    let scoped = ATTEMPT.scope(Arc::clone(&progress), exchange);
    let left_behind = left_behind(&progress, || used(&connection), first, GRACE);
    let ended = timeout(bundle.attempt_timeout, async {
        tokio::select! {
            biased;
            ending = scoped => ending,
            () = left_behind => Ending::Lost,
        }
    })
    .await;
    let used = used(&connection);
    let ending = ended.unwrap_or_else(|_| timed_out(&progress, used.is_some()));
    let opened = || progress.connection().map(|(_, handshake)| handshake);
    Exchange {
        ending,
        first_use: used.as_ref().is_none_or(|it| it.first_use()),
        handshake: used.or_else(opened),
        head: progress.head().map(|(head, _)| head),
        response: progress
            .head()
            .map(|(_, at)| at.duration_since(progress.sent().unwrap_or(begun))),
    }
}

/// The handshake of the connection that the request was given, if it was given one.
fn used(connection: &CaptureConnection) -> Option<Arc<Handshake>> {
    let connected = connection.connection_metadata();
    let mut extensions = http::Extensions::new();
    connected.as_ref()?.get_extras(&mut extensions);
    extensions
        .remove::<HandshakeOf>()
        .map(|HandshakeOf(handshake)| handshake)
}

/// What the HTTP client's error means.
fn failed(error: &legacy::Error, progress: &Progress) -> Ending {
    let Some(source) = std::error::Error::source(error) else {
        return Ending::Lost;
    };
    if let Some(refused) = source.downcast_ref::<ConnectError>() {
        progress.reached(Step::Dialling, &refused.handshake);
        return not_connected(refused.failure);
    }
    match source.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_parse() || error.is_parse_too_large() => Ending::NotHttp,
        _ => Ending::Lost,
    }
}

fn not_connected(failure: ConnectFailure) -> Ending {
    match failure {
        ConnectFailure::Dial(DialFailure::NoAddress) => Ending::NoAddress,
        ConnectFailure::Dial(DialFailure::Denied(denied)) => Ending::Denied(denied),
        ConnectFailure::Dial(DialFailure::Refused) => Ending::Refused,
        ConnectFailure::Dial(DialFailure::Timeout) => Ending::ConnectTimeout,
        ConnectFailure::Dial(DialFailure::Unreachable) => Ending::Unreachable,
        ConnectFailure::Dial(DialFailure::ProxyUnreachable) => Ending::ProxyUnreachable,
        ConnectFailure::Dial(DialFailure::ProxyRefused) => Ending::ProxyRefused,
        ConnectFailure::Dial(DialFailure::Other) => Ending::ConnectFailed,
        ConnectFailure::HandshakeTimeout => Ending::HandshakeTimeout,
        ConnectFailure::Tls(failure) => Ending::Tls(failure),
        ConnectFailure::NotEnforced => Ending::NotEnforced,
    }
}

/// What the attempt's timeout has cut off.
fn timed_out(progress: &Progress, has_connection: bool) -> Ending {
    match progress.connection() {
        Some((Step::Dialling, _)) if !has_connection => Ending::ConnectTimeout,
        Some((Step::ShakingHands, _)) if !has_connection => Ending::HandshakeTimeout,
        _ => Ending::AnswerTimeout,
    }
}

impl Exchange {
    fn without(ending: Ending) -> Self {
        Self {
            ending,
            handshake: None,
            first_use: true,
            head: None,
            response: None,
        }
    }

    fn into_outcome(
        self,
        job: &LeasedJob,
        started_at: Timestamp,
        mut timings: AttemptTimings,
        validity: Validity,
    ) -> Outcome {
        timings.response = self.response;
        if let Some(handshake) = self.handshake.as_ref().filter(|_| self.first_use) {
            handshake.time(&mut timings);
        }
        let record = self.handshake.as_ref().map(|handshake| HandshakeRecord {
            connection_reused: !self.first_use,
            ..handshake.record()
        });
        let verdict = classify(Facts {
            ending: self.ending,
            record: record.as_ref(),
            accepted: self.handshake.as_ref().is_some_and(|it| it.has_ticket()),
            own: OwnCertificate {
                validity,
                issuer_named: self.handshake.as_ref().and_then(|it| it.issuer_named()),
            },
        });
        Outcome {
            delivery: job.lease.delivery,
            epoch: job.lease.epoch,
            class: verdict.class,
            mtls_not_enforced: verdict.mtls_not_enforced,
            http_status: self.head.map(|head| head.status.as_u16()),
            handshake: record,
            timings,
            started_at,
            retry_after: self.head.and_then(|head| head.retry_after),
            detail: verdict.detail.into(),
            refused: None,
        }
    }
}

/// Whether `outcome` shows that the receiver took the bundle's certificate: there was an answer, and
/// it was not about the certificate.
pub(super) fn proves_bundle(outcome: &Outcome) -> bool {
    outcome.http_status.is_some()
        && outcome.handshake.as_ref().is_some_and(|it| it.completed)
        && !matches!(
            outcome.class,
            FailureClass::ClientCertificateExpired
                | FailureClass::ClientCaNotTrusted
                | FailureClass::ClientCertificateRevoked
                | FailureClass::ClientCertificateRequired
                | FailureClass::ClientCertificateRejected
        )
}
