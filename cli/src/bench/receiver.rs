//! The benchmark's receiver, a process of its own: an HTTPS server that demands a client certificate
//! and writes down which delivery came when. It verifies no signature: what a receiver does with a
//! webhook is not what is measured.

use std::{
    convert::Infallible,
    io,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use countersign_shared::{
    signature::ID_HEADER,
    tasks::{OnFailure, Tasks, stop_signal},
    time::{Clock as _, SystemClock},
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use super::{
    child,
    files::{Listening, tell},
    records::{self, Received, delivery_number},
};
use crate::{
    demo_pki,
    mutual_tls::{Demand, HTTP_1_1, TlsError, server_config},
};

/// Requests to paths below it are written down.
pub(crate) const DELIVERIES: &str = "/deliveries/";
/// Requests to it are answered and not written down.
pub(crate) const BARE: &str = "/bare";
/// Requests to paths below it are never answered.
pub(crate) const SLOW: &str = "/slow/";

const MAX_CONNECTIONS: usize = 16 * 1024;
/// How long to wait after a failed accept, so as not to spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);
/// How long connections may take to end.
const STOP: Duration = Duration::from_secs(2);

/// Flags of the receiver.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// PEM file with the authorities of client certificates.
    #[arg(long)]
    anchors: PathBuf,
    /// Where to say that it listens.
    #[arg(long)]
    listening: PathBuf,
    /// Where to write the records, at the end.
    #[arg(long)]
    records: PathBuf,
}

#[derive(Debug, Error)]
enum ReceiverError {
    #[error("a file or a socket: {0}")]
    Io(#[from] io::Error),
    #[error("the file of trust anchors: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error("no server certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

type Log = Arc<Mutex<Vec<Received>>>;

/// Serves until it is told to stop.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    child::run("receiver", receive(arguments))
}

async fn receive(arguments: &Arguments) -> Result<(), ReceiverError> {
    allow_many_connections();
    let anchors =
        CertificateDer::pem_file_iter(&arguments.anchors)?.collect::<Result<Vec<_>, _>>()?;
    let identity = demo_pki::server_for_loopback(SystemClock.now())?;
    let ca_pem = identity.ca_pem.clone();
    // HTTP/1.1 is what most receivers of webhooks speak.
    let config = server_config(&identity, &Demand::signed_by(&anchors), &[HTTP_1_1])?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let log = Log::default();
    let (tasks, _failures) = Tasks::new();
    let accepting = accept(listener, acceptor, Arc::clone(&log), tasks.clone());
    tasks.spawn("receiver", OnFailure::Log, accepting);
    tell(&arguments.listening, &Listening { address, ca_pem })?;
    stop_signal().await?;
    // Connections that are still open end with the process.
    let _ = tasks.stop(STOP).await;
    let received = log.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(records::save(&arguments.records, &received)?)
}

/// Every destination has its own connections. Where the limit can't be raised, the hard limit is
/// what the host's operator wants.
fn allow_many_connections() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    log: Log,
    tasks: Tasks,
) -> Result<(), Infallible> {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = tasks.shutdown().cancelled() => return Ok(()),
            next = next => next,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let (acceptor, log, stop) = (acceptor.clone(), Arc::clone(&log), tasks.shutdown().clone());
        tasks.spawn("receiver connection", OnFailure::Log, async move {
            let _permit = permit;
            // How a connection ends is its client's business: what did not come is counted as lost.
            let serving = serve(tcp, &acceptor, log);
            stop.run_until_cancelled(serving).await;
            Ok::<_, Infallible>(())
        });
    }
}

async fn serve(tcp: TcpStream, acceptor: &TlsAcceptor, log: Log) {
    let _ = tcp.set_nodelay(true);
    let Ok(stream) = acceptor.accept(tcp).await else {
        return;
    };
    let service = service_fn(move |request| {
        let log = Arc::clone(&log);
        async move { Ok::<_, Infallible>(answer(request, &log).await) }
    });
    let _ = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, log: &Log) -> Response<Empty<Bytes>> {
    let (head, mut body) = request.into_parts();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return with_status(StatusCode::BAD_REQUEST);
        }
    }
    let path = head.uri.path();
    if path.starts_with(SLOW) {
        return std::future::pending().await;
    }
    let id = head.headers.get(ID_HEADER);
    let id = id.and_then(|id| delivery_number(id.to_str().ok()?));
    let Some(id) = id else {
        return with_status(StatusCode::BAD_REQUEST);
    };
    let at = SystemClock.now();
    if path.starts_with(DELIVERIES) {
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Received { id, at });
    }
    with_status(StatusCode::NO_CONTENT)
}

fn with_status(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}
