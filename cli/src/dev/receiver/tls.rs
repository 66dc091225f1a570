//! The receiver's side of mutual TLS: it demands a client certificate of one account, takes no
//! other, and tells what it saw.

use std::{io, sync::Arc};

use countersign_shared::tls;
use rustls::{
    CertificateError, Error, HandshakeKind, PeerIncompatible, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection, server::WebPkiClientVerifier,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use super::record::Connection;
use crate::{demo_pki::ServerIdentity, dev::certificate::Certificate};

/// Why there is no TLS configuration.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// A trust anchor or the server's own certificate.
    #[error("the receiver's TLS configuration is refused: {0}")]
    Config(#[from] Error),
    /// The trust anchors as a set.
    #[error("the account's trust anchors are not usable: {0}")]
    Anchors(#[from] rustls::server::VerifierBuilderError),
}

/// TLS 1.3 and 1.2 with `anchors` as the only authorities of client certificates, which are
/// required. HTTP/2 or HTTP/1.1 by ALPN.
///
/// # Errors
/// [`TlsError`].
pub(crate) fn server_config(
    identity: ServerIdentity,
    anchors: &[CertificateDer<'static>],
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
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// What was seen of a connection whose handshake is done; `None` without a client certificate,
/// which [`server_config`] does not let happen.
pub(crate) fn facts(connection: &ServerConnection) -> Option<Connection> {
    let peer = connection.peer_certificates()?.first()?;
    let suite = connection.negotiated_cipher_suite()?.suite();
    let group = connection.negotiated_key_exchange_group();
    Some(Connection {
        peer: Certificate::read(peer)?,
        tls_version: match connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => return None,
        },
        // rustls marks the suites of TLS 1.3; IANA's registry does not.
        cipher_suite: format!("{suite:?}").replacen("TLS13_", "TLS_", 1),
        key_exchange_group: group.map_or_else(String::new, |group| format!("{:?}", group.name())),
        http2: connection.alpn_protocol() == Some(b"h2"),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    })
}

/// Why a handshake failed, in words for people.
pub(crate) fn refusal(error: &io::Error) -> &'static str {
    // `source()` does not reach what an io::Error wraps.
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::NoCertificatesPresented) => "it presented no client certificate",
        Some(Error::InvalidCertificate(reason)) => certificate_refusal(reason),
        Some(Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        )) => "it speaks neither TLS 1.3 nor TLS 1.2",
        Some(Error::AlertReceived(_)) => "it refused this server's certificate or parameters",
        Some(Error::InvalidMessage(_)) => "what it sent is not TLS",
        Some(_) => "the handshake failed",
        None => "it closed the connection during the handshake",
    }
}

fn certificate_refusal(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::UnknownIssuer => "its client certificate is of another authority",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its client certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its client certificate is not yet valid"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for client authentication"
        }
        _ => "its client certificate is not valid",
    }
}
