//! Listeners: TCP, then TLS 1.3 within a time limit, then a connection that knows who is at its other
//! end. How many there may be, and how many may be shaking hands, is bounded.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use countersign_shared::{
    random,
    tasks::{OnFailure, Tasks},
    tls,
};
use rustls::{
    RootCertStore, ServerConfig,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::api::Peer;

/// How long a client may take for its handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How many clients may be shaking hands at once on one listener. When one more comes, the one that has been at it
/// for longest has to go: it is the one that says nothing, since a handshake takes milliseconds.
const HANDSHAKES: usize = 1024;
/// How many connections one listener has at most.
const CONNECTIONS: usize = 16 * 1024;

/// Why TLS can't be set up.
#[derive(Debug, Error)]
pub enum ListenError {
    /// rustls refuses the certificate or key.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The verifier can't be built.
    #[error("TLS: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The server certificate, replaceable while connections are made.
#[derive(Debug)]
pub struct ServerCertificate(ArcSwap<CertifiedKey>);

impl ServerCertificate {
    /// The chain, leaf first, and the leaf's key.
    ///
    /// # Errors
    /// [`ListenError::Tls`] when they do not fit together.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, ListenError> {
        Ok(Self(ArcSwap::from_pointee(certified(chain, key)?)))
    }

    /// Presents another one from the next handshake on.
    ///
    /// # Errors
    /// [`ListenError::Tls`] when they do not fit together; the old one stays.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), ListenError> {
        self.0.store(Arc::new(certified(chain, key)?));
        Ok(())
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, ListenError> {
    Ok(CertifiedKey::from_der(chain, key, &tls::provider())?)
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS 1.3 for gRPC. With `clients`, a client may present a certificate of one of these authorities;
/// what it gets without one is for the services to decide.
///
/// # Errors
/// [`ListenError`].
pub fn tls_config(
    certificate: Arc<ServerCertificate>,
    clients: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, ListenError> {
    let provider = tls::provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match clients {
        [] => builder.with_no_client_auth(),
        authorities => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone())?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Stateless tickets: nothing to remember, and resumption costs half of a handshake.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Tells who has presented a verified chain, leaf first; empty for nobody.
pub type Recognise = Arc<dyn Fn(&[CertificateDer<'static>]) -> Peer + Send + Sync>;

/// Accepts until the process stops. The connections come out of the answer.
pub fn accept(
    name: &'static str,
    listener: TcpListener,
    config: Arc<ServerConfig>,
    recognise: Recognise,
    tasks: &Tasks,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(HANDSHAKES);
    let acceptor = Acceptor {
        name,
        tls: TlsAcceptor::from(config),
        recognise,
        places: Arc::new(Semaphore::new(CONNECTIONS)),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        tasks: tasks.clone(),
        ready,
    };
    tasks.spawn(name, OnFailure::StopProcess, acceptor.run(listener));
    ReceiverStream::new(connections)
}

/// Handshakes that have begun, oldest first.
#[derive(Default)]
struct UnderWay(VecDeque<Weak<CancellationToken>>);

impl UnderWay {
    /// One more; it is over when the answer is dropped, and has to end when that is cancelled.
    fn begin(&mut self) -> Arc<CancellationToken> {
        while self.0.front().is_some_and(|it| it.strong_count() == 0) {
            self.0.pop_front();
        }
        // Behind an old one that lasts there may be many that are over.
        if self.0.len() >= 2 * HANDSHAKES {
            self.0.retain(|it| it.strong_count() > 0);
        }
        let turn = Arc::<CancellationToken>::default();
        self.0.push_back(Arc::downgrade(&turn));
        turn
    }

    fn give_up_the_oldest(&mut self) {
        let oldest = std::iter::from_fn(|| self.0.pop_front()).find_map(|it| it.upgrade());
        if let Some(oldest) = oldest {
            oldest.cancel();
        }
    }
}

struct Acceptor {
    name: &'static str,
    tls: TlsAcceptor,
    recognise: Recognise,
    places: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    tasks: Tasks,
    ready: mpsc::Sender<io::Result<Connection>>,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) -> Result<(), io::Error> {
        let shutdown = self.tasks.shutdown().clone();
        let mut under_way = UnderWay::default();
        loop {
            // Waiting for a place leaves newcomers in the kernel's queue, which is bounded too.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return Ok(());
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or the client gave up: neither ends the listener.
                    tracing::warn!(listener = self.name, %error, "a connection was not accepted");
                    tokio::time::sleep(random::full_jitter(Duration::from_millis(100))).await;
                    continue;
                }
            };
            let handshake = match Arc::clone(&self.handshakes).try_acquire_owned() {
                Ok(handshake) => handshake,
                Err(_) => {
                    under_way.give_up_the_oldest();
                    match Arc::clone(&self.handshakes).acquire_owned().await {
                        Ok(handshake) => handshake,
                        Err(_) => return Ok(()),
                    }
                }
            };
            let turn = under_way.begin();
            let (tls, ready) = (self.tls.clone(), self.ready.clone());
            let (name, recognise) = (self.name, Arc::clone(&self.recognise));
            self.tasks.spawn("handshake", OnFailure::Log, async move {
                let shaking = handshake_with(tls, stream, recognise.as_ref(), place);
                let shaken = tokio::select! {
                    shaken = shaking => shaken,
                    () = turn.cancelled() => Err(io::Error::other("too many others are waiting")),
                };
                match shaken {
                    Ok(connection) => {
                        // The server is stopping: nobody takes new connections.
                        let _ = ready.send(Ok(connection)).await;
                    }
                    Err(error) => {
                        tracing::info!(listener = name, %address, %error, "handshake failed");
                    }
                }
                drop(handshake);
                Ok::<_, io::Error>(())
            });
        }
    }
}

async fn handshake_with(
    tls: TlsAcceptor,
    stream: TcpStream,
    recognise: &(dyn Fn(&[CertificateDer<'static>]) -> Peer + Send + Sync),
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    // Small messages must not wait for each other.
    stream.set_nodelay(true)?;
    let address = stream.peer_addr().ok().map(|address| address.ip());
    let stream = tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it took too long"))??;
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = recognise(certificates.unwrap_or_default());
    Ok(Connection {
        peer: Peer { address, ..peer },
        stream,
        _place: place,
    })
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_still_at_it_has_to_go() {
        let mut under_way = UnderWay::default();
        let over = under_way.begin();
        let (oldest, newest) = (under_way.begin(), under_way.begin());
        drop(over);
        under_way.give_up_the_oldest();
        assert!(oldest.is_cancelled() && !newest.is_cancelled());
        under_way.give_up_the_oldest();
        assert!(newest.is_cancelled());
        under_way.give_up_the_oldest();
        for _ in 0..10 * HANDSHAKES {
            under_way.begin();
        }
        assert!(under_way.0.len() <= 2 * HANDSHAKES);
    }
}
