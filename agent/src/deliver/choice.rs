//! Which client certificate an attempt presents, and what its outcome is when it presented two: pure
//! decisions.
//!
//! The outcome is about the active certificate unless the fallback got further: a fallback that is
//! refused as well tells nothing that its user could act on, while the refusal of the active one
//! names what is to be repaired.

use countersign_shared::outcome::CertificateRefusal;

use super::{
    classify::{Verdict, classify},
    credential::Usability,
    exchange::Judged,
    facts::{Ending, Facts, OwnCertificate, Validity},
};

/// One of the two certificates that an attempt may present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The one in use.
    Active,
    /// The one before.
    Fallback,
}

/// What to present first, and what then if that is refused.
pub(super) fn order(
    active: Usability,
    refused_before: bool,
    fallback: Option<Usability>,
) -> (Option<Role>, Option<Role>) {
    let active = (active == Usability::Usable).then_some(Role::Active);
    let fallback = (fallback == Some(Usability::Usable)).then_some(Role::Fallback);
    match (active, fallback) {
        // The active one is the second choice all the same: the receiver may take it by now.
        (Some(_), Some(_)) if refused_before => (fallback, active),
        (Some(_), _) => (active, fallback),
        (None, _) => (fallback, None),
    }
}

/// What is known of the active certificate after an attempt.
pub(super) enum OfActive {
    /// It was presented.
    Tried(Judged),
    /// It was not: it can't be, or was refused by an earlier attempt.
    Known(CertificateRefusal),
}

/// What is known of an active certificate that can't be presented.
pub(super) fn unusable(version: u32, why: Usability) -> CertificateRefusal {
    let ending = match why {
        Usability::Revoked => Ending::OwnCertificateRevoked,
        Usability::Expired | Usability::Usable => Ending::OwnCertificateExpired,
    };
    let own = OwnCertificate {
        validity: Validity::Over,
        issuer_named: None,
    };
    let Verdict { class, detail, .. } = classify(Facts {
        ending,
        record: None,
        accepted: false,
        own,
    });
    CertificateRefusal {
        version,
        class,
        handshake: None,
        detail: detail.into(),
    }
}

/// How an attempt ended.
pub(super) enum Ended {
    /// As this exchange did; with the refusal of the active certificate when it is the fallback's.
    With(Judged, Option<Box<CertificateRefusal>>),
    /// Without an exchange that tells more than what was known.
    As(CertificateRefusal),
}

/// Chooses between the two. `version` is the active certificate's.
pub(super) fn settle(version: u32, active: OfActive, fallback: Option<Judged>) -> Ended {
    let fallback = fallback.filter(|it| !it.refused());
    match (active, fallback) {
        (OfActive::Known(refusal), None) => Ended::As(refusal),
        (OfActive::Known(refusal), Some(fallback)) => {
            Ended::With(fallback, Some(Box::new(refusal)))
        }
        (OfActive::Tried(active), Some(fallback)) if active.refused() => {
            let refusal = CertificateRefusal {
                version,
                class: active.verdict.class,
                handshake: active.record.as_deref().cloned(),
                detail: active.verdict.detail.into(),
            };
            Ended::With(fallback, Some(Box::new(refusal)))
        }
        (OfActive::Tried(active), _) => Ended::With(active, None),
    }
}

/// What later attempts with the bundle should go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lesson {
    /// Present the fallback first: the receiver refused the active one and took the fallback.
    FallbackFirst,
    /// Present the active one first: it was taken, or the fallback fared no better.
    ActiveFirst,
    /// Go on as before.
    Nothing,
}

/// What an attempt teaches that presented both, or one.
pub(super) fn lesson(active: Option<&Judged>, fallback: Option<&Judged>) -> Lesson {
    match (active, fallback) {
        (Some(active), _) if active.taken() => Lesson::ActiveFirst,
        (_, Some(fallback)) if fallback.refused() => Lesson::ActiveFirst,
        (Some(active), Some(fallback)) if active.refused() && fallback.taken() => {
            Lesson::FallbackFirst
        }
        _ => Lesson::Nothing,
    }
}

#[cfg(test)]
mod tests;
