//! Sessions to resume, of one client: each is kept with what its full handshake saw, because a
//! resumed one sees no certificates and no CertificateRequest (RFC 8446 section 2.2).
//!
//! Each connection has a view of its own over the shared store, so that a session that is given or
//! taken is told to the right handshake, whenever that happens.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use countersign_shared::time::Clock;
use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
};
use rustls_pki_types::ServerName;

use super::handshake::{Handshake, SessionFacts};

/// Most server names. A client belongs to one destination, so a second name is one that changed.
const MAX_NAMES: usize = 8;
/// Most TLS 1.3 tickets a name; each is used once (RFC 8446 appendix C.4).
const MAX_TICKETS: usize = 8;

/// The sessions of one client.
pub(super) struct Sessions {
    names: Mutex<Names>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Names {
    kept: HashMap<ServerName<'static>, OfName>,
    /// Nothing is kept any more.
    forgotten: bool,
}

#[derive(Default)]
struct OfName {
    group: Option<NamedGroup>,
    tls12: Option<(Tls12ClientSessionValue, Arc<SessionFacts>)>,
    tls13: VecDeque<(Tls13ClientSessionValue, Arc<SessionFacts>)>,
}

impl Sessions {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            names: Mutex::default(),
            clock,
        }
    }

    /// Forgets all sessions and keeps none from now on: their certificate is revoked.
    pub(super) fn forget(&self) {
        let mut names = self.names();
        names.forgotten = true;
        names.kept.clear();
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // A lost session costs a full handshake, nothing else.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, name: ServerName<'static>, change: impl FnOnce(&mut OfName)) {
        let mut names = self.names();
        if names.forgotten {
            return;
        }
        let kept = &mut names.kept;
        if kept.len() >= MAX_NAMES && !kept.contains_key(&name) {
            kept.clear();
        }
        change(kept.entry(name).or_default());
    }

    /// A session must not outlive the server certificate that it was verified with.
    fn still_good(&self, facts: &SessionFacts) -> bool {
        let now = self.clock.now();
        facts.server.as_ref().is_none_or(|it| now < it.not_after)
    }
}

/// One connection's view of the sessions.
pub(super) struct View {
    pub(super) sessions: Arc<Sessions>,
    pub(super) handshake: Arc<Handshake>,
}

impl ClientSessionStore for View {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.sessions
            .change(server_name, |it| it.group = Some(group));
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.names().kept.get(server_name)?.group
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        let facts = self.handshake.session_given();
        self.sessions
            .change(server_name, |it| it.tls12 = Some((value, facts)));
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let names = self.sessions.names();
        let (value, facts) = names.kept.get(server_name)?.tls12.as_ref()?;
        if !self.sessions.still_good(facts) {
            return None;
        }
        self.handshake.offers_session(Arc::clone(facts));
        Some(value.clone())
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        if let Some(of_name) = self.sessions.names().kept.get_mut(server_name) {
            of_name.tls12 = None;
        }
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        let facts = self.handshake.session_given();
        self.sessions.change(server_name, |it| {
            if it.tls13.len() >= MAX_TICKETS {
                it.tls13.pop_front();
            }
            it.tls13.push_back((value, facts));
        });
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        let mut names = self.sessions.names();
        let (value, facts) = names.kept.get_mut(server_name)?.tls13.pop_back()?;
        drop(names);
        if !self.sessions.still_good(&facts) {
            return None;
        }
        self.handshake.offers_session(facts);
        Some(value)
    }
}

/// Without the sessions: they are secret.
impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::time::SystemClock;

    use super::*;

    #[test]
    fn what_is_forgotten_stays_forgotten() {
        let sessions = Arc::new(Sessions::new(Arc::new(SystemClock)));
        let view = View {
            sessions: Arc::clone(&sessions),
            handshake: Arc::default(),
        };
        let name = ServerName::try_from("a.example").unwrap();
        view.set_kx_hint(name.clone(), NamedGroup::X25519);
        assert_eq!(view.kx_hint(&name), Some(NamedGroup::X25519));
        sessions.forget();
        assert_eq!(view.kx_hint(&name), None);
        view.set_kx_hint(name.clone(), NamedGroup::X25519);
        assert_eq!(view.kx_hint(&name), None);
    }
}
