//! A bundle made ready for use: everything that can be wrong with it is found here, before any job
//! depends on it, and everything that an attempt needs is computed once.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use countersign_shared::{
    bundle::Bundle, name::DestinationName, outcome::PresentedCertificate, secret::SecretBytes,
    time::Timestamp, tls::certificate_facts,
};
use http::Uri;

use super::{client::Client, clients::Clients, prepare_error::PrepareError};

/// A bundle that is ready for use.
pub struct Prepared {
    /// Which destination.
    pub destination: DestinationName,
    /// Grows with every change.
    pub generation: u64,
    /// SHA-256 of the content as it was sent.
    pub content_sha256: [u8; 32],
    pub(super) uri: Uri,
    pub(super) signing_secrets: Vec<SecretBytes>,
    pub(super) attempt_timeout: Duration,
    pub(super) concurrency_limit: u32,
    /// Start of the client certificate's validity.
    pub(super) not_before: Timestamp,
    /// End of the client certificate's validity.
    pub(super) not_after: Timestamp,
    pub(super) client: Arc<Client>,
    active: AtomicBool,
}

impl Prepared {
    /// Makes `bundle` ready.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub fn new(bundle: Bundle, clients: &Clients) -> Result<Self, PrepareError> {
        let leaf = bundle.active.chain.first();
        let facts = leaf
            .and_then(|leaf| certificate_facts(leaf))
            .ok_or(PrepareError::NotACertificate)?;
        let uri = bundle.url.as_str().parse().map_err(|_| PrepareError::Url)?;
        let presented = PresentedCertificate {
            version: bundle.active.version,
            serial: facts.serial,
        };
        let client = clients.get(&bundle, &bundle.active, presented)?;
        Ok(Self {
            destination: bundle.destination,
            generation: bundle.generation,
            content_sha256: bundle.content_sha256,
            uri,
            signing_secrets: bundle.signing_secrets,
            attempt_timeout: bundle.attempt_timeout,
            concurrency_limit: bundle.concurrency_limit,
            not_before: facts.not_before,
            not_after: facts.not_after,
            client,
            active: AtomicBool::new(false),
        })
    }

    /// Whether it was used in a real handshake.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Notes that it was.
    pub(super) fn activate(&self) {
        self.active.store(true, Ordering::Relaxed);
    }
}

/// Without the secrets.
impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("destination", &self.destination)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
