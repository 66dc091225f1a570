//! Probes: one request without a payload over a connection of its own, to see what a receiver thinks
//! of a client certificate, or of none. A few at a time, whatever is asked for.
//!
//! The handshake alone does not tell: in TLS 1.3 it is complete on our side before the receiver has
//! judged the certificate, and nginx says its judgement in an answer. So an OPTIONS request follows
//! (RFC 9110 section 9.3.7), and what comes back is classified as for an attempt.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use countersign_shared::{
    class::FailureClass,
    outcome::AttemptTimings,
    probe::{Probe, ProbePresentation, ProbeReport},
    time::{Clock, Timestamp},
};
use http::{
    Method, Request, StatusCode,
    header::{HOST, USER_AGENT},
};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    classify::Verdict,
    credential::{Ready, Usability},
    detail,
    exchange::{Exchange, Judged, send},
    facts::Ending,
    lanes::Lanes,
    prepared::Prepared,
    sign::user_agent,
};
use crate::metrics::Metrics;

/// Most probes that are made at once.
const AT_ONCE: usize = 4;
/// Most probes in hand, those that wait included.
const IN_HAND: usize = 64;

/// Makes probes. Cheap to clone.
#[derive(Clone)]
pub struct Probes(Arc<Shared>);

struct Shared {
    lanes: Lanes,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    at_once: Semaphore,
    in_hand: Semaphore,
}

impl Probes {
    /// Of the destinations whose bundles are in `lanes`.
    pub fn new(lanes: Lanes, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            lanes,
            clock,
            metrics,
            at_once: Semaphore::new(AT_ONCE),
            in_hand: Semaphore::new(IN_HAND),
        }))
    }

    /// Makes a probe, once it is its turn. What can't be probed, and what is too much, is answered
    /// NOT_ATTEMPTED.
    pub async fn make(&self, probe: &Probe) -> ProbeReport {
        let (shared, since) = (&self.0, Instant::now());
        let Ok(_place) = shared.in_hand.try_acquire() else {
            return not_attempted(probe, shared.clock.now(), detail::TOO_MANY_PROBES);
        };
        // Never closed; and if it were, one more probe would do no harm.
        let _turn = shared.at_once.acquire().await;
        let queued = since.elapsed();
        let mut report = match shared.lanes.bundle(&probe.destination) {
            Some(bundle) => make(probe, &bundle, &*shared.clock).await,
            None => not_attempted(probe, shared.clock.now(), detail::NO_BUNDLE),
        };
        report.timings.queued = Some(queued);
        let metrics = &shared.metrics;
        if report.accepted {
            metrics.probes_accepted.inc();
        } else {
            metrics.probes_not_accepted.inc();
        }
        tracing::info!(
            destination = %probe.destination, version = probe.version,
            presentation = ?probe.presentation, accepted = report.accepted,
            class = %report.class, status = report.http_status, detail = %report.detail, "probed"
        );
        report
    }
}

async fn make(probe: &Probe, bundle: &Prepared, clock: &dyn Clock) -> ProbeReport {
    let (started_at, started) = (clock.now(), Instant::now());
    let Some(ready) = certificate(probe, bundle) else {
        return not_attempted(probe, started_at, detail::NO_SUCH_CERTIFICATE);
    };
    let presents = probe.presentation != ProbePresentation::Nothing;
    let exchange = if presents && ready.usability(started_at) == Usability::Expired {
        Exchange::without(Ending::OwnCertificateExpired)
    } else {
        let http = ready.client.for_one_probe(probe.presentation);
        let exchange = send(
            request(bundle),
            &bundle.target,
            &http,
            bundle.attempt_timeout,
            clock,
        );
        Box::pin(exchange).await
    };
    let judged = exchange.judge(ready.validity(clock.now()));
    report(probe, started_at, started, judged)
}

/// The certificate that is asked for. Where none is presented its version does not matter.
fn certificate<'a>(probe: &Probe, bundle: &'a Prepared) -> Option<&'a Ready> {
    let found = bundle.certificate(probe.version);
    match probe.presentation {
        ProbePresentation::Nothing => found.or(Some(&bundle.active)),
        ProbePresentation::Chain | ProbePresentation::LeafOnly => found,
    }
}

fn request(bundle: &Prepared) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = Method::OPTIONS;
    *request.uri_mut() = bundle.target.origin.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, bundle.target.host.clone());
    headers.insert(USER_AGENT, user_agent());
    request
}

fn report(probe: &Probe, started_at: Timestamp, started: Instant, judged: Judged) -> ProbeReport {
    let Judged {
        verdict: Verdict { class, detail, .. },
        record,
        head,
        mut timings,
        server_chain,
    } = judged;
    let status = head.map(|it| it.status);
    let denied = probe.presentation == ProbePresentation::Nothing
        && matches!(
            status,
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        );
    timings.total = Some(started.elapsed());
    ProbeReport {
        id: probe.id,
        class,
        accepted: status.is_some() && !class.refuses_client_certificate() && !denied,
        http_status: status.map(|it| it.as_u16()),
        handshake: record.as_deref().cloned(),
        timings,
        started_at,
        detail: if denied {
            detail::NO_CERTIFICATE_DENIED.into()
        } else {
            detail.into()
        },
        server_chain,
    }
}

fn not_attempted(probe: &Probe, at: Timestamp, why: &'static str) -> ProbeReport {
    ProbeReport {
        id: probe.id,
        class: FailureClass::NotAttempted,
        accepted: false,
        http_status: None,
        handshake: None,
        timings: AttemptTimings::default(),
        started_at: at,
        detail: why.into(),
        server_chain: Vec::new(),
    }
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}
