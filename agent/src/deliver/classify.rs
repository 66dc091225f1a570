//! From evidence to a class: a pure function. What it adds in words comes from the list below and
//! nowhere else.
//!
//! Mind that in TLS 1.3 the handshake is complete on our side before the receiver has judged our
//! certificate: the same refusal can come as an alert on the first read, or as a closed connection.
//! And nginx says it with a page of status 400.
//!
//! What a receiver says is its view. Where it does not say why it refused, what we know of our own
//! certificate decides: our clock, and whether the receiver named our authority when it asked.

use countersign_shared::{class::FailureClass, outcome::HandshakeRecord};

use super::{
    detail,
    facts::{Ending, Facts, OwnCertificate, Page, ServerProblem, TlsFailure, Validity},
};
use crate::egress::Denied;

/// What an attempt or a probe ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) class: FailureClass,
    /// The receiver did not ask for the client certificate and got the payload all the same.
    pub(super) mtls_not_enforced: bool,
    pub(super) detail: &'static str,
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
        Ending::OwnCertificateRevoked => {
            verdict(Class::ClientCertificateRevoked, detail::OWN_REVOKED)
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
        Ending::Tls(failure) => handshake_failed(failure, record, facts.own),
        Ending::NotEnforced => verdict(Class::MtlsNotEnforced, detail::NOT_ASKED),
        Ending::Lost => lost(record, facts),
        Ending::AnswerCut => verdict(Class::ConnectionLost, detail::CUT),
        Ending::AnswerTimeout => plain(Class::RequestTimeout),
        Ending::NotHttp => verdict(Class::HttpServerError, detail::NOT_HTTP),
        Ending::Answered { status, page } => answered(status, page, record, facts.own),
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
fn handshake_failed(failure: TlsFailure, record: &HandshakeRecord, own: OwnCertificate) -> Verdict {
    use FailureClass as Class;
    match failure {
        TlsFailure::Alert(number) => alert(number, record, own),
        TlsFailure::Server(problem) => server(problem),
        TlsFailure::Version => plain(Class::TlsVersionUnsupported),
        TlsFailure::Incompatible => verdict(Class::TlsHandshakeFailed, detail::NOTHING_IN_COMMON),
        TlsFailure::NotTls => verdict(Class::TlsHandshakeFailed, detail::NOT_TLS),
        TlsFailure::Closed if record.presented.is_some() => {
            unexplained(own, detail::REFUSED_SILENTLY)
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
fn alert(number: u8, record: &HandshakeRecord, own: OwnCertificate) -> Verdict {
    use FailureClass as Class;
    let asked = record.client_certificate_requested;
    match number {
        44 => plain(Class::ClientCertificateRevoked),
        45 => expired(own),
        48 => not_trusted(own),
        42 | 46 if asked => bad_certificate(own),
        41 | 116 => plain(Class::ClientCertificateRequired),
        _ if record.presented.is_some() => unexplained(own, detail::REFUSED_WITH_ALERT),
        // Asked for, and our key can't make a signature that the receiver takes.
        40 if asked => plain(Class::ClientCertificateRequired),
        70 => plain(Class::TlsVersionUnsupported),
        _ => verdict(Class::TlsHandshakeFailed, detail::ALERT),
    }
}

/// The receiver says that our certificate has expired. Several say so of one that is not yet valid,
/// and of any when their own revocation list has expired.
fn expired(own: OwnCertificate) -> Verdict {
    use FailureClass as Class;
    match own.validity {
        Validity::NotYet => verdict(Class::ClientCertificateRejected, detail::NOT_YET),
        Validity::Current => verdict(
            Class::ClientCertificateExpired,
            detail::RECEIVER_SAYS_EXPIRED,
        ),
        Validity::Over => verdict(Class::ClientCertificateExpired, detail::ENDED),
    }
}

/// The receiver says that it does not know our authority.
fn not_trusted(own: OwnCertificate) -> Verdict {
    let detail = match own.issuer_named {
        Some(true) => detail::ISSUER_NAMED_YET_UNKNOWN,
        Some(false) => detail::ISSUER_NOT_NAMED,
        None => detail::NONE,
    };
    verdict(FailureClass::ClientCaNotTrusted, detail)
}

/// The receiver says that our certificate is bad: most often it lacks the trust anchor.
fn bad_certificate(own: OwnCertificate) -> Verdict {
    match (own.validity, own.issuer_named) {
        (Validity::Current, None) => {
            verdict(FailureClass::ClientCaNotTrusted, detail::BAD_CERTIFICATE)
        }
        _ => unexplained(own, detail::BAD_CERTIFICATE),
    }
}

/// The receiver refused our certificate and did not say why: what do we know of it ourselves?
fn unexplained(own: OwnCertificate, otherwise: &'static str) -> Verdict {
    use FailureClass as Class;
    match (own.validity, own.issuer_named) {
        (Validity::Over, _) => verdict(Class::ClientCertificateExpired, detail::ENDED),
        (Validity::NotYet, _) => verdict(Class::ClientCertificateRejected, detail::NOT_YET),
        (_, Some(false)) => verdict(Class::ClientCaNotTrusted, detail::ISSUER_NOT_NAMED),
        (_, Some(true)) => verdict(Class::ClientCertificateRejected, detail::ISSUER_NAMED),
        (_, None) => verdict(Class::ClientCertificateRejected, otherwise),
    }
}

/// The connection broke before an answer began.
fn lost(record: &HandshakeRecord, facts: Facts<'_>) -> Verdict {
    use FailureClass as Class;
    let fresh = !record.connection_reused;
    // In TLS 1.2 a complete handshake means that the receiver has judged the certificate.
    let unjudged = fresh
        && !record.resumed
        && !facts.accepted
        && record.presented.is_some()
        && record.tls_version.as_deref() != Some("TLSv1.2");
    match &record.alert {
        Some(sent) if about_certificate(sent.number) || unjudged => {
            alert(sent.number, record, facts.own)
        }
        Some(_) => verdict(Class::ConnectionLost, detail::ALERT),
        None if unjudged => unexplained(facts.own, detail::REFUSED_SILENTLY),
        None => plain(Class::ConnectionLost),
    }
}

/// Alerts that can only be about a certificate of the other side.
fn about_certificate(number: u8) -> bool {
    matches!(number, 41..=46 | 48 | 49 | 116)
}

fn answered(
    status: u16,
    page: Option<Page>,
    record: &HandshakeRecord,
    own: OwnCertificate,
) -> Verdict {
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
        (400, Some(Page::CertificateError)) | (495, _) => unexplained(own, detail::PAGE_ERROR),
        (403, _) if record.presented.is_some() => plain(Class::ClientIdentityForbidden),
        (410, _) => plain(Class::HttpGone),
        (429, _) => plain(Class::HttpRateLimited),
        (400..=499, _) => plain(Class::HttpClientError),
        _ => plain(Class::HttpServerError),
    }
}

#[cfg(test)]
mod tests;
