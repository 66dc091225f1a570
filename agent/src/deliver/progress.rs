//! How far one attempt has come, seen from outside of the HTTP client: what a timeout cuts off can
//! still be told, and an error that lost its connection still finds its handshake.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{handshake::Handshake, response::Head};

tokio::task_local! {
    /// The attempt that is being made.
    pub(super) static ATTEMPT: Arc<Progress>;
}

/// How far an attempt has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    connecting: Mutex<Option<(Step, Arc<Handshake>)>>,
    sent: OnceLock<Instant>,
    head: OnceLock<(Head, Instant)>,
}

/// How far the connection has come that was opened for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Name resolution or TCP.
    Dialling,
    /// TLS.
    ShakingHands,
    /// Ready for requests.
    Ready,
}

impl Progress {
    /// The connection opened for this attempt has come to `step`.
    pub(super) fn reached(&self, step: Step, handshake: &Arc<Handshake>) {
        let mut connecting = self
            .connecting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *connecting = Some((step, Arc::clone(handshake)));
    }

    /// The connection that was opened for this attempt, if one was.
    pub(super) fn connection(&self) -> Option<(Step, Arc<Handshake>)> {
        let connecting = self.connecting.lock();
        connecting.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a connection is being opened for this attempt.
    pub(super) fn is_connecting(&self) -> bool {
        self.connection()
            .is_some_and(|(step, _)| step != Step::Ready)
    }

    /// The head of the answer is here.
    pub(super) fn answered(&self, head: Head) {
        // There is one answer.
        let _ = self.head.set((head, Instant::now()));
    }

    /// The head of the answer and when it came, if it did.
    pub(super) fn head(&self) -> Option<(Head, Instant)> {
        self.head.get().copied()
    }

    /// When the first byte of the payload was asked for, if it was.
    pub(super) fn sent(&self) -> Option<Instant> {
        self.sent.get().copied()
    }
}

/// The payload as a request body that notes when it is first asked for.
#[derive(Debug)]
pub(super) struct Payload {
    data: Option<Bytes>,
    progress: Arc<Progress>,
}

impl Payload {
    pub(super) fn new(data: Bytes, progress: Arc<Progress>) -> Self {
        let data = (!data.is_empty()).then_some(data);
        Self { data, progress }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.progress.sent.get_or_init(Instant::now);
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
