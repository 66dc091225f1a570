//! What the receiver tells of its side of mutual TLS: what it saw of a connection, and why a
//! handshake failed.

use std::io;

use rustls::{
    CertificateError, Error, HandshakeKind, PeerIncompatible, ProtocolVersion, ServerConnection,
};

use super::record::Connection;
use crate::dev::certificate::Certificate;

/// What was seen of a connection whose handshake is done; `None` without a client certificate,
/// which the configuration does not let happen.
pub(crate) fn facts(connection: &ServerConnection) -> Option<Connection> {
    let (peer, rest) = connection.peer_certificates()?.split_first()?;
    let chain = rest.iter().map(|der| Certificate::read(der));
    let suite = connection.negotiated_cipher_suite()?.suite();
    let group = connection.negotiated_key_exchange_group();
    Some(Connection {
        peer: Certificate::read(peer)?,
        chain: chain.collect::<Option<_>>()?,
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
    inner.map_or("it closed the connection during the handshake", reason)
}

/// Why TLS refused the peer, in words for people.
pub(crate) fn reason(error: &Error) -> &'static str {
    match error {
        Error::NoCertificatesPresented => "it presented no client certificate",
        Error::InvalidCertificate(reason) => certificate_refusal(reason),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "it speaks neither TLS 1.3 nor TLS 1.2",
        Error::AlertReceived(_) => "it refused this server's certificate or parameters",
        Error::InvalidMessage(_) => "what it sent is not TLS",
        _ => "the handshake failed",
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
        CertificateError::Revoked => "its client certificate is revoked",
        CertificateError::ApplicationVerificationFailure => {
            "it refuses this client certificate by a rule of its own"
        }
        _ => "its client certificate is not valid",
    }
}
