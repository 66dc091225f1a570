//! A connection to a receiver that takes requests.
//!
//! One of HTTP/1.1 takes a request at a time, and whoever sends it drives the connection in his own
//! task: no other task is to be woken, neither for the request nor for the answer. Between requests
//! nobody drives it; whoever takes it next looks first whether it has ended (see `pool`). One of
//! HTTP/2 takes many at once and is driven by a task of its own, which ends when nobody uses it any
//! more.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use countersign_shared::time::Clock;
use http::{Request, Response, header::HOST};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    rt::Executor as _,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, task::unconstrained};
use tokio_rustls::client::TlsStream;

use super::{
    closed::{GRACE, left_behind},
    facts::Ending,
    handshake::Handshake,
    progress::Progress,
    response,
    stream::Stream,
    target::Target,
};

/// Largest response head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// A connection of HTTP/2 that answers no ping for so long is given up.
const PING: Duration = Duration::from_secs(20);

type Body = Full<Bytes>;
type Io = TokioIo<Stream<TlsStream<TcpStream>>>;

/// A connection that takes requests.
pub(super) enum Connection {
    /// One at a time.
    Http1(Box<Http1>),
    /// Many at once.
    Http2(Http2),
}

/// A connection of HTTP/1.1 (RFC 9112).
pub(super) struct Http1 {
    sender: http1::SendRequest<Body>,
    driver: http1::Connection<Io, Body>,
    /// The driver must not be polled any more.
    ended: bool,
    handshake: Arc<Handshake>,
}

/// A connection of HTTP/2 (RFC 9113). Cheap to clone.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Body>,
    handshake: Arc<Handshake>,
}

impl Connection {
    /// What was agreed on says which HTTP is spoken over `stream`.
    ///
    /// # Errors
    /// It broke meanwhile.
    pub(super) async fn new(
        stream: Stream<TlsStream<TcpStream>>,
        handshake: Arc<Handshake>,
    ) -> hyper::Result<Self> {
        let is_h2 = stream.get_ref().get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if is_h2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(MAX_HEAD as u32)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .handshake(io)
                .await?;
            // Its errors are those of its requests.
            TokioExecutor::new().execute(async { drop(driver.await) });
            return Ok(Self::Http2(Http2 { sender, handshake }));
        }
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(io)
            .await?;
        Ok(Self::Http1(Box::new(Http1 {
            sender,
            driver,
            ended: false,
            handshake,
        })))
    }

    /// What is known of its handshake.
    pub(super) fn handshake(&self) -> &Arc<Handshake> {
        match self {
            Self::Http1(connection) => &connection.handshake,
            Self::Http2(connection) => &connection.handshake,
        }
    }

    /// Ends it, if nobody else uses it.
    pub(super) fn close(self) {
        if let Self::Http1(connection) = self {
            connection.close();
        }
    }

    /// Sends `request`, which has the form for HTTP/1.1, and reads what comes. Gives the connection
    /// back if it may take another one.
    pub(super) async fn exchange(
        self,
        mut request: Request<Bytes>,
        target: &Target,
        progress: &Progress,
        clock: &dyn Clock,
    ) -> (Ending, Option<Self>) {
        match self {
            Self::Http1(mut connection) => {
                let ending = connection.exchange(request, progress, clock).await;
                let again = connection.takes_another();
                (ending, again.then_some(Self::Http1(connection)))
            }
            Self::Http2(mut connection) => {
                request.headers_mut().remove(HOST);
                *request.uri_mut() = target.absolute.clone();
                let ending = connection.exchange(request, progress, clock).await;
                // One that is being closed still is open for the requests before.
                let again = connection.is_open() && ending != Ending::Lost;
                (ending, again.then_some(Self::Http2(connection)))
            }
        }
    }
}

impl Http1 {
    async fn exchange(
        &mut self,
        request: Request<Bytes>,
        progress: &Progress,
        clock: &dyn Clock,
    ) -> Ending {
        // Handed over before the connection is polled for the first time.
        let answer = self.sender.send_request(request.map(Full::new));
        let reading = read(answer, progress, clock);
        let ended = drive(&mut self.driver, &mut self.ended, reading).await;
        ended.unwrap_or_else(|| match progress.head() {
            Some(_) => Ending::AnswerCut,
            None => Ending::Lost,
        })
    }

    /// Whether it may take another request now that one is answered. It may still have to see the
    /// end of the answer, or what of the request is not sent yet, and then it does not.
    fn takes_another(&mut self) -> bool {
        !self.ended && (self.sender.is_ready() || self.is_open())
    }

    /// Whether the receiver has not closed it since the last request. Only what has come already is
    /// looked at.
    pub(super) fn is_open(&mut self) -> bool {
        if !self.ended {
            self.ended = look(&mut self.driver).is_ready();
        }
        !self.ended && self.sender.is_ready()
    }

    /// Takes leave of the receiver, with what can be said without waiting.
    pub(super) fn close(self) {
        let Self {
            sender,
            mut driver,
            ended,
            ..
        } = self;
        // The driver sees that nobody has requests any more.
        drop(sender);
        if !ended {
            // Whether it comes to the end or not: that was all.
            let _ = look(&mut driver);
        }
    }
}

/// Polls `future` to its end, by polling the connection that it waits for: nothing else makes it go
/// on, so it needs to be woken by nobody. `None` if the connection ends before it.
async fn drive<F: Future>(
    driver: &mut http1::Connection<Io, Body>,
    ended: &mut bool,
    future: F,
) -> Option<F::Output> {
    // By no budget: it would count on being woken when that is used up (the driver's is enough).
    let mut future = pin!(unconstrained(future));
    poll_fn(|cx| {
        // An error goes to `future`, unless that has no use for it.
        *ended = *ended || Pin::new(&mut *driver).poll(cx).is_ready();
        let mut unwoken = Context::from_waker(Waker::noop());
        match future.as_mut().poll(&mut unwoken) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if *ended => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Polls a connection once, for nobody.
fn look(driver: &mut http1::Connection<Io, Body>) -> Poll<hyper::Result<()>> {
    let mut unwoken = Context::from_waker(Waker::noop());
    pin!(unconstrained(driver)).poll(&mut unwoken)
}

impl Http2 {
    async fn exchange(
        &mut self,
        request: Request<Bytes>,
        progress: &Progress,
        clock: &dyn Clock,
    ) -> Ending {
        let answer = self.sender.send_request(request.map(Full::new));
        tokio::select! {
            biased;
            ending = read(answer, progress, clock) => ending,
            () = left_behind(&self.handshake, progress, GRACE) => Ending::Lost,
        }
    }

    /// What is known of its handshake.
    pub(super) fn handshake(&self) -> &Arc<Handshake> {
        &self.handshake
    }

    /// Whether the receiver takes requests over it, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// Waits for an answer and reads it.
async fn read(
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    progress: &Progress,
    clock: &dyn Clock,
) -> Ending {
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let head = response::head(&answer, clock.now());
    progress.answered(head);
    response::finish(head.status, answer.into_body()).await
}

/// What the HTTP library's error means.
fn failed(error: &hyper::Error) -> Ending {
    if error.is_parse() || error.is_parse_too_large() {
        Ending::NotHttp
    } else {
        Ending::Lost
    }
}
