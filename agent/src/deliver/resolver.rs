//! The client certificate: presented to every receiver that asks (or, by some probes, not), and noted. A resolver that is
//! never called means that the receiver did not ask (RFC 8446 section 4.3.2).

use std::sync::Arc;

use countersign_shared::outcome::PresentedCertificate;
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

use super::handshake::CURRENT;

/// Presents one certificate, or none, and notes that it was asked for.
pub(super) struct Resolver {
    /// None presents nothing.
    pub(super) certified: Option<Arc<CertifiedKey>>,
    pub(super) presented: PresentedCertificate,
    /// Names of the authorities in the chain, in DER.
    pub(super) issuers: Vec<Vec<u8>>,
}

impl ResolvesClientCert for Resolver {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        // rustls presents nothing when the server takes no signature that the key can make.
        let usable = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(sigschemes).is_some();
        let certified = self.certified.as_ref().filter(usable);
        let presented = certified.map(|_| self.presented.clone());
        // Outside of a handshake of ours there is nobody to tell.
        let _ = CURRENT.try_with(|handshake| {
            handshake.requested(root_hint_subjects, &self.issuers, presented);
        });
        certified.map(Arc::clone)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Without the key.
impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver")
            .field("presented", &self.presented)
            .finish_non_exhaustive()
    }
}
