//! The demonstration receiver: an HTTPS server that demands a client certificate of one account's
//! authority, verifies every webhook's signature and timestamp, and tells what it saw.
//!
//! It listens before the destination exists, since the destination needs its URL, and serves once it
//! knows the account's trust anchors and the destination's signing secret. What comes in between
//! waits in the socket's backlog. What it demands can be changed while it runs (see `door`).

pub(crate) mod door;
pub(crate) mod record;
pub(crate) mod tls;
pub(crate) mod webhook;

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use countersign_shared::{
    secret::SecretBytes,
    tasks::{OnFailure, Tasks},
    time::Clock,
};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use record::{Connection, Event};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait after a failed accept, so as not to spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);
const MAX_CONNECTIONS: usize = 256;
/// Events that wait to be shown; when there are more, requests wait.
const MAX_EVENTS: usize = 1024;

/// What every connection needs.
struct Shared {
    config: watch::Receiver<Arc<ServerConfig>>,
    secret: SecretBytes,
    takes: Duration,
    clock: Arc<dyn Clock>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
}

/// What a receiver does with webhooks.
#[derive(Debug)]
pub(crate) struct Manner {
    /// The destination's signing secret.
    pub(crate) secret: SecretBytes,
    /// How long it takes for a webhook before it answers.
    pub(crate) takes: Duration,
}

/// Serves on `listener` until `tasks` are told to stop. Answers 204 to a webhook that verifies and 400
/// or 401 to one that does not. When `config` changes, it is for connections to come, and those that
/// are open are closed as soon as no request is on them.
pub(crate) fn start(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    manner: Manner,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
) -> mpsc::Receiver<Event> {
    let (events, received) = mpsc::channel(MAX_EVENTS);
    let shared = Arc::new(Shared {
        config,
        secret: manner.secret,
        takes: manner.takes,
        clock,
        events,
        stop: tasks.shutdown().clone(),
    });
    let accepting = accept(listener, shared, tasks.clone());
    tasks.spawn("receiver", OnFailure::Log, accepting);
    received
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    tasks: Tasks,
) -> Result<(), Infallible> {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            next = next => next,
        };
        // The semaphore is never closed. A connection that was gone before it was accepted is no
        // reason to stop; a lack of file descriptors passes.
        let (Ok(permit), Ok((tcp, _))) = (permit, accepted) else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let serving = serve(tcp, Arc::clone(&shared), permit);
        tasks.spawn("receiver connection", OnFailure::Log, serving);
    }
}

async fn serve(
    tcp: TcpStream,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
) -> Result<(), Infallible> {
    // Small answers must not wait for acknowledgements; a failure costs milliseconds only.
    let _ = tcp.set_nodelay(true);
    let mut door = shared.config.clone();
    let config = Arc::clone(&door.borrow_and_update());
    let handshake = TlsAcceptor::from(config).accept(tcp);
    let refusal = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => match tls::facts(stream.get_ref().1) {
            Some(connection) => {
                requests(stream, Arc::new(connection), shared, door).await;
                return Ok(());
            }
            None => "its client certificate can't be read",
        },
        Ok(Err(error)) => tls::refusal(&error),
        Err(_) => "it did not finish the handshake",
    };
    // Nobody listens any more when the demonstration is stopping.
    let _ = shared.events.send(Event::Refused(refusal)).await;
    Ok(())
}

/// Answers the requests of a connection until either side closes it, or `door` changes.
async fn requests(
    stream: TlsStream<TcpStream>,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    mut door: watch::Receiver<Arc<ServerConfig>>,
) {
    let stop = shared.stop.clone();
    let closing = async {
        tokio::select! {
            () = stop.cancelled() => {}
            // A door that is gone changes no more.
            Ok(()) = door.changed() => {}
        }
    };
    let http2 = connection.http2;
    let service = service_fn(move |request| {
        let (connection, shared) = (Arc::clone(&connection), Arc::clone(&shared));
        async move { Ok::<_, Infallible>(answer(request, &connection, &shared).await) }
    });
    let io = TokioIo::new(stream);
    // How a connection ends is the client's business, and what matters of it is in the events.
    if http2 {
        let mut serving =
            pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service));
        tokio::select! {
            _ = serving.as_mut() => return,
            () = closing => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = serving.as_mut() => return,
            () = closing => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: &Arc<Connection>,
    shared: &Shared,
) -> Response<Empty<Bytes>> {
    let taken = webhook::take(request, &shared.secret, connection, &*shared.clock).await;
    let status = match taken {
        Ok(reception) => {
            let status = reception.verdict.status();
            // As above: nobody listens when the demonstration is stopping.
            let _ = shared.events.send(Event::Received(reception)).await;
            if !shared.takes.is_zero() {
                tokio::time::sleep(shared.takes).await;
            }
            status
        }
        Err(status) => status,
    };
    with_status(status)
}

fn with_status(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
