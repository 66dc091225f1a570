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

/// What alerts follow for a destination's rotation.
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
    let worth = held_up.filter(|_| enabled);
    let worth = worth.filter(|(held_up, since)| patience_is_over(*held_up, *since, policy, now));
    let verdict = |cause, wanted: Option<HeldUp>| match wanted {
        None => Verdict::Clear(cause, resource.clone()),
        Some(held_up) => Verdict::Raise(Finding {
            cause,
            resource: resource.clone(),
            severity: severity(view, now),
            message: held_up_text(held_up),
        }),
    };
    let worth = worth.map(|(held_up, _)| held_up);
    vec![
        verdict(AlertCause::RotationHeldUp, worth.filter(|it| !upload(*it))),
        verdict(
            AlertCause::ClientCertificateNeeded,
            worth.filter(|it| upload(*it)),
        ),
    ]
}

/// A refusal and a request are for people at once; the rest often passes by itself.
fn patience_is_over(held_up: HeldUp, since: Timestamp, policy: &Policy, now: Timestamp) -> bool {
    match held_up {
        HeldUp::Refused(_) | HeldUp::UploadNeeded => true,
        _ => since.plus(policy.patience) <= now,
    }
}

/// Critical when nothing is presented, or what is presented ends soon.
fn severity(view: &RotationView, now: Timestamp) -> AlertSeverity {
    let mut active = view.certificates.iter();
    let active = active.find(|it| it.state == State::Active);
    let life = |it: &crate::model::ClientCertificate| it.not_after.since(it.not_before);
    // Of short-lived certificates the same share of their life is soon.
    let soon = |it| (life(it) / 13).min(CRITICAL_WITHIN);
    match active {
        Some(active) if active.not_after.since(now) > soon(active) => AlertSeverity::Warning,
        _ => AlertSeverity::Critical,
    }
}
