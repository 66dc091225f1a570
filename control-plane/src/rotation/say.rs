//! What holds a rotation up, in words, and when somebody must hear of it.

use countersign_shared::time::Timestamp;

use super::policy::Policy;
use crate::{
    alerts::{CRITICAL_WITHIN, Verdict},
    model::{
        AlertCause, AlertSeverity, ClientCertificateState as State, DestinationState, Finding,
        HeldUp, RotationView,
    },
};

/// What holds a rotation up and what to do about it.
pub fn held_up_text(held_up: HeldUp) -> String {
    match held_up {
        HeldUp::NoAgent => "No agent that serves this destination is connected, so that the new \
                            client certificate can't be distributed: start an agent."
            .to_owned(),
        HeldUp::NotDurable => "An agent has not said that it holds the new client certificate on \
                               its disk: look at the agent's log."
            .to_owned(),
        HeldUp::Refused(class) => format!(
            "The receiver refuses the new client certificate ({class}); the one before is \
             presented, and the new one is tried again. {}",
            class.resolution()
        ),
        HeldUp::Unreachable(class) => format!(
            "The receiver could not be asked whether it accepts the new client certificate \
             ({class}); the one before is presented. {}",
            class.resolution()
        ),
        HeldUp::UploadNeeded => "The receiver's CA has to sign a certificate request: send it the \
                                 request of GetCertificateSigningRequest, and upload what it signed \
                                 with UploadClientCertificate."
            .to_owned(),
        HeldUp::NotIssued => "No client certificate can be issued: look at the control plane's log."
            .to_owned(),
        HeldUp::NotConfirmed => "The receiver was not yet seen to accept the new client \
                                 certificate since it is presented; the one before is kept."
            .to_owned(),
    }
}

/// Since when a rotation does not go on: trouble of one kind that follows another of the same kind
/// has lasted since that began.
pub(super) fn since(
    before: Option<(HeldUp, Timestamp)>,
    held_up: HeldUp,
    now: Timestamp,
) -> Timestamp {
    let same = before.filter(|(before, _)| {
        *before == held_up
            || match held_up {
                HeldUp::Refused(_) => matches!(before, HeldUp::Refused(_)),
                _ => may_pass(held_up) && may_pass(*before),
            }
    });
    same.map_or(now, |(_, since)| since)
}

/// What alerts follow for a destination's rotation. An alert that is open stays while the rotation is
/// held up, whatever holds it up now, and while the newest certificate may be refused once more.
pub(super) fn verdicts(
    view: &RotationView,
    held_up: Option<(HeldUp, Timestamp)>,
    policy: &Policy,
    now: Timestamp,
) -> Vec<Verdict> {
    let resource = view.destination.name.to_string();
    let upload = |held_up| held_up == HeldUp::UploadNeeded;
    // Nobody waits for deliveries to a destination that is disabled.
    let enabled = view.destination.state == DestinationState::Enabled;
    let held_up = held_up.filter(|_| enabled);
    let clear = |cause| Verdict::Clear(cause, resource.clone());
    let raise = |cause, held_up| {
        Verdict::Raise(Finding {
            cause,
            resource: resource.clone(),
            severity: severity(view, now),
            message: held_up_text(held_up),
        })
    };
    let mut verdicts = Vec::with_capacity(2);
    match held_up.filter(|(held_up, _)| !upload(*held_up)) {
        Some((held_up, since)) if patience_is_over(held_up, since, policy, now) => {
            verdicts.push(raise(AlertCause::RotationHeldUp, held_up));
        }
        None if trial_ends(view, policy).is_none_or(|end| end <= now) => {
            verdicts.push(clear(AlertCause::RotationHeldUp))
        }
        _ => {}
    }
    verdicts.push(match held_up.filter(|(held_up, _)| upload(*held_up)) {
        Some((held_up, _)) => raise(AlertCause::ClientCertificateNeeded, held_up),
        None => clear(AlertCause::ClientCertificateNeeded),
    });
    verdicts
}

/// Until when what is presented is on trial: the receiver refused it in deliveries before and was not
/// yet seen to take it in one. That it took it in a probe says little, and says enough when no delivery
/// comes for a while.
pub(super) fn trial_ends(view: &RotationView, policy: &Policy) -> Option<Timestamp> {
    let mut certificates = view.certificates.iter();
    let active = certificates.find(|it| it.state == State::Active)?;
    let unseen = view.rotation.refusals > 0 && active.confirmed_at.is_none();
    let since = active.activated_at.unwrap_or(active.not_before);
    unseen.then(|| since.plus(policy.patience))
}

fn may_pass(held_up: HeldUp) -> bool {
    !matches!(held_up, HeldUp::Refused(_) | HeldUp::UploadNeeded)
}

/// A refusal and a request are for people at once; the rest often passes by itself.
fn patience_is_over(held_up: HeldUp, since: Timestamp, policy: &Policy, now: Timestamp) -> bool {
    !may_pass(held_up) || since.plus(policy.patience) <= now
}

/// Critical when nothing is presented, or what is presented ends soon.
fn severity(view: &RotationView, now: Timestamp) -> AlertSeverity {
    let mut active = view.certificates.iter();
    let active = active.find(|it| it.state == State::Active);
    let life = |it: &crate::model::ClientCertificate| it.not_after.since(it.not_before);
    // Of short-lived certificates the same share of their life is soon.
    let soon = |it| (life(it) / 90 * 7).min(CRITICAL_WITHIN);
    match active {
        Some(active) if active.not_after.since(now) > soon(active) => AlertSeverity::Warning,
        _ => AlertSeverity::Critical,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use countersign_shared::class::FailureClass as Class;

    use super::{
        super::testing::{DAY, HOUR, LIFE, MINUTE, START, certificate, view},
        *,
    };

    const REFUSED: HeldUp = HeldUp::Refused(Class::ClientCaNotTrusted);
    const DOWN: HeldUp = HeldUp::Unreachable(Class::ConnectionRefused);

    fn judged(view: &RotationView, held_up: Option<HeldUp>, after: Duration) -> Vec<Verdict> {
        let held_up = held_up.map(|it| (it, START));
        verdicts(view, held_up, &Policy::new(LIFE, DAY), START.plus(after))
    }

    fn raised(verdicts: &[Verdict]) -> Vec<(AlertCause, AlertSeverity)> {
        let found = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Raise(finding) => Some((finding.cause, finding.severity)),
            Verdict::Clear(..) => None,
        });
        found.collect()
    }

    fn cleared(verdicts: &[Verdict]) -> Vec<AlertCause> {
        let found = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Raise(_) => None,
            Verdict::Clear(cause, _) => Some(*cause),
        });
        found.collect()
    }

    #[test]
    fn people_hear_of_a_refusal_at_once_and_of_what_may_pass_when_it_does_not() {
        use AlertCause::{ClientCertificateNeeded as Needed, RotationHeldUp as Stuck};
        let all = view(vec![certificate(1, State::Active)]);
        let at_once = [(REFUSED, Stuck), (HeldUp::UploadNeeded, Needed)];
        for (held_up, cause) in at_once {
            let verdicts = judged(&all, Some(held_up), Duration::ZERO);
            assert_eq!(raised(&verdicts), [(cause, AlertSeverity::Warning)]);
        }
        let later = [
            HeldUp::NoAgent,
            HeldUp::NotDurable,
            HeldUp::NotIssued,
            HeldUp::NotConfirmed,
            DOWN,
        ];
        for held_up in later {
            let verdicts = judged(&all, Some(held_up), 59 * MINUTE);
            assert_eq!(raised(&verdicts), [], "{held_up:?}");
            let verdicts = judged(&all, Some(held_up), HOUR);
            assert_eq!(raised(&verdicts), [(Stuck, AlertSeverity::Warning)]);
        }
        assert_eq!(cleared(&judged(&all, None, DAY)), [Stuck, Needed]);
    }

    #[test]
    fn an_alert_stays_until_the_rotation_goes_on() {
        use AlertCause::{ClientCertificateNeeded as Needed, RotationHeldUp as Stuck};
        let mut all = view(vec![
            certificate(2, State::Active),
            certificate(1, State::Retiring),
        ]);
        let verdicts = judged(&all, Some(DOWN), Duration::ZERO);
        assert_eq!(
            cleared(&verdicts),
            [Needed],
            "a refusal may have come before"
        );
        all.rotation.refusals = 1;
        all.certificates[0].activated_at = Some(START.plus(DAY));
        assert_eq!(
            cleared(&judged(&all, None, DAY)),
            [Needed],
            "it may be refused again"
        );
        all.certificates[0].confirmed_at = Some(START);
        assert_eq!(cleared(&judged(&all, None, DAY)), [Stuck, Needed]);
        all.certificates[0].confirmed_at = None;
        let late = judged(&all, None, DAY + Policy::new(LIFE, DAY).patience);
        assert_eq!(cleared(&late), [Stuck, Needed], "no delivery came");
    }

    #[test]
    fn it_is_critical_when_what_is_presented_ends_soon_or_nothing_is() {
        let all = view(vec![certificate(1, State::Active)]);
        let severity =
            |all: &RotationView, after: Duration| raised(&judged(all, Some(REFUSED), after))[0].1;
        assert_eq!(severity(&all, 82 * DAY), AlertSeverity::Warning);
        assert_eq!(severity(&all, 83 * DAY), AlertSeverity::Critical);
        assert_eq!(
            severity(&view(vec![]), Duration::ZERO),
            AlertSeverity::Critical
        );
        let candidate = view(vec![certificate(1, State::Pending)]);
        assert_eq!(
            severity(&candidate, Duration::ZERO),
            AlertSeverity::Critical
        );
    }

    #[test]
    fn trouble_of_one_kind_lasts_through_its_variations() {
        let now = START.plus(DAY);
        let reset = HeldUp::Unreachable(Class::ConnectionTimeout);
        let other = HeldUp::Refused(Class::ClientCertificateRejected);
        let cases = [
            (None, DOWN, now),
            (Some(DOWN), DOWN, START),
            (Some(DOWN), reset, START),
            (Some(HeldUp::NotDurable), HeldUp::NoAgent, START),
            (Some(REFUSED), other, START),
            (Some(REFUSED), DOWN, now),
            (Some(DOWN), REFUSED, now),
            (Some(HeldUp::UploadNeeded), HeldUp::UploadNeeded, START),
            (Some(HeldUp::UploadNeeded), HeldUp::NotDurable, now),
        ];
        for (before, held_up, expected) in cases {
            let before = before.map(|it| (it, START));
            assert_eq!(
                since(before, held_up, now),
                expected,
                "{before:?} {held_up:?}"
            );
        }
    }

    #[test]
    fn every_text_says_what_to_do() {
        let all = [
            (HeldUp::NoAgent, "start an agent"),
            (HeldUp::NotDurable, "look at the agent's log"),
            (REFUSED, Class::ClientCaNotTrusted.resolution()),
            (DOWN, Class::ConnectionRefused.resolution()),
            (HeldUp::UploadNeeded, "UploadClientCertificate"),
            (HeldUp::NotIssued, "look at the control plane's log"),
            (HeldUp::NotConfirmed, "the one before is kept"),
        ];
        for (held_up, expected) in all {
            let text = held_up_text(held_up);
            assert!(text.contains(expected) && !text.contains("  "), "{text}");
        }
    }
}
