//! One request over a client, from sending to what it led to: for attempts and probes alike. The
//! whole is under a time limit, the end of the answer included, and ends at once when the client's
//! certificate is revoked.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use countersign_shared::{
    class::FailureClass,
    outcome::{AttemptTimings, SharedRecord},
    time::Clock,
};
use http::Request;
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::{
    classify::{Verdict, classify},
    client::Http,
    facts::{Ending, Facts, OwnCertificate, Validity},
    handshake::Handshake,
    progress::{Progress, Step},
    response::Head,
    target::Target,
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

/// Sends `request`, which has the form for HTTP/1.1, to `target` over `http` within `limit`, unless the
/// certificate is or gets revoked.
pub(super) async fn send(
    request: Request<Bytes>,
    target: &Target,
    http: &Http,
    limit: Duration,
    clock: &dyn Clock,
) -> Exchange {
    let standing = http.standing();
    if standing.is_revoked() {
        return Exchange::without(Ending::OwnCertificateRevoked);
    }
    let progress = Progress::default();
    let ended = timeout(limit, http.request(request, target, &progress, clock)).await;
    let mut ending = ended.unwrap_or_else(|_| timed_out(&progress));
    // Its connection was pulled down.
    if standing.is_revoked() && matches!(ending, Ending::Lost | Ending::AnswerCut) {
        ending = Ending::OwnCertificateRevoked;
    }
    let (step, handshake) = progress.connection().unzip();
    let used = handshake.as_ref().filter(|_| step == Some(Step::Used));
    Exchange {
        ending,
        first_use: used.is_none_or(|it| it.first_use()),
        handshake,
        head: progress.head(),
        response: progress.response(),
    }
}

/// What the attempt's timeout has cut off.
fn timed_out(progress: &Progress) -> Ending {
    match progress.connection() {
        Some((Step::Dialling, _)) => Ending::ConnectTimeout,
        Some((Step::ShakingHands, _)) => Ending::HandshakeTimeout,
        Some((Step::Used, _)) | None => Ending::AnswerTimeout,
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
