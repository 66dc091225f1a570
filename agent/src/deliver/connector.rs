//! Opens a connection to a receiver: dial, TLS handshake, and the handshake's record with it. What goes
//! wrong is a typed error. A receiver that must ask for the client certificate and does not is
//! refused here, before there is a connection that a payload could go over. With a certificate that
//! is revoked nothing is dialled.

use std::{sync::Arc, time::Duration};

use countersign_shared::{address_range::AddressRange, bundle::MtlsEnforcement};
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    alert::{alert_in, tls_error},
    connection::Connection,
    dial::{DialFailure, Dialler},
    facts::{Ending, TlsFailure, tls_failure},
    handshake::{CURRENT, End, Handshake},
    progress::{Progress, Step},
    sessions::{Sessions, View},
    standing::{Revoked, Standing},
    stream::Stream,
    target::Target,
};
use crate::metrics::Metrics;

/// How long a TLS handshake may take. The attempt's own timeout may end it sooner.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Opens the connections of one client.
#[derive(Clone)]
pub(super) struct Connector {
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
    /// It broke before it could take a request.
    Broken,
    /// The client certificate is revoked.
    Revoked,
}

impl From<ConnectFailure> for Ending {
    fn from(failure: ConnectFailure) -> Self {
        match failure {
            ConnectFailure::Dial(DialFailure::NoAddress) => Self::NoAddress,
            ConnectFailure::Dial(DialFailure::Denied(denied)) => Self::Denied(denied),
            ConnectFailure::Dial(DialFailure::Refused) => Self::Refused,
            ConnectFailure::Dial(DialFailure::Timeout) => Self::ConnectTimeout,
            ConnectFailure::Dial(DialFailure::Unreachable) => Self::Unreachable,
            ConnectFailure::Dial(DialFailure::ProxyUnreachable) => Self::ProxyUnreachable,
            ConnectFailure::Dial(DialFailure::ProxyRefused) => Self::ProxyRefused,
            ConnectFailure::Dial(DialFailure::Other) => Self::ConnectFailed,
            ConnectFailure::HandshakeTimeout => Self::HandshakeTimeout,
            ConnectFailure::Tls(failure) => Self::Tls(failure),
            ConnectFailure::NotEnforced => Self::NotEnforced,
            ConnectFailure::Broken => Self::Lost,
            ConnectFailure::Revoked => Self::OwnCertificateRevoked,
        }
    }
}

impl Connector {
    /// Opens a connection to `target`; `progress` tells how far that has come.
    ///
    /// # Errors
    /// [`ConnectFailure`].
    pub(super) async fn connect(
        &self,
        target: &Target,
        progress: &Progress,
    ) -> Result<Connection, ConnectFailure> {
        let handshake = Arc::new(if self.keeps_chain {
            Handshake::keeping_chain()
        } else {
            Handshake::default()
        });
        let end = End(Arc::clone(&handshake));
        progress.reached(Step::Dialling, &handshake);
        self.standing
            .open(&handshake)
            .map_err(|Revoked| ConnectFailure::Revoked)?;
        tokio::select! {
            biased;
            () = handshake.cord().pulled() => Err(ConnectFailure::Revoked),
            connected = self.open(target, progress, end) => connected,
        }
    }

    async fn open(
        &self,
        target: &Target,
        progress: &Progress,
        end: End,
    ) -> Result<Connection, ConnectFailure> {
        let handshake = Arc::clone(&end.0);
        let name = ServerName::try_from(target.name.clone())
            .map_err(|_| ConnectFailure::Dial(DialFailure::NoAddress))?;
        let ranges = &self.policy.allowed_ranges;
        let dialled = self.dialler.dial(&target.name, target.port, ranges).await;
        let dialled = dialled.map_err(ConnectFailure::Dial)?;
        handshake.connected(dialled.peer.to_string(), dialled.resolve, dialled.connect);
        progress.reached(Step::ShakingHands, &handshake);
        let stream = self.shake_hands(name, dialled.stream, &handshake).await?;
        self.metrics.connections_opened.inc();
        if self.policy.enforcement == MtlsEnforcement::Refuse && !handshake.was_requested() {
            return Err(ConnectFailure::NotEnforced);
        }
        let opened = Connection::new(Stream::new(stream, end, abort), handshake).await;
        opened.map_err(|_| ConnectFailure::Broken)
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

#[cfg(test)]
mod tests;
