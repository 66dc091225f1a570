//! Trust by a pin, for the one call that is made before the control plane's CA is known: the join
//! token carries the SHA-256 of its public key. The server must present that CA, and its own
//! certificate must verify against it alone.

use std::sync::{Arc, OnceLock};

use countersign_shared::{secret, tls};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Verifies a server by the pin of its authority, and remembers that authority.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
    authority: OnceLock<CertificateDer<'static>>,
    presented_other: OnceLock<()>,
}

impl PinVerifier {
    pub(super) fn new(pin: [u8; 32]) -> Self {
        Self {
            pin,
            provider: tls::provider(),
            authority: OnceLock::new(),
            presented_other: OnceLock::new(),
        }
    }

    /// The authority that a server was verified against.
    pub(super) fn authority(&self) -> Option<CertificateDer<'static>> {
        self.authority.get().cloned()
    }

    /// A server presented no authority with the pinned key.
    pub(super) fn saw_another_authority(&self) -> bool {
        self.presented_other.get().is_some()
    }

    fn find(&self, chain: &[CertificateDer<'_>]) -> Option<CertificateDer<'static>> {
        let pinned = chain.iter().find(|certificate| {
            tls::certificate_facts(certificate)
                .is_some_and(|facts| secret::equal(&facts.public_key_sha256, &self.pin))
        });
        pinned.map(|certificate| certificate.clone().into_owned())
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Only what came with the leaf can be its authority: a leaf with the pinned key is no CA.
        let Some(authority) = self.find(intermediates) else {
            // Set once is enough; a second time says the same.
            let _ = self.presented_other.set(());
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let _ = self.authority.set(authority);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType};

    use super::super::testing::{self, Ca};
    use super::*;

    fn server_leaf(ca: &Ca) -> CertificateDer<'static> {
        let mut parameters =
            testing::leaf_parameters("server", ExtendedKeyUsagePurpose::ServerAuth);
        parameters.subject_alt_names = vec![SanType::DnsName("cp.example".try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        parameters.signed_by(&key, ca).unwrap().der().clone()
    }

    fn pin(ca: &Ca) -> [u8; 32] {
        tls::certificate_facts(ca.der()).unwrap().public_key_sha256
    }

    fn verify(
        verifier: &PinVerifier,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &'static str,
    ) -> Result<ServerCertVerified, Error> {
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        verifier.verify_server_cert(leaf, chain, &name, &[], now)
    }

    #[test]
    fn only_the_pinned_authority_and_its_own_leaves_pass() {
        let (ours, theirs) = (testing::ca("ours"), testing::ca("theirs"));
        let (our_leaf, their_leaf) = (server_leaf(&ours), server_leaf(&theirs));

        let verifier = PinVerifier::new(pin(&ours));
        let chain = [ours.der().clone()];
        assert!(verify(&verifier, &our_leaf, &chain, "other.example").is_err());
        assert!(verifier.authority().is_none());
        verify(&verifier, &our_leaf, &chain, "cp.example").unwrap();
        assert_eq!(verifier.authority().as_ref(), Some(ours.der()));
        assert!(!verifier.saw_another_authority());

        // Another control plane; one that shows our public CA certificate but has no leaf of it;
        // one that does not present its CA at all.
        let verifier = PinVerifier::new(pin(&ours));
        assert!(
            verify(
                &verifier,
                &their_leaf,
                &[theirs.der().clone()],
                "cp.example"
            )
            .is_err()
        );
        assert!(verifier.saw_another_authority());
        assert!(verify(&verifier, &their_leaf, &chain, "cp.example").is_err());
        assert!(verify(&verifier, &our_leaf, &[], "cp.example").is_err());
        assert!(verifier.authority().is_none());
    }
}
