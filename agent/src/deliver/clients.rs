//! The cache of clients: bundles of a destination that need the same certificate, trust and policies
//! share one, so that a candidate that becomes active, and an active certificate that becomes the
//! fallback, keep their connections. A client goes when no bundle uses it, and is stopped when its
//! certificate is revoked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use countersign_shared::{
    address_range::AddressRange,
    bundle::{Bundle, MinimumTls, MtlsEnforcement},
    digest::sha256,
    name::DestinationName,
    time::Clock,
};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use super::{
    client::Client, credential::Certified, dial::Dialler, handshake::Handshake,
    prepare_error::PrepareError, standing::Standings,
};
use crate::metrics::Metrics;

/// What makes two bundles need the same client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// A certificate is revoked for one destination.
    destination: DestinationName,
    /// Where its connections lead to.
    authority: String,
    chain: [u8; 32],
    version: u32,
    trust: [u8; 32],
    minimum_tls: MinimumTls,
    enforcement: MtlsEnforcement,
    /// A connection that is open is not judged again.
    allowed_ranges: Vec<AddressRange>,
}

/// Clients that are in use.
#[derive(Debug)]
pub struct Clients {
    cache: Mutex<HashMap<Key, Weak<Client>>>,
    standings: Standings,
    dialler: Dialler,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Clients {
    /// An empty cache of clients that reach out by `dialler`.
    pub fn new(dialler: Dialler, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            cache: Mutex::default(),
            standings: Standings::default(),
            dialler,
            clock,
            metrics,
        }
    }

    /// The client for `bundle` that presents `certified`: one that is in use, or a new one.
    pub(super) fn get(
        &self,
        bundle: &Bundle,
        certified: Certified,
    ) -> Result<Arc<Client>, PrepareError> {
        let key = Key {
            destination: bundle.destination.clone(),
            authority: bundle.url.authority().to_owned(),
            chain: digest(&certified.key.cert),
            version: certified.presented.version,
            trust: digest(&bundle.server_cas),
            minimum_tls: bundle.minimum_tls,
            enforcement: bundle.mtls_enforcement,
            allowed_ranges: bundle.allowed_ranges.clone(),
        };
        // A client that is only half made is never in the map.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = cache.get(&key).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let serial = &certified.presented.serial;
        let standing = self.standings.of(&bundle.destination, serial);
        let (clock, metrics) = (Arc::clone(&self.clock), Arc::clone(&self.metrics));
        let dialler = self.dialler.clone();
        let client = Client::build(bundle, certified, standing, dialler, clock, metrics)?;
        let client = Arc::new(client);
        cache.retain(|_, client| client.strong_count() > 0);
        cache.insert(key, Arc::downgrade(&client));
        Ok(client)
    }

    /// Closes connections that have waited too long for a request, or that their receivers have closed.
    /// To be called every second or so.
    pub fn sweep(&self, now: Instant) {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let clients: Vec<_> = cache.values().filter_map(Weak::upgrade).collect();
        drop(cache);
        for client in clients {
            client.sweep(now);
        }
    }

    /// Stops all use of the certificates of `destination` with these serial numbers (lower-case
    /// hexadecimal), now and in bundles to come: connections are pulled down, busy or not, sessions
    /// are forgotten, and nothing is dialled with them any more.
    pub fn revoke(&self, destination: &DestinationName, serials: &[String]) -> Stopped {
        let connections = self.standings.revoke(destination, serials);
        let (serials, closed) = (serials.len() as u64, connections.len() as u64);
        self.metrics.certificates_revoked.inc_by(serials);
        self.metrics.connections_pulled_down.inc_by(closed);
        Stopped(connections)
    }
}

/// Connections that were pulled down.
#[derive(Debug)]
#[must_use = "they have ended when `ended` returns"]
pub struct Stopped(Vec<Arc<Handshake>>);

impl Stopped {
    /// How many there were, those that were being opened included.
    pub fn connections(&self) -> usize {
        self.0.len()
    }

    /// Waits until the last is closed: nothing goes over them after that.
    pub async fn ended(self) {
        for connection in self.0 {
            connection.closed().await;
        }
    }
}

/// SHA-256 over certificates, each with its length before it.
fn digest(certificates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut all = Vec::new();
    for certificate in certificates {
        all.extend_from_slice(&(certificate.len() as u64).to_be_bytes());
        all.extend_from_slice(certificate);
    }
    sha256(&all)
}
