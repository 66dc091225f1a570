//! One request over a client, from sending to what it led to: for attempts and probes alike. The
//! whole is under a time limit, the end of the answer included, and ends at once when the client's
//! certificate is revoked.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use countersign_shared::{
    class::FailureClass,
    outcome::{AttemptTimings, SharedRecord},
    time::Clock,
};
use http::Request;
use hyper_util::client::legacy::{
    self,
    connect::{CaptureConnection, capture_connection},
};
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, timeout};

use super::{
    classify::{Verdict, classify},
    client::Http,
    closed::{GRACE, left_behind},
    connector::{ConnectError, ConnectFailure},
    dial::DialFailure,
    facts::{Ending, Facts, OwnCertificate, Validity},
    handshake::Handshake,
    progress::{ATTEMPT, Payload, Progress, Step},
    response::{self, Head},
    standing::Standing,
    stream::HandshakeOf,
};

/// What a request led to.
pub(super) struct Exchange {
    ending: Ending,
    handshake: Option<Arc<Handshake>>,
    /// The connection was opened for this request.
    first_use: bool,
    head: Option<Head>,
    response: Option<Duration>,
}

/// What a request led to, judged.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) record: Option<SharedRecord>,
    pub(super) head: Option<Head>,
    /// Of resolving, connecting, the handshake and the response.
    pub(super) timings: AttemptTimings,
    /// What the server presented, where the client keeps that.
    pub(super) server_chain: Vec<CertificateDer<'static>>,
}

/// Sends `request` over `http` within `limit`, unless the certificate with `standing` is or gets
/// revoked.
pub(super) async fn send(
    request: Request<Bytes>,
    http: &Http,
    standing: &Standing,
    limit: Duration,
    clock: &dyn Clock,
) -> Exchange {
    if standing.is_revoked() {
        return Exchange::without(Ending::OwnCertificateRevoked);
    }
    let progress = Arc::new(Progress::default());
    let mut request = request.map(|payload| Payload::new(payload, Arc::clone(&progress)));
    let connection = capture_connection(&mut request);
    let mut connecting = connection.clone();
    let first = async { drop(connecting.wait_for_connection_metadata().await) };
    let known = OnceLock::new();
    let used = || used(&connection, &known);
    let begun = Instant::now();
    let exchange = async {
        match http.request(request).await {
            Ok(answer) => {
                let head = response::head(&answer, clock.now());
                progress.answered(head);
                response::finish(head.status, answer.into_body()).await
            }
            Err(error) => failed(&error, &progress),
        }
    };
    let scoped = ATTEMPT.scope(Arc::clone(&progress), exchange);
    let left_behind = left_behind(&progress, used, first, GRACE);
    let ended = timeout(limit, async {
        tokio::select! {
            biased;
            ending = scoped => ending,
            () = standing.revoked() => Ending::OwnCertificateRevoked,
            () = left_behind => Ending::Lost,
        }
    })
    .await;
    let used = used();
    let mut ending = ended.unwrap_or_else(|_| timed_out(&progress, used.is_some()));
    // The connection may break a moment before the revocation is seen here.
    if standing.is_revoked() && matches!(ending, Ending::Lost | Ending::AnswerCut) {
        ending = Ending::OwnCertificateRevoked;
    }
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

/// The handshake of the connection that the request was given, if it was given one. As long as that is open, it has no
/// other: it need not be asked for again, which costs a map and a copy of all that is in it.
fn used(
    connection: &CaptureConnection,
    known: &OnceLock<Arc<Handshake>>,
) -> Option<Arc<Handshake>> {
    if let Some(known) = known.get().filter(|known| !known.is_closed()) {
        return Some(Arc::clone(known));
    }
    let connected = connection.connection_metadata();
    let mut extensions = http::Extensions::new();
    connected.as_ref()?.get_extras(&mut extensions);
    let HandshakeOf(handshake) = extensions.remove::<HandshakeOf>()?;
    // The first is remembered; when it is closed, every look is a new one.
    known.get_or_init(|| Arc::clone(&handshake));
    Some(handshake)
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
        ConnectFailure::Revoked => Ending::OwnCertificateRevoked,
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
    /// Nothing was sent.
    pub(super) fn without(ending: Ending) -> Self {
        Self {
            ending,
            handshake: None,
            first_use: true,
            head: None,
            response: None,
        }
    }

    /// A kept connection ended before anything of an answer came: most likely the receiver closed it
    /// while the request was on its way. It may be sent again over another connection (RFC 9110
    /// section 9.2.2): it has the same `webhook-id`.
    pub(super) fn met_closing(&self) -> bool {
        !self.first_use && self.head.is_none() && self.ending == Ending::Lost
    }

    /// Judges what happened with a certificate that now has this `validity`.
    pub(super) fn judge(self, validity: Validity) -> Judged {
        let mut timings = AttemptTimings {
            response: self.response,
            ..AttemptTimings::default()
        };
        if let Some(handshake) = self.handshake.as_ref().filter(|_| self.first_use) {
            handshake.time(&mut timings);
        }
        let handshake = self.handshake.as_ref();
        let record = handshake.map(|handshake| handshake.record(self.first_use));
        let verdict = classify(Facts {
            ending: self.ending,
            record: record.as_deref(),
            accepted: self.handshake.as_ref().is_some_and(|it| it.has_ticket()),
            own: OwnCertificate {
                validity,
                issuer_named: self.handshake.as_ref().and_then(|it| it.issuer_named()),
            },
        });
        let chain = self.handshake.as_ref().map(|it| it.server_chain());
        Judged {
            verdict,
            record,
            head: self.head,
            timings,
            server_chain: chain.unwrap_or_default(),
        }
    }
}

impl Judged {
    /// The receiver refused the certificate, or the identity in it.
    pub(super) fn refused(&self) -> bool {
        let class = self.verdict.class;
        class.refuses_client_certificate() || class == FailureClass::ClientIdentityForbidden
    }

    /// There was an answer, and it was not a refusal.
    pub(super) fn taken(&self) -> bool {
        self.head.is_some() && !self.refused()
    }
}
