//! What is known of an attempt when it has ended: the evidence that `classify` judges. Errors of
//! libraries end here; what comes after sees only these types.

use countersign_shared::{outcome::HandshakeRecord, time::Timestamp};
use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::egress::Denied;

/// The evidence of one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) ending: Ending,
    /// Of the connection that was used or tried.
    pub(super) record: Option<&'a HandshakeRecord>,
    /// The receiver gave a session to resume. In TLS 1.3 it does so once it has accepted our
    /// certificate.
    pub(super) accepted: bool,
    pub(super) own: OwnCertificate,
}

/// What we know of our own certificate, to compare with what the receiver says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnCertificate {
    /// By the agent's clock.
    pub(super) validity: Validity,
    /// Whether the receiver named one of the authorities in our chain when it asked (RFC 8446
    /// section 4.2.4); `None` when it named none at all.
    pub(super) issuer_named: Option<bool>,
}

/// Where a moment lies in a certificate's validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    /// Before it.
    NotYet,
    /// In it.
    Current,
    /// After it.
    Over,
}

impl Validity {
    pub(super) fn at(now: Timestamp, not_before: Timestamp, not_after: Timestamp) -> Self {
        if now < not_before {
            Self::NotYet
        } else if now < not_after {
            Self::Current
        } else {
            Self::Over
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Our own certificate has expired; nothing was tried.
    OwnCertificateExpired,
    /// The control plane has revoked our own certificate: nothing was tried, or what was under way
    /// was cut off.
    OwnCertificateRevoked,
    /// The host has no address.
    NoAddress,
    /// The host has addresses, and none that the agent may connect to.
    Denied(Denied),
    /// Nothing listens.
    Refused,
    /// No way to the address.
    Unreachable,
    /// The operator's proxy does not answer.
    ProxyUnreachable,
    /// The operator's proxy opened no connection.
    ProxyRefused,
    /// TCP did not connect in time.
    ConnectTimeout,
    /// TCP could not connect for another reason.
    ConnectFailed,
    /// TCP connected; TLS was not answered in time.
    HandshakeTimeout,
    /// The handshake failed before it was complete on our side.
    Tls(TlsFailure),
    /// The receiver did not ask for the client certificate, and must.
    NotEnforced,
    /// The connection broke before the head of an answer.
    Lost,
    /// The connection broke in the middle of the answer.
    AnswerCut,
    /// No whole answer in time.
    AnswerTimeout,
    /// What came back is not HTTP.
    NotHttp,
    /// A whole answer, or as much of it as is read.
    Answered {
        /// The HTTP status.
        status: u16,
        /// What its page says of our certificate.
        page: Option<Page>,
    },
}

/// What a receiver's error page says of the client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// None was sent.
    NoCertificate,
    /// The one that was sent did not verify.
    CertificateError,
}

/// How a TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsFailure {
    /// The receiver sent this alert.
    Alert(u8),
    /// We refused the receiver's certificate.
    Server(ServerProblem),
    /// No common TLS version.
    Version,
    /// Nothing else in common: cipher suite, group, signature.
    Incompatible,
    /// What came back is not TLS.
    NotTls,
    /// The receiver closed or reset the connection.
    Closed,
    /// Anything else.
    Other,
}

/// What is wrong with the receiver's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerProblem {
    /// Past its validity.
    Expired,
    /// Before its validity.
    NotYetValid,
    /// Of an authority that is not trusted.
    UnknownIssuer,
    /// For other names.
    Name,
    /// Revoked.
    Revoked,
    /// Not for servers.
    Purpose,
    /// Malformed, or signed in a way that is not accepted.
    Unusable,
}

/// What a TLS error means.
pub(super) fn tls_failure(error: &Error) -> TlsFailure {
    match error {
        Error::AlertReceived(description) => TlsFailure::Alert(u8::from(*description)),
        Error::InvalidCertificate(problem) => TlsFailure::Server(server_problem(problem)),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => TlsFailure::Version,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsFailure::Incompatible,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => TlsFailure::NotTls,
        _ => TlsFailure::Other,
    }
}

fn server_problem(error: &CertificateError) -> ServerProblem {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ServerProblem::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ServerProblem::NotYetValid
        }
        CertificateError::Revoked => ServerProblem::Revoked,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ServerProblem::UnknownIssuer
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ServerProblem::Name
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            ServerProblem::Purpose
        }
        _ => ServerProblem::Unusable,
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn a_certificate_is_valid_from_its_start_and_not_at_its_end() {
        let at = Timestamp::from_unix_seconds;
        for (now, expected) in [
            (9, Validity::NotYet),
            (10, Validity::Current),
            (19, Validity::Current),
            (20, Validity::Over),
        ] {
            assert_eq!(Validity::at(at(now), at(10), at(20)), expected, "{now}");
        }
    }

    #[test]
    fn library_errors_become_facts() {
        let cases = [
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                TlsFailure::Alert(48),
            ),
            (
                CertificateError::UnknownIssuer.into(),
                TlsFailure::Server(ServerProblem::UnknownIssuer),
            ),
            (
                CertificateError::Revoked.into(),
                TlsFailure::Server(ServerProblem::Revoked),
            ),
            (
                PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into(),
                TlsFailure::Version,
            ),
            (
                PeerIncompatible::NoCipherSuitesInCommon.into(),
                TlsFailure::Incompatible,
            ),
            (
                InvalidMessage::InvalidContentType.into(),
                TlsFailure::NotTls,
            ),
            (Error::DecryptError, TlsFailure::Other),
        ];
        for (error, expected) in cases {
            assert_eq!(tls_failure(&error), expected, "{error}");
        }
    }
}
