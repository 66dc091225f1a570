//! How far one attempt has come, seen from outside of it: what a timeout cuts off can still be told.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{handshake::Handshake, response::Head};

/// How far an attempt has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    connection: Mutex<Option<(Step, Arc<Handshake>)>>,
    sent: OnceLock<Instant>,
    head: OnceLock<(Head, Instant)>,
}

/// How far the attempt's connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Name resolution or TCP.
    Dialling,
    /// TLS.
    ShakingHands,
    /// The request goes over it.
    Used,
}

impl Progress {
    /// The connection has come to `step`.
    pub(super) fn reached(&self, step: Step, handshake: &Arc<Handshake>) {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *connection = Some((step, Arc::clone(handshake)));
    }

    /// The request is handed over to the connection.
    pub(super) fn sending(&self, handshake: &Arc<Handshake>) {
        self.reached(Step::Used, handshake);
        // There is one connection.
        let _ = self.sent.set(Instant::now());
    }

    /// The connection, as far as it has come.
    pub(super) fn connection(&self) -> Option<(Step, Arc<Handshake>)> {
        let connection = self.connection.lock();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The head of the answer is here.
    pub(super) fn answered(&self, head: Head) {
        // There is one answer.
        let _ = self.head.set((head, Instant::now()));
    }

    /// The head of the answer, if it came.
    pub(super) fn head(&self) -> Option<Head> {
        self.head.get().map(|(head, _)| *head)
    }

    /// From the request to the head of the answer.
    pub(super) fn response(&self) -> Option<Duration> {
        let (_, at) = self.head.get()?;
        Some(at.duration_since(*self.sent.get()?))
    }
}
