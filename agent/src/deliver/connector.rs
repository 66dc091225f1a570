//! One connection to a receiver: dial, TLS handshake, and the handshake's record with it. What goes
//! wrong is a typed error. A receiver that must ask for the client certificate and does not is
//! refused here, before there is a connection that a payload could go over. With a certificate that
//! is revoked nothing is dialled.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use countersign_shared::{address_range::AddressRange, bundle::MtlsEnforcement};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    alert::{alert_in, tls_error},
    dial::{DialFailure, Dialler},
    facts::{TlsFailure, tls_failure},
    handshake::{CURRENT, End, Handshake},
    progress::{ATTEMPT, Progress, Step},
    sessions::{Sessions, View},
    standing::{Revoked, Standing},
    stream::Stream,
};
use crate::metrics::Metrics;

/// How long a TLS handshake may take. The attempt's own timeout may end it sooner.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Connects one client to its receivers.
#[derive(Clone)]
pub(super) struct Connector(Arc<Parts>);

/// What a connector works with.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) dialler: Dialler,
    /// Whom to trust and what to present; its session store is replaced by `sessions`.
    pub(super) config: ClientConfig,
    pub(super) sessions: Arc<Sessions>,
    pub(super) policy: ConnectPolicy,
    /// Of the certificate that is presented.
    pub(super) standing: Arc<Standing>,
    /// The handshakes keep the chain that the server presents.
    pub(super) keeps_chain: bool,
    pub(super) metrics: Arc<Metrics>,
}

type Connected = TokioIo<Stream<TlsStream<TcpStream>>>;

/// What a destination demands of its connections, beyond TLS.
#[derive(Debug, Clone)]
pub(super) struct ConnectPolicy {
    /// What to do when no client certificate is asked for.
    pub(super) enforcement: MtlsEnforcement,
    /// Where its addresses have to lie.
    pub(super) allowed_ranges: Vec<AddressRange>,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectFailure {
    /// No TCP connection.
    Dial(DialFailure),
    /// The TLS handshake was not answered in time.
    HandshakeTimeout,
    /// The TLS handshake failed.
    Tls(TlsFailure),
    /// The receiver did not ask for the client certificate, and must.
    NotEnforced,
    /// The client certificate is revoked.
    Revoked,
}

/// Why there is no connection, and what was seen until then.
#[derive(Debug, Error)]
#[error("no connection to the receiver: {failure:?}")]
pub(super) struct ConnectError {
    pub(super) failure: ConnectFailure,
    pub(super) handshake: Arc<Handshake>,
}

impl Connector {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Parts {
    async fn connect(
        self: Arc<Self>,
        uri: Uri,
        progress: Option<Arc<Progress>>,
    ) -> Result<Connected, ConnectError> {
        let handshake = Arc::new(if self.keeps_chain {
            Handshake::keeping_chain()
        } else {
            Handshake::default()
        });
        let end = End(Arc::clone(&handshake));
        let connected = match self.standing.open(&handshake) {
            Err(Revoked) => Err(ConnectFailure::Revoked),
            Ok(()) => tokio::select! {
                biased;
                () = handshake.cord().pulled() => Err(ConnectFailure::Revoked),
                connected = self.open(&uri, progress.as_deref(), end) => connected,
            },
        };
        connected.map_err(|failure| ConnectError { failure, handshake })
    }

    async fn open(
        &self,
        uri: &Uri,
        progress: Option<&Progress>,
        end: End,
    ) -> Result<Connected, ConnectFailure> {
        let handshake = &end.0;
        let reached = |step| {
            if let Some(progress) = progress {
                progress.reached(step, handshake);
            }
        };
        reached(Step::Dialling);
        let (host, port) = host_and_port(uri);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ConnectFailure::Dial(DialFailure::NoAddress))?;
        let ranges = &self.policy.allowed_ranges;
        let dialled = self.dialler.dial(host, port, ranges).await;
        let dialled = dialled.map_err(ConnectFailure::Dial)?;
        handshake.connected(dialled.peer.to_string(), dialled.resolve, dialled.connect);
        reached(Step::ShakingHands);
        let stream = self.shake_hands(name, dialled.stream, handshake).await?;
        self.metrics.connections_opened.inc();
        if self.policy.enforcement == MtlsEnforcement::Refuse && !handshake.was_requested() {
            return Err(ConnectFailure::NotEnforced);
        }
        reached(Step::Ready);
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(TokioIo::new(Stream::new(stream, h2, end, abort)))
    }

    async fn shake_hands(
        &self,
        name: ServerName<'static>,
        tcp: TcpStream,
        handshake: &Arc<Handshake>,
    ) -> Result<TlsStream<TcpStream>, ConnectFailure> {
        // Verifier and resolver stay the very same objects, without which rustls resumes nothing.
        let mut config = self.config.clone();
        config.resumption = Resumption::store(Arc::new(View {
            sessions: Arc::clone(&self.sessions),
            handshake: Arc::clone(handshake),
        }));
        let started = Instant::now();
        let connect = async {
            TlsConnector::from(Arc::new(config))
                .connect(name, tcp)
                .await
        };
        let ended = timeout(
            HANDSHAKE_TIMEOUT,
            CURRENT.scope(Arc::clone(handshake), connect),
        )
        .await;
        handshake.took(started.elapsed());
        match ended {
            Ok(Ok(stream)) => {
                handshake.completed(stream.get_ref().1);
                Ok(stream)
            }
            Ok(Err(error)) => {
                if let Some(alert) = alert_in(&error) {
                    handshake.alerted(alert);
                }
                let failure = tls_error(&error).map_or(TlsFailure::Closed, tls_failure);
                Err(ConnectFailure::Tls(failure))
            }
            Err(_) => Err(ConnectFailure::HandshakeTimeout),
        }
    }
}

/// Makes closing drop what is not sent yet, where the operating system can.
fn abort(stream: &TlsStream<TcpStream>) {
    // One that can't sends the rest of what it has, which is encrypted and was meant for the receiver.
    let _ = stream.get_ref().0.set_zero_linger();
}

/// The host without the brackets of an IPv6 address, and the port.
fn host_and_port(uri: &Uri) -> (&str, u16) {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host, uri.port_u16().unwrap_or(443))
}

impl tower::Service<Uri> for Connector {
    type Response = Connected;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // Called while the attempt that needs the connection is polled; the future itself may go on
        // without it.
        let progress = ATTEMPT.try_with(Arc::clone).ok();
        Box::pin(Arc::clone(&self.0).connect(uri, progress))
    }
}

#[cfg(test)]
mod tests;
