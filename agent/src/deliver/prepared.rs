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

use arc_swap::ArcSwapOption;
use countersign_shared::{
    bundle::Bundle, name::DestinationName, outcome::CertificateRefusal, secret::SecretBytes,
    signature::ed25519::SigningKey,
};
use url::Url;

use super::{clients::Clients, credential::Ready, prepare_error::PrepareError, target::Target};

/// A bundle that is ready for use.
pub struct Prepared {
    /// Which destination.
    pub destination: DestinationName,
    /// Grows with every change.
    pub generation: u64,
    /// SHA-256 of the content as it was sent.
    pub content_sha256: [u8; 32],
    pub(super) target: Target,
    pub(super) signing_secrets: Vec<SecretBytes>,
    pub(super) signing_keys: Vec<SigningKey>,
    pub(super) attempt_timeout: Duration,
    pub(super) concurrency_limit: u32,
    /// What is presented.
    pub(super) active: Ready,
    /// Presented in probes alone.
    candidate: Option<Ready>,
    /// Presented when the receiver refuses the active one.
    pub(super) fallback: Option<Ready>,
    /// The URL, if a receipt is signed for each attempt.
    pub(super) receipts_for: Option<Url>,
    /// How the receiver refused the active certificate, once it has and took the fallback.
    refusal: ArcSwapOption<CertificateRefusal>,
    was_used: AtomicBool,
}

impl Prepared {
    /// Makes `bundle` ready.
    ///
    /// # Errors
    /// [`PrepareError`]: what is wrong with it, of a certificate on standby too.
    pub fn new(bundle: Bundle, clients: &Clients) -> Result<Self, PrepareError> {
        let target = Target::new(&bundle.url)?;
        let ready = |credential, named| Ready::new(&bundle, credential, clients, named);
        let active = ready(&bundle.active, PrepareError::Active)?;
        let candidate = bundle.candidate.as_ref();
        let candidate = candidate.map(|it| ready(it, PrepareError::Candidate));
        let fallback = bundle.fallback.as_ref();
        let fallback = fallback.map(|it| ready(it, PrepareError::Fallback));
        let keys = bundle.signing_seeds.iter().map(SigningKey::from_seed);
        let signing_keys = keys.collect::<Option<_>>();
        Ok(Self {
            signing_keys: signing_keys.ok_or(PrepareError::SigningKey)?,
            candidate: candidate.transpose()?,
            fallback: fallback.transpose()?,
            active,
            target,
            destination: bundle.destination,
            generation: bundle.generation,
            content_sha256: bundle.content_sha256,
            signing_secrets: bundle.signing_secrets,
            attempt_timeout: bundle.attempt_timeout,
            concurrency_limit: bundle.concurrency_limit,
            receipts_for: bundle.receipts.then_some(bundle.url),
            refusal: ArcSwapOption::empty(),
            was_used: AtomicBool::new(false),
        })
    }

    /// The client certificate with this version.
    pub(super) fn certificate(&self, version: u32) -> Option<&Ready> {
        let held = [
            Some(&self.active),
            self.candidate.as_ref(),
            self.fallback.as_ref(),
        ];
        held.into_iter().flatten().find(|it| it.version == version)
    }

    /// How the receiver refused the active certificate, if later attempts are to present the
    /// fallback first.
    pub(super) fn refusal(&self) -> Option<Arc<CertificateRefusal>> {
        self.refusal.load_full()
    }

    /// Remembers that the receiver refused the active certificate and took the fallback; false when
    /// it was remembered already. The handshake is that attempt's and not kept.
    pub(super) fn remember(&self, refusal: &CertificateRefusal) -> bool {
        let refusal = CertificateRefusal {
            handshake: None,
            detail: refusal.detail.clone(),
            ..*refusal
        };
        self.refusal.swap(Some(Arc::new(refusal))).is_none()
    }

    /// Later attempts present the active certificate first again; false when they would anyway.
    pub(super) fn forget_refusal(&self) -> bool {
        // Looked at first: on the way of every delivery nothing is written.
        self.refusal.load().is_some() && self.refusal.swap(None).is_some()
    }

    /// Whether its active certificate was used in a real handshake.
    pub fn is_active(&self) -> bool {
        self.was_used.load(Ordering::Relaxed)
    }

    /// Notes that it was.
    pub(super) fn activate(&self) {
        self.was_used.store(true, Ordering::Relaxed);
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
