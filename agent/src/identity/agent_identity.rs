//! Who the agent is: its certificate and key, and the authority by which it knows the control plane,
//! checked to fit together.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use countersign_shared::{
    hpke::{self, PUBLIC_LENGTH},
    name::AgentName,
    secret::SecretBytes,
    time::Timestamp,
    tls::{self, certificate_facts},
};
use rustls::{ClientConfig, RootCertStore, client::WebPkiServerVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::keys;
use crate::transport::{ControlPlaneUrl, tls_builder};

/// The identity in use; a renewed one is used from the next connection on.
pub type Held = Arc<ArcSwap<Identity>>;

/// Who the agent is, whom it trusts, and with what it proves both.
#[derive(Clone)]
pub struct Identity {
    /// Where the control plane is.
    pub control_plane: ControlPlaneUrl,
    /// The authority of the control plane's server certificate.
    pub ca: CertificateDer<'static>,
    /// The agent's name.
    pub agent: AgentName,
    /// The region that it serves.
    pub region: String,
    /// The identity certificate and its chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 in DER.
    pub private_key: SecretBytes,
    /// Start of the certificate's validity.
    pub not_before: Timestamp,
    /// End of the certificate's validity.
    pub not_after: Timestamp,
}

/// What an identity is made of, not yet checked.
#[derive(Debug)]
pub struct Parts {
    /// Where the control plane is.
    pub control_plane: ControlPlaneUrl,
    /// The authority of the control plane's server certificate.
    pub ca: CertificateDer<'static>,
    /// The agent's name.
    pub agent: AgentName,
    /// The region that it serves.
    pub region: String,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 in DER.
    pub private_key: SecretBytes,
}

/// Why parts are no usable identity.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum IdentityError {
    /// No certificate, or not X.509.
    #[error("the identity certificate is not an X.509 certificate")]
    NotACertificate,
    /// A certificate for another key.
    #[error("the identity certificate is not for the agent's key")]
    OtherKey,
    /// An authority that can't verify anything.
    #[error("the control plane's CA certificate is not usable")]
    Authority,
}

impl Identity {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn new(parts: Parts) -> Result<Self, IdentityError> {
        let leaf = parts.chain.first().ok_or(IdentityError::NotACertificate)?;
        let facts = certificate_facts(leaf).ok_or(IdentityError::NotACertificate)?;
        let identity = Self {
            control_plane: parts.control_plane,
            ca: parts.ca,
            agent: parts.agent,
            region: parts.region,
            chain: parts.chain,
            private_key: parts.private_key,
            not_before: facts.not_before,
            not_after: facts.not_after,
        };
        identity.tls()?;
        Ok(identity)
    }

    /// The TLS configuration that presents this identity and trusts the control plane's authority
    /// alone.
    ///
    /// # Errors
    /// [`IdentityError`] when the parts don't fit together.
    pub fn tls(&self) -> Result<ClientConfig, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.ca.clone())
            .map_err(|_| IdentityError::Authority)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
                .build()
                .map_err(|_| IdentityError::Authority)?;
        let key = PrivatePkcs8KeyDer::from(self.private_key.expose().to_vec());
        tls_builder()
            .map_err(|_| IdentityError::Authority)?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), PrivateKeyDer::Pkcs8(key))
            .map_err(|_| IdentityError::OtherKey)
    }

    /// Signs for a key that secrets are sealed to.
    ///
    /// # Errors
    /// When the identity's key does not sign, which does not happen.
    pub fn vouch(&self, sealing_key: &[u8; PUBLIC_LENGTH]) -> Result<Vec<u8>, rcgen::Error> {
        keys::sign(&self.private_key, &hpke::vouched(&self.agent, sealing_key))
    }

    /// Signs a receipt.
    ///
    /// # Errors
    /// As [`Identity::vouch`].
    pub fn sign_receipt(&self, receipt: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        keys::sign(&self.private_key, receipt)
    }

    /// Whether the certificate is within its validity.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// Certificates as they come over the wire.
pub(super) fn der_chain(chain: Vec<bytes::Bytes>) -> Vec<CertificateDer<'static>> {
    let owned = chain
        .into_iter()
        .map(|it| CertificateDer::from(it.to_vec()));
    owned.collect()
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("control_plane", &self.control_plane)
            .field("agent", &self.agent)
            .field("region", &self.region)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_certificate_for_another_key_is_refused_and_debug_shows_no_key() {
        let ca = testing::ca("ca");
        let good = testing::identity(&ca, "https://127.0.0.1:1");
        let other = testing::identity(&ca, "https://127.0.0.1:1");
        let shown = format!("{good:?}");
        assert!(!shown.contains("private"), "{shown}");
        let parts = Parts {
            control_plane: good.control_plane,
            ca: good.ca,
            agent: good.agent,
            region: good.region,
            chain: other.chain,
            private_key: good.private_key,
        };
        assert_eq!(Identity::new(parts).unwrap_err(), IdentityError::OtherKey);
    }
}
