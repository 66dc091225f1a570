//! A receiver's TLS configuration: it demands a client certificate of the authorities that it is
//! given, that is on no list of revoked ones, and takes no other.

use std::{collections::BTreeSet, sync::Arc};

use countersign_shared::tls::{certificate_facts, provider};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use thiserror::Error;

use crate::demo_pki::ServerIdentity;

/// HTTP/2 (RFC 9113).
pub(crate) const HTTP_2: &[u8] = b"h2";
/// HTTP/1.1 (RFC 9112).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// Why there is no TLS configuration.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// A trust anchor or the server's own certificate.
    #[error("the receiver's TLS configuration is refused: {0}")]
    Config(#[from] rustls::Error),
    /// The trust anchors and revocation lists as a set.
    #[error("the trust anchors or revocation lists are not usable: {0}")]
    Anchors(#[from] rustls::server::VerifierBuilderError),
}

/// What a client has to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// The authorities that may have signed its certificate; one at least.
    pub(crate) anchors: Vec<CertificateDer<'static>>,
    /// Lists of revoked certificates (RFC 5280 section 5). Without any, nothing is held to be
    /// revoked; with one, there has to be one of every authority that signs client certificates.
    pub(crate) lists: Vec<CertificateRevocationListDer<'static>>,
    /// Serial numbers, in lower-case hexadecimal, that are refused although nothing is wrong with
    /// them, as by a rule that somebody forgot.
    pub(crate) barred: BTreeSet<String>,
}

impl Demand {
    /// A certificate of one of `anchors`.
    pub(crate) fn signed_by(anchors: &[CertificateDer<'static>]) -> Self {
        Self {
            anchors: anchors.to_vec(),
            ..Self::default()
        }
    }
}

/// TLS 1.3 and 1.2 with a client certificate that fulfils `demand`. `alpn` are the protocols that are
/// offered (RFC 7301), the preferred one first. Sessions of another configuration are not resumed.
///
/// # Errors
/// [`TlsError`].
pub(crate) fn server_config(
    identity: &ServerIdentity,
    demand: &Demand,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier(demand)?)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// Verifies that a client certificate fulfils `demand`.
///
/// # Errors
/// [`TlsError`].
pub(crate) fn verifier(demand: &Demand) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for anchor in &demand.anchors {
        roots.add(anchor.clone())?;
    }
    let roots = Arc::new(roots);
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if !demand.lists.is_empty() {
        verifier = verifier
            .with_crls(demand.lists.iter().cloned())
            .only_check_end_entity_revocation();
    }
    Ok(Arc::new(Bars {
        verifier: verifier.build()?,
        barred: demand.barred.clone(),
    }))
}

/// Verifies as WebPKI does, and refuses some serial numbers on top of that.
#[derive(Debug)]
struct Bars {
    verifier: Arc<dyn ClientCertVerifier>,
    barred: BTreeSet<String>,
}

impl ClientCertVerifier for Bars {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now)?;
        match certificate_facts(end_entity) {
            Some(facts) if !self.barred.contains(&facts.serial) => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
