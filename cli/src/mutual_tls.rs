//! A receiver's TLS configuration: it demands a client certificate of the authorities that it is
//! given, and takes no other.

use std::sync::Arc;

use countersign_shared::tls;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;
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
    /// The trust anchors as a set.
    #[error("the trust anchors are not usable: {0}")]
    Anchors(#[from] rustls::server::VerifierBuilderError),
}

/// TLS 1.3 and 1.2 with `anchors` as the only authorities of client certificates, which are
/// required. `alpn` are the protocols that are offered (RFC 7301), the preferred one first.
///
/// # Errors
/// [`TlsError`].
pub(crate) fn server_config(
    identity: ServerIdentity,
    anchors: &[CertificateDer<'static>],
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots.add(anchor.clone())?;
    }
    let provider = tls::provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}
