//! What is known of one connection's handshake. The connector makes one for each connection; the
//! verifier, the resolver and the session store write into the one that is current while the
//! handshake is driven, and the stream adds the alert that may come later.
//!
//! It also is how a connection is pulled down from outside, and how its end is known.
//!
//! Verifier and resolver are shared by all connections of a client (rustls resumes a session only
//! where both are the very same objects), so they find "their" handshake as a task-local.

use std::{
    iter,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use countersign_shared::{
    outcome::{
        Alert, AttemptTimings, HandshakeRecord, MAX_ACCEPTABLE_CA_NAMES, PresentedCertificate,
        ServerCertificate, SharedRecord,
    },
    probe::MAX_SERVER_CHAIN,
    tls,
};
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::{cord::Cord, distinguished_name};

tokio::task_local! {
    /// The handshake that is being driven.
    pub(super) static CURRENT: Arc<Handshake>;
}

/// What is known of one connection's handshake.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    seen: Mutex<Seen>,
    alert: OnceLock<Alert>,
    /// The server sent a session ticket: in TLS 1.3 it does so after it has accepted our
    /// certificate.
    ticket: AtomicBool,
    uses: AtomicU64,
    cord: Cord,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Seen {
    record: HandshakeRecord,
    /// The server's certificate was verified in this handshake: it is not a resumed one.
    full: bool,
    /// What the handshake knew whose session is resumed.
    source: Option<Arc<SessionFacts>>,
    /// Whether the server named an authority of our chain; `None` when it named none.
    issuer_named: Option<bool>,
    timings: ConnectTimings,
    /// The record for attempts that use the connection again, as long as no alert has come.
    reused: Option<SharedRecord>,
    /// What the server presented, leaf first, where somebody wants it.
    chain: Option<Vec<CertificateDer<'static>>>,
}

/// How long each part of connecting took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectTimings {
    pub(super) resolve: Option<Duration>,
    pub(super) connect: Option<Duration>,
    pub(super) handshake: Option<Duration>,
}

/// What a full handshake found out and a resumed one (which has no certificates in it) inherits.
#[derive(Debug, Default)]
pub(super) struct SessionFacts {
    requested: bool,
    presented: Option<PresentedCertificate>,
    pub(super) server: Option<ServerCertificate>,
    acceptable_ca_names: Vec<String>,
    issuer_named: Option<bool>,
}

impl Handshake {
    /// One that keeps the chain that the server presents.
    pub(super) fn keeping_chain() -> Self {
        let handshake = Self::default();
        handshake.seen().chain = Some(Vec::new());
        handshake
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each change is a single assignment; a panic can't leave half of one.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server asked for a client certificate. `issuers` are the names of the authorities in our
    /// chain, in DER.
    pub(super) fn requested(
        &self,
        ca_names: &[&[u8]],
        issuers: &[Vec<u8>],
        presented: Option<PresentedCertificate>,
    ) {
        let is_ours = |name: &&[u8]| issuers.iter().any(|issuer| issuer == name);
        let issuer_named = (!ca_names.is_empty()).then(|| ca_names.iter().any(is_ours));
        let names = ca_names.iter().take(MAX_ACCEPTABLE_CA_NAMES);
        let names = names.filter_map(|name| distinguished_name::text(name));
        let mut seen = self.seen();
        seen.record.client_certificate_requested = true;
        seen.record.acceptable_ca_names = names.collect();
        seen.record.presented = presented;
        seen.issuer_named = issuer_named;
    }

    /// The server presented its certificate, good or not.
    pub(super) fn server_presented(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) {
        let mut seen = self.seen();
        seen.full = true;
        seen.record.server = server_certificate(certificate);
        if let Some(chain) = &mut seen.chain {
            let presented = iter::once(certificate).chain(intermediates);
            let kept = presented.take(MAX_SERVER_CHAIN);
            *chain = kept.map(|it| it.clone().into_owned()).collect();
        }
    }

    /// What the server presented, leaf first, at most [`MAX_SERVER_CHAIN`]; empty where it was not
    /// kept.
    pub(super) fn server_chain(&self) -> Vec<CertificateDer<'static>> {
        self.seen().chain.clone().unwrap_or_default()
    }

    /// A session of an earlier handshake is offered to the server.
    pub(super) fn offers_session(&self, facts: Arc<SessionFacts>) {
        self.seen().source = Some(facts);
    }

    /// The server gave a session to resume: what goes with it.
    pub(super) fn session_given(&self) -> Arc<SessionFacts> {
        self.ticket.store(true, Ordering::Relaxed);
        let seen = self.seen();
        match &seen.source {
            Some(source) if !seen.full => Arc::clone(source),
            _ => Arc::new(SessionFacts {
                requested: seen.record.client_certificate_requested,
                presented: seen.record.presented.clone(),
                server: seen.record.server.clone(),
                acceptable_ca_names: seen.record.acceptable_ca_names.clone(),
                issuer_named: seen.issuer_named,
            }),
        }
    }

    /// Where the connection goes, and how long it took to get there.
    pub(super) fn connected(&self, peer: String, resolve: Duration, connect: Duration) {
        let mut seen = self.seen();
        seen.record.peer_address = Some(peer);
        seen.timings.resolve = Some(resolve);
        seen.timings.connect = Some(connect);
    }

    /// The handshake ended, well or not, after `took`.
    pub(super) fn took(&self, took: Duration) {
        self.seen().timings.handshake = Some(took);
    }

    /// The handshake is complete on our side: what was agreed.
    pub(super) fn completed(&self, connection: &ClientConnection) {
        let mut seen = self.seen();
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let source = seen.source.take();
        let record = &mut seen.record;
        record.completed = true;
        record.resumed = resumed;
        record.tls_version = connection.protocol_version().map(version);
        record.cipher_suite = connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .map(iana_suite);
        record.key_exchange_group = connection
            .negotiated_key_exchange_group()
            .and_then(|group| group.name().as_str())
            .map(str::to_owned);
        record.alpn_protocol = connection
            .alpn_protocol()
            .map(|protocol| String::from_utf8_lossy(protocol).into_owned());
        if let Some(source) = source.filter(|_| resumed) {
            record.client_certificate_requested = source.requested;
            record.presented = source.presented.clone();
            record.server = source.server.clone();
            record.acceptable_ca_names = source.acceptable_ca_names.clone();
            seen.issuer_named = source.issuer_named;
            seen.source = Some(source);
        }
    }

    /// The other side sent an alert. The first one counts.
    pub(super) fn alerted(&self, alert: Alert) {
        // A later alert adds nothing.
        let _ = self.alert.set(alert);
    }

    /// Whether an alert came.
    pub(super) fn has_alert(&self) -> bool {
        self.alert.get().is_some()
    }

    /// Whether the server gave a session to resume.
    pub(super) fn has_ticket(&self) -> bool {
        self.ticket.load(Ordering::Relaxed)
    }

    /// Whether the server asked for a client certificate, in this handshake or the resumed one's.
    pub(super) fn was_requested(&self) -> bool {
        self.seen().record.client_certificate_requested
    }

    /// Whether the server named an authority of our chain when it asked for the certificate; `None`
    /// when it named none.
    pub(super) fn issuer_named(&self) -> Option<bool> {
        self.seen().issuer_named
    }

    /// The cord by which the connection is pulled down.
    pub(super) fn cord(&self) -> &Cord {
        &self.cord
    }

    /// The connection is no more.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Whether the connection is no more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits until the connection is no more.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Notes that an attempt uses the connection; true for the first.
    pub(super) fn first_use(&self) -> bool {
        self.uses.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// What is known, with the alert, for the attempt that the connection was opened for or for one that uses it again.
    pub(super) fn record(&self, is_first_use: bool) -> SharedRecord {
        let alert = self.alert.get();
        let mut seen = self.seen();
        let kept = seen.reused.as_ref();
        if let Some(kept) = kept.filter(|kept| !is_first_use && kept.alert.as_ref() == alert) {
            return kept.clone();
        }
        let record = SharedRecord::from(HandshakeRecord {
            alert: alert.cloned(),
            connection_reused: !is_first_use,
            ..seen.record.clone()
        });
        if !is_first_use {
            seen.reused = Some(record.clone());
        }
        record
    }

    /// Adds how long connecting took.
    pub(super) fn time(&self, timings: &mut AttemptTimings) {
        let ConnectTimings {
            resolve,
            connect,
            handshake,
        } = self.seen().timings;
        (timings.resolve, timings.connect, timings.handshake) = (resolve, connect, handshake);
    }
}

/// Says that the connection is no more when it is dropped: held by whoever opens it, and then by its
/// stream.
#[derive(Debug)]
pub(super) struct End(pub(super) Arc<Handshake>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn server_certificate(der: &CertificateDer<'_>) -> Option<ServerCertificate> {
    tls::certificate_facts(der).map(|facts| ServerCertificate {
        subject: facts.subject,
        issuer: facts.issuer,
        not_after: facts.not_after,
    })
}

fn version(version: ProtocolVersion) -> String {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2".to_owned(),
        ProtocolVersion::TLSv1_3 => "TLSv1.3".to_owned(),
        other => format!("{other:?}"),
    }
}

/// rustls calls TLS 1.3 suites `TLS13_…`; IANA calls them `TLS_…`.
fn iana_suite(name: &str) -> String {
    name.replacen("TLS13_", "TLS_", 1)
}

#[cfg(test)]
mod tests;
