//! The cache of clients: bundles that need the same certificate, trust and policies share one, above
//! all a destination's next bundle that changes neither. A client goes when no bundle uses it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use countersign_shared::{
    address_range::AddressRange,
    bundle::{Bundle, Credential, MinimumTls, MtlsEnforcement},
    digest::sha256,
    outcome::PresentedCertificate,
    time::Clock,
};
use rustls_pki_types::CertificateDer;

use super::{
    client::{Client, build},
    dial::Dialler,
    prepare_error::PrepareError,
};
use crate::metrics::Metrics;

/// What makes two bundles need the same client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
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
    dialler: Dialler,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Clients {
    /// An empty cache of clients that reach out by `dialler`.
    pub fn new(dialler: Dialler, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            cache: Mutex::default(),
            dialler,
            clock,
            metrics,
        }
    }

    /// The client for `bundle` that presents `credential`: one that is in use, or a new one.
    pub(super) fn get(
        &self,
        bundle: &Bundle,
        credential: &Credential,
        presented: PresentedCertificate,
    ) -> Result<Arc<Client>, PrepareError> {
        let key = Key {
            chain: digest(&credential.chain),
            version: presented.version,
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
        let (clock, metrics) = (Arc::clone(&self.clock), Arc::clone(&self.metrics));
        let dialler = self.dialler.clone();
        let client = Arc::new(build(
            bundle, credential, presented, dialler, clock, metrics,
        )?);
        cache.retain(|_, client| client.strong_count() > 0);
        cache.insert(key, Arc::downgrade(&client));
        Ok(client)
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
