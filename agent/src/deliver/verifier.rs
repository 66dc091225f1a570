//! Verification of the receiver's certificate: what rustls' own verifier says, and a note of what
//! was presented, also when it is refused.

use std::sync::{Arc, OnceLock};

use countersign_shared::tls;
use rustls::{
    DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;

use super::handshake::CURRENT;

/// Why no verifier can be made.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum TrustError {
    /// A server CA that is no CA certificate.
    #[error("server_ca_pem: certificate {0} can't be used as an authority")]
    Authority(usize),
    /// Nothing to trust.
    #[error(
        "this agent's host trusts no certificate authority: install its CA certificates \
         (package ca-certificates), or set server_ca_pem of the destination"
    )]
    NoHostAuthorities,
}

/// Verifies as rustls does and records what was presented.
#[derive(Debug)]
pub(super) struct Verifier(Arc<WebPkiServerVerifier>);

impl Verifier {
    /// Trusts `authorities` alone, or those of the host when there are none.
    ///
    /// # Errors
    /// [`TrustError`].
    pub(super) fn new(authorities: &[CertificateDer<'static>]) -> Result<Self, TrustError> {
        let roots = if authorities.is_empty() {
            host_roots()
        } else {
            Arc::new(given_roots(authorities)?)
        };
        let builder = WebPkiServerVerifier::builder_with_provider(roots, tls::provider());
        let verifier = builder.build().map_err(|_| TrustError::NoHostAuthorities)?;
        Ok(Self(verifier))
    }
}

fn given_roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for (at, authority) in authorities.iter().enumerate() {
        let added = roots.add(authority.clone());
        added.map_err(|_| TrustError::Authority(at + 1))?;
    }
    Ok(roots)
}

/// The host's authorities, loaded once: it takes a while, and a change needs a restart, as with
/// other programs.
fn host_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(added, ignored, "loaded the host's certificate authorities");
        Arc::new(roots)
    });
    Arc::clone(roots)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Outside of a handshake of ours there is nobody to tell.
        let _ = CURRENT.try_with(|handshake| {
            handshake.server_presented(end_entity, intermediates);
        });
        self.0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
