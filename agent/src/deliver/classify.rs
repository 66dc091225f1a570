//! From evidence to a class: a pure function. What it adds in words comes from the list below and
//! nowhere else.
//!
//! Mind that in TLS 1.3 the handshake is complete on our side before the receiver has judged our
//! certificate: the same refusal can come as an alert on the first read, or as a closed connection.
//! And nginx says it with a page of status 400.

use countersign_shared::{class::FailureClass, outcome::HandshakeRecord};

use super::facts::{Ending, Facts, Page, ServerProblem, TlsFailure};
use crate::egress::Denied;

/// What an attempt ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) class: FailureClass,
    /// The receiver did not ask for the client certificate and got the payload all the same.
    pub(super) mtls_not_enforced: bool,
    pub(super) detail: &'static str,
}

/// Texts that say more than the class.
pub(super) mod detail {
    pub(in super::super) const NONE: &str = "";
    pub(in super::super) const OWN_EXPIRED: &str =
        "The agent's copy of the client certificate has expired; nothing was sent.";
    pub(in super::super) const RECEIVER_SAYS_EXPIRED: &str = "The certificate is within its validity by the agent's clock: the receiver's clock may be \
         wrong, or its revocation list stale.";
    pub(in super::super) const BAD_CERTIFICATE: &str = "The alert does not say why: usually the receiver does not have the trust anchor, or takes the \
         certificate to be not yet valid.";
    pub(in super::super) const REFUSED_WITH_ALERT: &str =
        "The receiver sent an alert after the certificate was presented; see the handshake record.";
    pub(in super::super) const REFUSED_SILENTLY: &str = "The receiver closed the new connection right after the certificate was presented, without an \
         alert or an answer.";
    pub(in super::super) const NGINX_ERROR: &str = "The receiver's page says 'The SSL certificate error': it does not have the trust anchor, or \
         holds the certificate to be expired or revoked; its error log says which.";
    pub(in super::super) const NGINX_MISSING: &str =
        "The receiver's page says 'No required SSL certificate was sent'.";
    pub(in super::super) const NOT_ASKED: &str =
        "The receiver sent no CertificateRequest in the handshake.";
    pub(in super::super) const NOT_YET_VALID: &str =
        "The server certificate is not yet valid by the agent's clock.";
    pub(in super::super) const WRONG_PURPOSE: &str =
        "The server certificate is not for servers (extended key usage).";
    pub(in super::super) const UNUSABLE: &str =
        "The server certificate is malformed or signed with an algorithm that is not accepted.";
    pub(in super::super) const NOTHING_IN_COMMON: &str = "The receiver shares no cipher suite, key exchange group or signature algorithm with the agent.";
    pub(in super::super) const NOT_TLS: &str = "What listens at the port does not speak TLS.";
    pub(in super::super) const CLOSED_EARLY: &str =
        "The receiver closed the connection during the handshake.";
    pub(in super::super) const ALERT: &str =
        "The receiver sent an alert; see the handshake record.";
    pub(in super::super) const DENIED_BY_AGENT: &str =
        "The agent's configuration (egress.allow, egress.deny) permits no address of the host.";
    pub(in super::super) const DENIED_BY_DESTINATION: &str = "No address of the host that the agent may connect to is in allowed_ranges of the destination.";
    pub(in super::super) const PROXY_UNREACHABLE: &str =
        "The agent's proxy (egress.proxy) can't be reached.";
    pub(in super::super) const PROXY_REFUSED: &str = "The agent's proxy (egress.proxy) opened no connection to the receiver; the agent's log says why.";
    pub(in super::super) const UNREACHABLE: &str = "There is no route to the address.";
    pub(in super::super) const HANDSHAKE_SILENT: &str =
        "TCP connected, but the TLS handshake was not answered in time.";
    pub(in super::super) const CUT: &str = "The connection broke in the middle of the answer.";
    pub(in super::super) const NOT_HTTP: &str = "The answer is not HTTP.";
}

/// Judges the evidence of one attempt.
pub(super) fn classify(facts: Facts<'_>) -> Verdict {
    use FailureClass as Class;
    let none = HandshakeRecord::default();
    let record = facts.record.unwrap_or(&none);
    match facts.ending {
        Ending::OwnCertificateExpired => {
            verdict(Class::ClientCertificateExpired, detail::OWN_EXPIRED)
        }
        Ending::NoAddress => plain(Class::DnsFailure),
        Ending::Denied(Denied::ByAgent) => verdict(Class::EgressDenied, detail::DENIED_BY_AGENT),
        Ending::Denied(Denied::ByDestination) => {
            verdict(Class::EgressDenied, detail::DENIED_BY_DESTINATION)
        }
        Ending::Refused => plain(Class::ConnectionRefused),
        Ending::Unreachable => verdict(Class::ConnectionTimeout, detail::UNREACHABLE),
        Ending::ProxyUnreachable => verdict(Class::ConnectionTimeout, detail::PROXY_UNREACHABLE),
        Ending::ProxyRefused => verdict(Class::ConnectionTimeout, detail::PROXY_REFUSED),
        Ending::ConnectTimeout => plain(Class::ConnectionTimeout),
        Ending::ConnectFailed => plain(Class::ConnectionLost),
        Ending::HandshakeTimeout => verdict(Class::ConnectionTimeout, detail::HANDSHAKE_SILENT),
        Ending::Tls(failure) => handshake_failed(failure, record),
        Ending::NotEnforced => verdict(Class::MtlsNotEnforced, detail::NOT_ASKED),
        Ending::Lost => lost(record, facts.accepted),
        Ending::AnswerCut => verdict(Class::ConnectionLost, detail::CUT),
        Ending::AnswerTimeout => plain(Class::RequestTimeout),
        Ending::NotHttp => verdict(Class::HttpServerError, detail::NOT_HTTP),
        Ending::Answered { status, page } => answered(status, page, record),
    }
}

fn verdict(class: FailureClass, detail: &'static str) -> Verdict {
    Verdict {
        class,
        mtls_not_enforced: false,
        detail,
    }
}

fn plain(class: FailureClass) -> Verdict {
    verdict(class, detail::NONE)
}

/// The handshake failed before it was complete on our side.
fn handshake_failed(failure: TlsFailure, record: &HandshakeRecord) -> Verdict {
    use FailureClass as Class;
    match failure {
        TlsFailure::Alert(number) => alert(number, record),
        TlsFailure::Server(problem) => server(problem),
        TlsFailure::Version => plain(Class::TlsVersionUnsupported),
        TlsFailure::Incompatible => verdict(Class::TlsHandshakeFailed, detail::NOTHING_IN_COMMON),
        TlsFailure::NotTls => verdict(Class::TlsHandshakeFailed, detail::NOT_TLS),
        TlsFailure::Closed if record.presented.is_some() => {
            verdict(Class::ClientCertificateRejected, detail::REFUSED_SILENTLY)
        }
        TlsFailure::Closed => verdict(Class::TlsHandshakeFailed, detail::CLOSED_EARLY),
        TlsFailure::Other => plain(Class::TlsHandshakeFailed),
    }
}

fn server(problem: ServerProblem) -> Verdict {
    use FailureClass as Class;
    match problem {
        ServerProblem::Expired => plain(Class::ServerCertificateExpired),
        ServerProblem::NotYetValid => {
            verdict(Class::ServerCertificateExpired, detail::NOT_YET_VALID)
        }
        ServerProblem::UnknownIssuer => plain(Class::ServerCaNotTrusted),
        ServerProblem::Name => plain(Class::ServerNameMismatch),
        ServerProblem::Revoked => plain(Class::ServerCertificateRevoked),
        ServerProblem::Purpose => verdict(Class::ServerCaNotTrusted, detail::WRONG_PURPOSE),
        ServerProblem::Unusable => verdict(Class::ServerCaNotTrusted, detail::UNUSABLE),
    }
}

/// The receiver sent an alert, in the handshake or (TLS 1.3) after it.
fn alert(number: u8, record: &HandshakeRecord) -> Verdict {
    use FailureClass as Class;
    let asked = record.client_certificate_requested;
    match number {
        44 => plain(Class::ClientCertificateRevoked),
        45 => verdict(
            Class::ClientCertificateExpired,
            detail::RECEIVER_SAYS_EXPIRED,
        ),
        48 => plain(Class::ClientCaNotTrusted),
        42 | 46 if asked => verdict(Class::ClientCaNotTrusted, detail::BAD_CERTIFICATE),
        41 | 116 => plain(Class::ClientCertificateRequired),
        _ if record.presented.is_some() => {
            verdict(Class::ClientCertificateRejected, detail::REFUSED_WITH_ALERT)
        }
        // Asked for, and our key can't make a signature that the receiver takes.
        40 if asked => plain(Class::ClientCertificateRequired),
        70 => plain(Class::TlsVersionUnsupported),
        _ => verdict(Class::TlsHandshakeFailed, detail::ALERT),
    }
}

/// The connection broke before an answer began.
fn lost(record: &HandshakeRecord, accepted: bool) -> Verdict {
    use FailureClass as Class;
    let fresh = !record.connection_reused;
    // In TLS 1.2 a complete handshake means that the receiver has judged the certificate.
    let unjudged = fresh
        && !record.resumed
        && !accepted
        && record.presented.is_some()
        && record.tls_version.as_deref() != Some("TLSv1.2");
    match &record.alert {
        Some(sent) if about_certificate(sent.number) || unjudged => alert(sent.number, record),
        Some(_) => verdict(Class::ConnectionLost, detail::ALERT),
        None if unjudged => verdict(Class::ClientCertificateRejected, detail::REFUSED_SILENTLY),
        None => plain(Class::ConnectionLost),
    }
}

/// Alerts that can only be about a certificate of the other side.
fn about_certificate(number: u8) -> bool {
    matches!(number, 41..=46 | 48 | 49 | 116)
}

fn answered(status: u16, page: Option<Page>, record: &HandshakeRecord) -> Verdict {
    use FailureClass as Class;
    match (status, page) {
        (200..=299, _) => Verdict {
            class: Class::Delivered,
            mtls_not_enforced: !record.client_certificate_requested,
            detail: detail::NONE,
        },
        (300..=399, _) => plain(Class::HttpRedirect),
        (400, Some(Page::NoCertificate)) | (496, _) => {
            verdict(Class::ClientCertificateRequired, detail::NGINX_MISSING)
        }
        (400, Some(Page::CertificateError)) | (495, _) => {
            verdict(Class::ClientCertificateRejected, detail::NGINX_ERROR)
        }
        (403, _) if record.presented.is_some() => plain(Class::ClientIdentityForbidden),
        (410, _) => plain(Class::HttpGone),
        (429, _) => plain(Class::HttpRateLimited),
        (400..=499, _) => plain(Class::HttpClientError),
        _ => plain(Class::HttpServerError),
    }
}

#[cfg(test)]
mod tests {
    use FailureClass as Class;
    use countersign_shared::outcome::{Alert, PresentedCertificate};

    use super::*;

    fn presented() -> HandshakeRecord {
        HandshakeRecord {
            completed: true,
            client_certificate_requested: true,
            presented: Some(PresentedCertificate {
                version: 1,
                serial: "01".into(),
            }),
            tls_version: Some("TLSv1.3".into()),
            ..HandshakeRecord::default()
        }
    }

    fn with_alert(number: u8) -> HandshakeRecord {
        let name = String::new();
        HandshakeRecord {
            alert: Some(Alert { number, name }),
            ..presented()
        }
    }

    fn class(ending: Ending, record: &HandshakeRecord, accepted: bool) -> Class {
        let facts = Facts {
            ending,
            record: Some(record),
            accepted,
        };
        classify(facts).class
    }

    #[test]
    fn endings_without_a_connection() {
        for (ending, expected) in [
            (
                Ending::OwnCertificateExpired,
                Class::ClientCertificateExpired,
            ),
            (Ending::NoAddress, Class::DnsFailure),
            (Ending::Refused, Class::ConnectionRefused),
            (Ending::Denied(Denied::ByAgent), Class::EgressDenied),
            (Ending::Denied(Denied::ByDestination), Class::EgressDenied),
            (Ending::ProxyUnreachable, Class::ConnectionTimeout),
            (Ending::ProxyRefused, Class::ConnectionTimeout),
            (Ending::Unreachable, Class::ConnectionTimeout),
            (Ending::ConnectTimeout, Class::ConnectionTimeout),
            (Ending::ConnectFailed, Class::ConnectionLost),
            (Ending::HandshakeTimeout, Class::ConnectionTimeout),
            (Ending::NotEnforced, Class::MtlsNotEnforced),
            (Ending::AnswerCut, Class::ConnectionLost),
            (Ending::AnswerTimeout, Class::RequestTimeout),
            (Ending::NotHttp, Class::HttpServerError),
        ] {
            let facts = Facts {
                ending,
                record: None,
                accepted: false,
            };
            assert_eq!(classify(facts).class, expected, "{ending:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_receiver_s_certificate() {
        for (problem, expected) in [
            (ServerProblem::Expired, Class::ServerCertificateExpired),
            (ServerProblem::NotYetValid, Class::ServerCertificateExpired),
            (ServerProblem::UnknownIssuer, Class::ServerCaNotTrusted),
            (ServerProblem::Name, Class::ServerNameMismatch),
            (ServerProblem::Revoked, Class::ServerCertificateRevoked),
            (ServerProblem::Purpose, Class::ServerCaNotTrusted),
            (ServerProblem::Unusable, Class::ServerCaNotTrusted),
        ] {
            let ending = Ending::Tls(TlsFailure::Server(problem));
            assert_eq!(class(ending, &HandshakeRecord::default(), false), expected);
        }
    }

    #[test]
    fn failed_handshakes() {
        let nothing = HandshakeRecord::default();
        for (failure, record, expected) in [
            (TlsFailure::Version, &nothing, Class::TlsVersionUnsupported),
            (
                TlsFailure::Alert(70),
                &nothing,
                Class::TlsVersionUnsupported,
            ),
            (TlsFailure::Alert(40), &nothing, Class::TlsHandshakeFailed),
            (TlsFailure::Alert(112), &nothing, Class::TlsHandshakeFailed),
            (
                TlsFailure::Incompatible,
                &nothing,
                Class::TlsHandshakeFailed,
            ),
            (TlsFailure::NotTls, &nothing, Class::TlsHandshakeFailed),
            (TlsFailure::Closed, &nothing, Class::TlsHandshakeFailed),
            (TlsFailure::Other, &nothing, Class::TlsHandshakeFailed),
            // TLS 1.2: the refusal comes within the handshake.
            (
                TlsFailure::Alert(40),
                &presented(),
                Class::ClientCertificateRejected,
            ),
            (
                TlsFailure::Alert(48),
                &presented(),
                Class::ClientCaNotTrusted,
            ),
            (
                TlsFailure::Alert(45),
                &presented(),
                Class::ClientCertificateExpired,
            ),
            (
                TlsFailure::Closed,
                &presented(),
                Class::ClientCertificateRejected,
            ),
        ] {
            assert_eq!(
                class(Ending::Tls(failure), record, false),
                expected,
                "{failure:?}"
            );
        }
    }

    #[test]
    fn alerts_after_the_handshake() {
        for (number, expected) in [
            (42, Class::ClientCaNotTrusted),
            (43, Class::ClientCertificateRejected),
            (44, Class::ClientCertificateRevoked),
            (45, Class::ClientCertificateExpired),
            (46, Class::ClientCaNotTrusted),
            (48, Class::ClientCaNotTrusted),
            (49, Class::ClientCertificateRejected),
            (80, Class::ClientCertificateRejected),
            (116, Class::ClientCertificateRequired),
        ] {
            assert_eq!(
                class(Ending::Lost, &with_alert(number), false),
                expected,
                "{number}"
            );
        }
        // Once it has accepted the certificate, an internal error is not about it.
        assert_eq!(
            class(Ending::Lost, &with_alert(80), true),
            Class::ConnectionLost
        );
        assert_eq!(
            class(Ending::Lost, &with_alert(44), true),
            Class::ClientCertificateRevoked
        );
    }

    #[test]
    fn a_silent_end_is_a_refusal_only_while_the_certificate_is_unjudged() {
        let fresh = presented();
        let reused = HandshakeRecord {
            connection_reused: true,
            ..presented()
        };
        let older = HandshakeRecord {
            tls_version: Some("TLSv1.2".into()),
            ..presented()
        };
        let resumed = HandshakeRecord {
            resumed: true,
            ..presented()
        };
        let unasked = HandshakeRecord::default();
        for (record, accepted, expected) in [
            (&fresh, false, Class::ClientCertificateRejected),
            (&fresh, true, Class::ConnectionLost),
            (&reused, false, Class::ConnectionLost),
            (&older, false, Class::ConnectionLost),
            (&resumed, false, Class::ConnectionLost),
            (&unasked, false, Class::ConnectionLost),
        ] {
            assert_eq!(
                class(Ending::Lost, record, accepted),
                expected,
                "{record:?}"
            );
        }
    }

    #[test]
    fn answers() {
        let anonymous = HandshakeRecord::default();
        let shown = presented();
        for (status, page, record, expected) in [
            (200, None, &shown, Class::Delivered),
            (204, None, &shown, Class::Delivered),
            (299, Some(Page::CertificateError), &shown, Class::Delivered),
            (301, None, &shown, Class::HttpRedirect),
            (304, None, &shown, Class::HttpRedirect),
            (400, None, &shown, Class::HttpClientError),
            (
                400,
                Some(Page::NoCertificate),
                &shown,
                Class::ClientCertificateRequired,
            ),
            (
                400,
                Some(Page::CertificateError),
                &shown,
                Class::ClientCertificateRejected,
            ),
            (495, None, &shown, Class::ClientCertificateRejected),
            (496, None, &shown, Class::ClientCertificateRequired),
            (403, None, &shown, Class::ClientIdentityForbidden),
            (403, None, &anonymous, Class::HttpClientError),
            (410, None, &shown, Class::HttpGone),
            (429, None, &shown, Class::HttpRateLimited),
            (404, None, &shown, Class::HttpClientError),
            (500, None, &shown, Class::HttpServerError),
            (503, None, &shown, Class::HttpServerError),
            (999, None, &shown, Class::HttpServerError),
        ] {
            let ending = Ending::Answered { status, page };
            assert_eq!(class(ending, record, true), expected, "{status} {page:?}");
        }
    }

    #[test]
    fn a_delivery_to_a_receiver_that_did_not_ask_is_flagged() {
        for (record, flagged) in [(presented(), false), (HandshakeRecord::default(), true)] {
            let facts = Facts {
                ending: Ending::Answered {
                    status: 204,
                    page: None,
                },
                record: Some(&record),
                accepted: true,
            };
            assert_eq!(classify(facts).mtls_not_enforced, flagged);
        }
    }
}
