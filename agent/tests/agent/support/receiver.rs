//! A receiver: TLS as the test wants it, HTTP answers as the test wants them, and what it got.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use countersign_shared::{
    tasks::{OnFailure, Tasks},
    tls,
};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::pki::{Authority, Leaf};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) version: http::Version,
    pub(crate) method: http::Method,
    /// What the client presented, leaf first.
    pub(crate) client: Vec<CertificateDer<'static>>,
}

/// What a receiver has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: Mutex<Vec<Received>>,
    pub(crate) connections: AtomicUsize,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) most_in_flight: AtomicUsize,
}

pub(crate) type Answer = Response<Full<Bytes>>;

/// A running receiver.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

impl Receiver {
    pub(crate) fn url(&self) -> String {
        format!("https://{}/hook?x=1", self.address)
    }

    /// How many connections were opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits until `count` whole requests have come.
    pub(crate) async fn has_received(&self, count: usize) {
        while self.seen.requests.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn requests(&self) -> Vec<Received> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Answers every request with what `answer` says.
    pub(crate) async fn answering<A, F>(tasks: &Tasks, config: ServerConfig, answer: A) -> Self
    where
        A: Fn(Received) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let seen = Arc::new(Seen::default());
        let note = Arc::clone(&seen);
        let address = Self::accepting(tasks, move |tcp| {
            let (acceptor, seen, answer) = (acceptor.clone(), Arc::clone(&note), answer.clone());
            async move {
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let stream = acceptor.accept(tcp).await?;
                let client = stream.get_ref().1.peer_certificates();
                let client = client.unwrap_or_default().to_vec();
                let service = service_fn(move |request| {
                    let (seen, answer) = (Arc::clone(&seen), answer.clone());
                    let client = client.clone();
                    async move { Ok::<_, Infallible>(take(&seen, request, client, answer).await) }
                });
                let connection = auto::Builder::new(TokioExecutor::new());
                // How the connection ends is the client's to judge.
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                Ok(())
            }
        })
        .await;
        Self { address, seen }
    }

    /// Answers every request with `status`.
    pub(crate) async fn start(tasks: &Tasks, config: ServerConfig, status: u16) -> Self {
        Self::answering(tasks, config, move |_| async move { answer(status, "") }).await
    }

    /// Does `serve` with every TCP connection.
    pub(crate) async fn accepting<S, F>(tasks: &Tasks, serve: S) -> SocketAddr
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = tasks.clone();
        tasks.spawn("receiver", OnFailure::Log, async move {
            let stop = inner.shutdown().clone();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return Ok::<_, io::Error>(()),
                };
                let connection = serve(accepted?.0);
                let stop = stop.clone();
                inner.spawn("connection", OnFailure::Log, async move {
                    tokio::select! {
                        ended = connection => ended,
                        () = stop.cancelled() => Ok(()),
                    }
                });
            }
        });
        address
    }
}

async fn take<A, F>(
    seen: &Seen,
    request: Request<Incoming>,
    client: Vec<CertificateDer<'static>>,
    answer: A,
) -> Answer
where
    A: Fn(Received) -> F,
    F: Future<Output = Answer>,
{
    let now = seen.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most_in_flight.fetch_max(now, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let received = Received {
        path: head.uri.path_and_query().unwrap().to_string(),
        headers: head.headers,
        body: body.unwrap_or_default(),
        version: head.version,
        method: head.method,
        client,
    };
    seen.requests.lock().unwrap().push(received.clone());
    let answer = answer(received).await;
    seen.in_flight.fetch_sub(1, Ordering::SeqCst);
    answer
}

pub(crate) fn answer(status: u16, body: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status.try_into().unwrap();
    answer
}

/// How a receiver's TLS is set up.
pub(crate) struct Setup<'a> {
    pub(crate) server: Leaf,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) clients: Clients<'a>,
    pub(crate) alpn: &'static [&'static [u8]],
}

/// Which clients a receiver takes.
pub(crate) enum Clients<'a> {
    /// Does not ask.
    Any,
    /// Those of this authority.
    Of(&'a Authority),
    /// Those of this authority that are not on the list.
    Unrevoked(&'a Authority, CertificateRevocationListDer<'static>),
}

static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];

impl<'a> Setup<'a> {
    pub(crate) fn new(server: Leaf, clients: Clients<'a>) -> Self {
        Self {
            server,
            versions: &TLS13,
            clients,
            alpn: &[b"http/1.1"],
        }
    }

    #[must_use]
    pub(crate) fn tls12(self) -> Self {
        Self {
            versions: &TLS12,
            ..self
        }
    }

    #[must_use]
    pub(crate) fn h2(self) -> Self {
        Self {
            alpn: &[b"h2"],
            ..self
        }
    }

    pub(crate) fn config(self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = match self.clients {
            Clients::Any => builder.with_no_client_auth(),
            Clients::Of(authority) => {
                builder.with_client_cert_verifier(verifier(authority, Vec::new()))
            }
            Clients::Unrevoked(authority, list) => {
                builder.with_client_cert_verifier(verifier(authority, vec![list]))
            }
        };
        let key = self.server.private_key();
        let mut config = builder
            .with_single_cert(vec![self.server.certificate], key)
            .unwrap();
        config.alpn_protocols = self.alpn.iter().map(|it| it.to_vec()).collect();
        config
    }
}

fn verifier(
    authority: &Authority,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
    builder.with_crls(lists).build().unwrap()
}
