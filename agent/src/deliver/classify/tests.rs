//! The table of evidence and classes.

use FailureClass as Class;
use countersign_shared::outcome::{Alert, PresentedCertificate};

use super::*;

/// Nothing is wrong with our certificate as far as we know.
const CURRENT: OwnCertificate = OwnCertificate {
    validity: Validity::Current,
    issuer_named: None,
};

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
        own: CURRENT,
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
        (
            Ending::OwnCertificateRevoked,
            Class::ClientCertificateRevoked,
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
            own: CURRENT,
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

/// How a receiver refuses: with a page, an alert, or nothing.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Page,
    Alert(u8),
    Silence,
}

fn refused(refusal: Refusal, own: OwnCertificate) -> Verdict {
    let page = Ending::Answered {
        status: 400,
        page: Some(Page::CertificateError),
    };
    let (ending, record) = match refusal {
        Refusal::Page => (page, presented()),
        Refusal::Alert(number) => (Ending::Lost, with_alert(number)),
        Refusal::Silence => (Ending::Lost, presented()),
    };
    classify(Facts {
        ending,
        record: Some(&record),
        accepted: false,
        own,
    })
}

#[test]
fn what_a_receiver_says_is_compared_with_what_we_know() {
    use Refusal::{Alert, Page, Silence};
    use Validity::{Current, NotYet, Over};
    let (expired, untrusted, rejected, revoked) = (
        Class::ClientCertificateExpired,
        Class::ClientCaNotTrusted,
        Class::ClientCertificateRejected,
        Class::ClientCertificateRevoked,
    );
    for (refusal, validity, issuer_named, class, detail) in [
        (Page, Over, None, expired, detail::ENDED),
        (Page, NotYet, Some(true), rejected, detail::NOT_YET),
        (
            Page,
            Current,
            Some(false),
            untrusted,
            detail::ISSUER_NOT_NAMED,
        ),
        (Page, Current, Some(true), rejected, detail::ISSUER_NAMED),
        (Page, Current, None, rejected, detail::PAGE_ERROR),
        (Silence, Over, Some(true), expired, detail::ENDED),
        (
            Silence,
            Current,
            Some(false),
            untrusted,
            detail::ISSUER_NOT_NAMED,
        ),
        (Silence, Current, Some(true), rejected, detail::ISSUER_NAMED),
        (Silence, Current, None, rejected, detail::REFUSED_SILENTLY),
        (
            Alert(45),
            Current,
            Some(true),
            expired,
            detail::RECEIVER_SAYS_EXPIRED,
        ),
        (Alert(45), Over, None, expired, detail::ENDED),
        (Alert(45), NotYet, Some(true), rejected, detail::NOT_YET),
        (Alert(42), NotYet, None, rejected, detail::NOT_YET),
        (
            Alert(42),
            Current,
            Some(true),
            rejected,
            detail::ISSUER_NAMED,
        ),
        (
            Alert(42),
            Current,
            Some(false),
            untrusted,
            detail::ISSUER_NOT_NAMED,
        ),
        (Alert(46), Current, None, untrusted, detail::BAD_CERTIFICATE),
        (
            Alert(48),
            Current,
            Some(true),
            untrusted,
            detail::ISSUER_NAMED_YET_UNKNOWN,
        ),
        (
            Alert(48),
            Current,
            Some(false),
            untrusted,
            detail::ISSUER_NOT_NAMED,
        ),
        (
            Alert(49),
            Current,
            Some(false),
            untrusted,
            detail::ISSUER_NOT_NAMED,
        ),
        (
            Alert(40),
            Current,
            None,
            rejected,
            detail::REFUSED_WITH_ALERT,
        ),
        // A receiver that says why is believed.
        (Alert(44), Over, Some(false), revoked, detail::NONE),
    ] {
        let own = OwnCertificate {
            validity,
            issuer_named,
        };
        let verdict = refused(refusal, own);
        assert_eq!(
            (verdict.class, verdict.detail),
            (class, detail),
            "{refusal:?} {own:?}"
        );
    }
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
            own: CURRENT,
        };
        assert_eq!(classify(facts).mtls_not_enforced, flagged);
    }
}
