//! The open connections of one client that wait for their next request: the last one that came back
//! goes out first, so that few stay in use, and those that are too many go when they have waited
//! [`IDLE`].
//!
//! Nobody drives a connection of HTTP/1.1 meanwhile. That its receiver has closed it is seen when it
//! is to be used, or by `sweep`, whichever comes first.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::{
    connection::{Connection, Http1, Http2},
    handshake::Handshake,
    standing::Standing,
};

/// How long an unused connection is kept: shorter than most receivers keep it, so that few requests
/// meet a connection that is being closed.
const IDLE: Duration = Duration::from_secs(30);
/// Most unused connections that are kept.
const MAX_IDLE: usize = 256;

/// Connections that wait.
pub(super) struct Pool {
    state: Mutex<State>,
    standing: Arc<Standing>,
}

#[derive(Default)]
struct State {
    /// The longer a connection has waited the nearer it is to the front.
    idle: Vec<Idle>,
    shared: Option<Shared>,
}

struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

/// The connection of HTTP/2, which waits and is in use.
struct Shared {
    connection: Http2,
    /// When a request began or ended.
    used: Instant,
}

impl Pool {
    /// For connections that depend on `standing`.
    pub(super) fn new(standing: Arc<Standing>) -> Self {
        Self {
            state: Mutex::default(),
            standing,
        }
    }

    /// A connection that is open, as far as is known.
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        loop {
            let mut state = self.lock();
            if let Some(shared) = state.shared(now) {
                return Some(Connection::Http2(shared));
            }
            let next = state.idle.pop()?;
            // To look at it, and to end it, takes longer than others should wait.
            drop(state);
            let Idle {
                mut connection,
                since,
            } = next;
            if !connection.is_open() {
                continue;
            }
            if now.saturating_duration_since(since) < IDLE {
                return Some(Connection::Http1(connection));
            }
            connection.close();
        }
    }

    /// A connection was opened: it, or the one of HTTP/2 that another request has opened meanwhile.
    pub(super) fn opened(&self, connection: Connection, now: Instant) -> Connection {
        let Connection::Http2(opened) = connection else {
            return connection;
        };
        let mut state = self.lock();
        if let Some(shared) = state.shared(now) {
            return Connection::Http2(shared);
        }
        if !self.standing.is_revoked() {
            state.shared = Some(Shared {
                connection: opened.clone(),
                used: now,
            });
        }
        Connection::Http2(opened)
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, connection: Connection, now: Instant) {
        let mut state = self.lock();
        match connection {
            // Looked at under the lock under which connections are let go of when it is revoked.
            Connection::Http1(_) if self.standing.is_revoked() => {}
            Connection::Http1(connection) if state.idle.len() < MAX_IDLE => {
                let since = now;
                state.idle.push(Idle { connection, since });
            }
            Connection::Http1(connection) => {
                drop(state);
                connection.close();
            }
            Connection::Http2(_) => drop(state.shared(now)),
        }
    }

    /// Gives the connection with this handshake to no other request.
    pub(super) fn give_up(&self, handshake: &Arc<Handshake>) {
        let mut state = self.lock();
        let shared = state.shared.as_ref();
        if shared.is_some_and(|it| Arc::ptr_eq(it.connection.handshake(), handshake)) {
            state.shared = None;
        }
    }

    /// Lets go of connections that have waited too long, and of those that their receivers have
    /// closed.
    pub(super) fn sweep(&self, now: Instant) {
        let mut state = self.lock();
        let over = |since: Instant| now.saturating_duration_since(since) >= IDLE;
        if state.shared.as_ref().is_some_and(|it| over(it.used)) {
            // Requests that are still under way have it as well.
            state.shared = None;
        }
        let expired = state.idle.partition_point(|it| over(it.since));
        let expired: Vec<Idle> = state.idle.drain(..expired).collect();
        let mut closed = Vec::new();
        // Under the lock: for one that is out meanwhile another would be opened.
        let idle = std::mem::take(&mut state.idle);
        for mut it in idle {
            if it.connection.is_open() {
                state.idle.push(it);
            } else {
                closed.push(it);
            }
        }
        drop(state);
        drop(closed);
        for idle in expired {
            idle.connection.close();
        }
    }

    /// Drops all connections as they are: their certificate is revoked.
    pub(super) fn forget(&self) {
        let state = std::mem::take(&mut *self.lock());
        drop(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Connections come and go whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The connection of HTTP/2, if there is one that is open; it is used `now`.
    fn shared(&mut self, now: Instant) -> Option<Http2> {
        if self
            .shared
            .as_ref()
            .is_some_and(|it| !it.connection.is_open())
        {
            self.shared = None;
        }
        let shared = self.shared.as_mut()?;
        shared.used = now;
        Some(shared.connection.clone())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // What a connection has left to say needs the runtime.
        if Handle::try_current().is_err() || self.standing.is_revoked() {
            return;
        }
        let state = std::mem::take(&mut *self.lock());
        for idle in state.idle {
            idle.connection.close();
        }
    }
}
