//! The tables of what is presented, and of what an attempt says that presented two.

use FailureClass as Class;
use Usability::{Expired, Revoked, Usable};
use countersign_shared::{class::FailureClass, outcome::AttemptTimings};
use http::StatusCode;

use super::*;
use crate::deliver::response::Head;

const ACTIVE: Option<Role> = Some(Role::Active);
const FALLBACK: Option<Role> = Some(Role::Fallback);

fn judged(class: Class, status: Option<u16>) -> Judged {
    Judged {
        verdict: Verdict {
            class,
            mtls_not_enforced: false,
            detail: "why",
        },
        record: None,
        head: status.map(|status| Head {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
        }),
        timings: AttemptTimings::default(),
        server_chain: Vec::new(),
    }
}

fn delivered() -> Judged {
    judged(Class::Delivered, Some(204))
}

fn untrusted() -> Judged {
    judged(Class::ClientCaNotTrusted, None)
}

fn forbidden() -> Judged {
    judged(Class::ClientIdentityForbidden, Some(403))
}

fn silent() -> Judged {
    judged(Class::RequestTimeout, None)
}

fn remembered() -> CertificateRefusal {
    CertificateRefusal {
        version: 2,
        class: Class::ClientCertificateRevoked,
        handshake: None,
        detail: "".into(),
    }
}

#[test]
fn the_active_certificate_is_first_unless_it_can_t_be_or_was_refused() {
    for (active, refused_before, fallback, expected) in [
        (Usable, false, None, (ACTIVE, None)),
        (Usable, false, Some(Usable), (ACTIVE, FALLBACK)),
        (Usable, false, Some(Expired), (ACTIVE, None)),
        (Usable, false, Some(Revoked), (ACTIVE, None)),
        (Usable, true, Some(Usable), (FALLBACK, ACTIVE)),
        (Usable, true, Some(Revoked), (ACTIVE, None)),
        (Usable, true, None, (ACTIVE, None)),
        (Expired, false, Some(Usable), (FALLBACK, None)),
        (Revoked, true, Some(Usable), (FALLBACK, None)),
        (Expired, false, Some(Expired), (None, None)),
        (Revoked, false, None, (None, None)),
    ] {
        let order = order(active, refused_before, fallback);
        assert_eq!(order, expected, "{active:?} {refused_before} {fallback:?}");
    }
}

#[test]
fn the_outcome_is_the_active_certificate_s_unless_the_fallback_got_further() {
    use OfActive::{Known, Tried};
    // Of which class the outcome is, and of which class the refusal beside it.
    let cases = [
        (Tried(delivered()), None, Class::Delivered, None),
        (
            Tried(untrusted()),
            Some(delivered()),
            Class::Delivered,
            Some(Class::ClientCaNotTrusted),
        ),
        (
            Tried(forbidden()),
            Some(delivered()),
            Class::Delivered,
            Some(Class::ClientIdentityForbidden),
        ),
        (
            Tried(untrusted()),
            Some(silent()),
            Class::RequestTimeout,
            Some(Class::ClientCaNotTrusted),
        ),
        (
            Tried(untrusted()),
            Some(forbidden()),
            Class::ClientCaNotTrusted,
            None,
        ),
        // The fallback was first, and refused.
        (
            Tried(delivered()),
            Some(untrusted()),
            Class::Delivered,
            None,
        ),
        (
            Known(remembered()),
            Some(delivered()),
            Class::Delivered,
            Some(Class::ClientCertificateRevoked),
        ),
        (
            Known(remembered()),
            Some(untrusted()),
            Class::ClientCertificateRevoked,
            None,
        ),
        (
            Known(remembered()),
            None,
            Class::ClientCertificateRevoked,
            None,
        ),
    ];
    for (at, (active, fallback, class, refused)) in cases.into_iter().enumerate() {
        let (got, got_refused) = match settle(2, active, fallback) {
            Ended::With(judged, refusal) => (judged.verdict.class, refusal),
            Ended::As(refusal) => (refusal.class, None),
        };
        assert_eq!(got, class, "{at}");
        assert!(got_refused.as_ref().is_none_or(|it| it.version == 2));
        assert_eq!(got_refused.map(|it| it.class), refused, "{at}");
    }
}

#[test]
fn only_a_fallback_that_was_taken_goes_first_from_then_on() {
    use Lesson::{ActiveFirst, FallbackFirst, Nothing};
    for (active, fallback, expected) in [
        (Some(untrusted()), Some(delivered()), FallbackFirst),
        (
            Some(untrusted()),
            Some(judged(Class::HttpServerError, Some(503))),
            FallbackFirst,
        ),
        (Some(untrusted()), Some(silent()), Nothing),
        (Some(untrusted()), None, Nothing),
        (Some(silent()), None, Nothing),
        (None, Some(delivered()), Nothing),
        (None, None, Nothing),
        (Some(untrusted()), Some(forbidden()), ActiveFirst),
        (None, Some(untrusted()), ActiveFirst),
        (Some(delivered()), Some(untrusted()), ActiveFirst),
        (Some(delivered()), None, ActiveFirst),
    ] {
        let lesson = lesson(active.as_ref(), fallback.as_ref());
        let class = |it: &Option<Judged>| it.as_ref().map(|it| it.verdict.class);
        assert_eq!(
            lesson,
            expected,
            "{:?} {:?}",
            class(&active),
            class(&fallback)
        );
    }
}

#[test]
fn what_can_t_be_presented_says_why() {
    let class = |why| unusable(2, why).class;
    assert_eq!(class(Expired), Class::ClientCertificateExpired);
    assert_eq!(class(Revoked), Class::ClientCertificateRevoked);
}
