//! The client certificate: presented to every receiver that asks, and noted. A resolver that is
//! never called means that the receiver did not ask (RFC 8446 section 4.3.2).

use std::sync::Arc;

use countersign_shared::outcome::PresentedCertificate;
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

use super::handshake::CURRENT;

/// Presents one certificate and notes that it was asked for.
pub(super) struct Resolver {
    pub(super) certified: Arc<CertifiedKey>,
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
        let usable = self.certified.key.choose_scheme(sigschemes).is_some();
        let presented = usable.then(|| self.presented.clone());
        // Outside of a handshake of ours there is nobody to tell.
        let _ = CURRENT.try_with(|handshake| {
            handshake.requested(root_hint_subjects, &self.issuers, presented);
        });
        usable.then(|| Arc::clone(&self.certified))
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
