//! Whether a client certificate may still be used. One standing belongs to one certificate of one
//! destination and is shared by all that present it: pooled clients and probes. When the
//! certificate is revoked, every connection that was opened with it is pulled down, idle or busy, the
//! sessions that could be resumed are forgotten, and no new connection is opened.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use countersign_shared::name::DestinationName;

use super::{handshake::Handshake, pool::Pool, sessions::Sessions};

/// Most revoked certificates that are remembered besides those that the agent holds: one can be
/// revoked while the bundle that brings it is still on its way.
const MAX_REMEMBERED: usize = 4096;

/// The certificate must not be used: the control plane has revoked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revoked;

/// Whether one certificate may be used, and what was opened with it.
#[derive(Default)]
pub(super) struct Standing {
    is_revoked: AtomicBool,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    connections: Vec<Weak<Handshake>>,
    /// One of each client, of which there are few; and so of the pools.
    sessions: Vec<Weak<Sessions>>,
    pools: Vec<Weak<Pool>>,
    /// When there are more, those that are no more are taken out.
    tidy_at: usize,
}

impl Standing {
    /// Whether the certificate is revoked.
    pub(super) fn is_revoked(&self) -> bool {
        self.is_revoked.load(Ordering::SeqCst)
    }

    /// A connection is about to be opened.
    ///
    /// # Errors
    /// [`Revoked`]: it must not be.
    pub(super) fn open(&self, connection: &Arc<Handshake>) -> Result<(), Revoked> {
        let mut opened = self.opened();
        // Under the lock under which it is revoked, so that no connection escapes.
        if self.is_revoked() {
            return Err(Revoked);
        }
        if opened.connections.len() >= opened.tidy_at {
            opened.connections.retain(|it| it.strong_count() > 0);
            opened.tidy_at = 2 * opened.connections.len() + 16;
        }
        opened.connections.push(Arc::downgrade(connection));
        Ok(())
    }

    /// A client keeps these sessions: they are forgotten when the certificate is revoked.
    pub(super) fn keeps(&self, sessions: &Arc<Sessions>) {
        let mut opened = self.opened();
        if self.is_revoked() {
            sessions.forget();
        }
        opened.sessions.retain(|it| it.strong_count() > 0);
        opened.sessions.push(Arc::downgrade(sessions));
    }

    /// A client keeps connections in this pool: they are dropped when the certificate is revoked.
    pub(super) fn keeps_open(&self, pool: &Arc<Pool>) {
        let mut opened = self.opened();
        opened.pools.retain(|it| it.strong_count() > 0);
        opened.pools.push(Arc::downgrade(pool));
    }

    /// Revokes the certificate and pulls the connections down; returns them.
    fn revoke(&self) -> Vec<Arc<Handshake>> {
        let mut opened = self.opened();
        self.is_revoked.store(true, Ordering::SeqCst);
        let sessions = std::mem::take(&mut opened.sessions);
        let pools = std::mem::take(&mut opened.pools);
        // They stay listed until they are no more: who revokes once more has to wait for them, too.
        opened.connections.retain(|it| it.strong_count() > 0);
        let connections = opened.connections.clone();
        drop(opened);
        for sessions in sessions.iter().filter_map(Weak::upgrade) {
            sessions.forget();
        }
        let connections = connections.iter().filter_map(Weak::upgrade);
        let open: Vec<_> = connections.filter(|it| !it.is_closed()).collect();
        for connection in &open {
            connection.cord().pull();
        }
        // Nobody drives those that wait for a request, and sees that they are pulled down.
        for pool in pools.iter().filter_map(Weak::upgrade) {
            pool.forget();
        }
        open
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        // A list of what was opened: a panic can't leave half of an entry.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing")
            .field("is_revoked", &self.is_revoked)
            .finish_non_exhaustive()
    }
}

/// A certificate: its destination, and its serial number in lower-case hexadecimal.
type Certificate = (DestinationName, String);

/// The standings of all certificates that are in use, and which were revoked.
#[derive(Debug, Default)]
pub(super) struct Standings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    in_use: HashMap<Certificate, Weak<Standing>>,
    /// When there are more, those that nobody uses are taken out.
    tidy_at: usize,
    /// Each with its place in the order in which they were revoked.
    revoked: HashMap<Certificate, u64>,
    revocations: u64,
    /// When more are remembered, the oldest are forgotten.
    forget_at: usize,
}

impl Standings {
    /// The standing of a certificate.
    pub(super) fn of(&self, destination: &DestinationName, serial: &str) -> Arc<Standing> {
        let certificate = (destination.clone(), serial.to_owned());
        let mut state = self.lock();
        if let Some(standing) = state.in_use.get(&certificate).and_then(Weak::upgrade) {
            return standing;
        }
        let standing = Arc::new(Standing::default());
        if state.revoked.contains_key(&certificate) {
            standing.revoke();
        }
        if state.in_use.len() >= state.tidy_at {
            state.in_use.retain(|_, it| it.strong_count() > 0);
            state.tidy_at = 2 * state.in_use.len() + 16;
        }
        state.in_use.insert(certificate, Arc::downgrade(&standing));
        standing
    }

    /// Revokes certificates; returns the connections that were open with them.
    pub(super) fn revoke(
        &self,
        destination: &DestinationName,
        serials: &[String],
    ) -> Vec<Arc<Handshake>> {
        let mut state = self.lock();
        let mut pulled = Vec::new();
        for serial in serials {
            let certificate = (destination.clone(), serial.clone());
            if let Some(standing) = state.in_use.get(&certificate).and_then(Weak::upgrade) {
                pulled.extend(standing.revoke());
            }
            state.revocations += 1;
            let place = state.revocations;
            state.revoked.insert(certificate, place);
        }
        if state.revoked.len() > state.forget_at.max(MAX_REMEMBERED) {
            state.forget_the_oldest(MAX_REMEMBERED);
            // What is held stays, however much it is: do not look at it again at once.
            state.forget_at = state.revoked.len() + MAX_REMEMBERED / 4;
        }
        pulled
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are added and taken out whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps `most`, and more where more are in use: the oldest of the others go.
    fn forget_the_oldest(&mut self, most: usize) {
        let surplus = self.revoked.len().saturating_sub(most);
        let in_use = &self.in_use;
        let is_held = |it: &Certificate| in_use.get(it).is_some_and(|it| it.strong_count() > 0);
        let others = self.revoked.iter().filter(|(it, _)| !is_held(it));
        let mut places: Vec<u64> = others.map(|(_, place)| *place).collect();
        places.sort_unstable();
        places.truncate(surplus);
        self.revoked
            .retain(|_, place| places.binary_search(place).is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(id: &str) -> DestinationName {
        format!("accounts/a/destinations/{id}").parse().unwrap()
    }

    #[test]
    fn what_is_revoked_opens_nothing_and_what_was_open_is_pulled_down() {
        let standings = Standings::default();
        let (here, there) = (destination("here"), destination("there"));
        let (revoked, other) = (standings.of(&here, "0a"), standings.of(&there, "0a"));
        let (connection, gone) = (Arc::<Handshake>::default(), Arc::<Handshake>::default());
        revoked.open(&connection).unwrap();
        revoked.open(&gone).unwrap();
        other.open(&Arc::default()).unwrap();
        drop(gone);

        let pulled = standings.revoke(&here, &["0a".into(), "0b".into()]);
        assert!(pulled.len() == 1 && Arc::ptr_eq(&pulled[0], &connection));
        assert!(connection.cord().is_pulled());
        assert_eq!(revoked.open(&Arc::default()), Err(Revoked));
        assert!(!other.is_revoked(), "a serial number is its authority's");

        // Who is told once more waits for it as well, until it is no more.
        let again = || standings.revoke(&here, &["0a".into()]).len();
        assert_eq!(again(), 1);
        connection.close();
        assert_eq!(again(), 0);

        // What comes later is revoked from the start, whether it was held or not.
        drop(revoked);
        assert!(standings.of(&here, "0a").is_revoked());
        assert!(standings.of(&here, "0b").is_revoked());
    }

    #[test]
    fn the_list_of_connections_does_not_grow_with_those_that_are_no_more() {
        let standing = Standing::default();
        for _ in 0..1000 {
            standing.open(&Arc::default()).unwrap();
        }
        assert!(standing.opened().connections.len() <= 32);
    }

    #[test]
    fn the_oldest_are_forgotten_unless_they_are_held() {
        let standings = Standings::default();
        let here = destination("here");
        let held = standings.of(&here, "0");
        let serials: Vec<String> = (0..5).map(|it| it.to_string()).collect();
        standings.revoke(&here, &serials);
        standings.lock().forget_the_oldest(3);
        let left = |serial: &str| {
            let certificate = (here.clone(), serial.to_owned());
            standings.lock().revoked.contains_key(&certificate)
        };
        assert!(left("0") && !left("1") && !left("2") && left("3") && left("4"));
        assert!(held.is_revoked());
    }
}
