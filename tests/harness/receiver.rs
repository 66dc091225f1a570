//! A receiver that is fast and knows its trust: it takes connections only with a client certificate
//! of one authority, answers 204, and remembers what came under which `webhook-id`.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use countersign_shared::{
    signature::ID_HEADER,
    tasks::{OnFailure, Tasks},
    tls,
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::certificates::TestCertificate;

/// A running receiver. It stops when it is dropped.
pub struct Receiver {
    address: SocketAddr,
    log: Log,
    delay: watch::Sender<Duration>,
    _runtime: Runtime,
}

/// What came under one `webhook-id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// How often it came.
    pub times: u32,
    /// The body of the first.
    pub body: Bytes,
    /// Whether every body was the same.
    pub same_body: bool,
    /// How many others had come before it.
    pub after: usize,
}

type Log = Arc<Mutex<HashMap<String, Received>>>;

impl Receiver {
    /// Starts one that takes client certificates of `client_authorities` (PEM) alone.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(server: &TestCertificate, client_authorities: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let acceptor = TlsAcceptor::from(Arc::new(tls_server(server, client_authorities)));
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("its address");
        let log = Log::default();
        let (tasks, _) = Tasks::new();
        let (delay, delayed) = watch::channel(Duration::ZERO);
        let application = Application {
            log: Arc::clone(&log),
            delay: delayed,
        };
        let accepting = accept(listener, acceptor, application, tasks.clone());
        runtime.block_on(async { tasks.spawn("receiver", OnFailure::Log, accepting) });
        Self {
            address,
            log,
            delay,
            _runtime: runtime,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Makes it wait for so long after a request has come before it answers, from now on; a wait that
    /// has begun counts from its request.
    ///
    /// # Panics
    /// When the receiver has ended.
    pub fn delay(&self, delay: Duration) {
        self.delay.send(delay).expect("a running receiver");
    }

    /// How many different deliveries have come.
    pub fn distinct(&self) -> usize {
        lock(&self.log).len()
    }

    /// All that has come, by `webhook-id`.
    pub fn received(&self) -> HashMap<String, Received> {
        lock(&self.log).clone()
    }
}

/// Counts and bodies stay right whoever panicked.
fn lock(log: &Log) -> MutexGuard<'_, HashMap<String, Received>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is behind the connections.
#[derive(Clone)]
struct Application {
    log: Log,
    delay: watch::Receiver<Duration>,
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    application: Application,
    tasks: Tasks,
) -> Result<(), io::Error> {
    loop {
        let (stream, _) = listener.accept().await?;
        let serving = serve(stream, acceptor.clone(), application.clone());
        tasks.spawn("connection", OnFailure::Log, serving);
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    application: Application,
) -> Result<(), Infallible> {
    // A refused handshake or a broken connection is the client's to report.
    if let Ok(stream) = acceptor.accept(stream).await {
        let service = service_fn(move |request| take(request, application.clone()));
        let _ = Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
    Ok(())
}

async fn take(
    request: Request<Incoming>,
    application: Application,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let id = request.headers().get(ID_HEADER);
    let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
    let id = id.to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let came = Instant::now();
    note(&application.log, id, body);
    wait(came, application.delay).await;
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Waits until the delay is over, however it changes meanwhile.
async fn wait(came: Instant, mut delay: watch::Receiver<Duration>) {
    loop {
        let until = came + *delay.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            changed = delay.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

fn note(log: &Log, id: String, body: Bytes) {
    let mut log = lock(log);
    let after = log.len();
    match log.get_mut(&id) {
        Some(received) => {
            received.times += 1;
            received.same_body &= received.body == body;
        }
        None => {
            log.insert(
                id,
                Received {
                    times: 1,
                    body,
                    same_body: true,
                    after,
                },
            );
        }
    }
}

fn tls_server(server: &TestCertificate, client_authorities: &str) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    for anchor in tls::certificates_from_pem(client_authorities).expect("certificates") {
        roots.add(anchor).expect("an authority");
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .build()
        .expect("a verifier");
    let certificate = std::fs::read_to_string(&server.certificate).expect("the certificate");
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            tls::certificates_from_pem(&certificate).expect("a certificate"),
            PrivateKeyDer::from_pem_file(&server.key).expect("a key"),
        )
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
