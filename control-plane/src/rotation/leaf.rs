//! What comes next in the life of a destination's client certificates: a pure decision.
//!
//! A new certificate is issued, lies durably at the agents, is accepted by the receiver in a probe,
//! and only then takes the place of the one before, which stays for a grace period and until the
//! receiver was seen to accept the new one. The last certificate that works is never given up for
//! one that was not seen to work; only when there is nothing left to lose does a new one go in
//! untried.

use std::time::Duration;

use countersign_shared::{class::FailureClass, probe::ProbePresentation, time::Timestamp};

use super::{policy::Policy, say};
use crate::model::{
    AuthorityState, ClientCertificate, ClientCertificateState as State, HeldUp, ProbeNote,
    RotationView, TrustModel, TrustState,
};

/// How soon agents are looked at again at first: they answer within milliseconds.
const SOON: Duration = Duration::from_millis(100);

/// What the connected agents that serve a destination have of its newest bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// None of them is connected.
    NoAgent,
    /// One has not said that it is on its disk.
    Waiting,
    /// All have it on disk.
    Durable,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Issue a certificate.
    Issue,
    /// Make a key and a request for the receiver's CA.
    Request,
    /// The candidate is durable at the agents.
    Distributed(u32),
    /// Present this one from now on.
    Activate(u32),
    /// The receiver refuses the active one: present the one before, and try again later.
    PutBack {
        /// The active one.
        from: u32,
        /// The one before.
        to: u32,
    },
    /// Stop using this one.
    Retire(u32),
    /// This one has ended.
    Expire(u32),
    /// Ask the receiver.
    Probe(u32, ProbePresentation),
    /// The receiver is known to stand so towards a generation.
    Trust(u32, TrustState),
    /// Look again then.
    Wait {
        /// When.
        until: Timestamp,
        /// Why it does not go on; `None` when nothing is the matter.
        held_up: Option<HeldUp>,
    },
}

/// Decides.
pub fn next(view: &RotationView, holding: Holding, policy: &Policy, now: Timestamp) -> Next {
    let leaves = Leaves { view, policy, now };
    leaves
        .ended()
        .or_else(|| leaves.without_active())
        .or_else(|| leaves.refused())
        // A candidate that is held up does not keep the last one from going.
        .or_else(|| {
            leaves
                .replaced()
                .filter(|next| matches!(next, Next::Retire(_)))
        })
        .or_else(|| leaves.candidate(holding))
        .or_else(|| leaves.replaced())
        .or_else(|| leaves.renewal())
        .or_else(|| leaves.trust())
        .unwrap_or_else(|| leaves.wait())
}

struct Leaves<'a> {
    view: &'a RotationView,
    policy: &'a Policy,
    now: Timestamp,
}

impl<'a> Leaves<'a> {
    fn newest(&self, is: impl Fn(State) -> bool) -> Option<&'a ClientCertificate> {
        self.view.certificates.iter().find(|it| is(it.state))
    }

    fn active(&self) -> Option<&'a ClientCertificate> {
        self.newest(|state| state == State::Active)
    }

    fn in_waiting(&self) -> Option<&'a ClientCertificate> {
        let waits =
            |it: &&ClientCertificate| matches!(it.state, State::Pending | State::Distributed);
        let all = || self.view.certificates.iter().filter(waits);
        // An upload can be older than what was issued while another trust model was wanted.
        all().find(|it| self.is_wanted(it)).or_else(|| all().next())
    }

    fn before(&self) -> Option<&'a ClientCertificate> {
        self.newest(|state| state == State::Retiring)
    }

    /// One that waits although a newer one does: it was put back while that was made.
    fn passed_over(&self, candidate: &ClientCertificate) -> Option<&'a ClientCertificate> {
        let mut all = self.view.certificates.iter();
        all.find(|it| {
            matches!(it.state, State::Pending | State::Distributed)
                && it.version != candidate.version
        })
    }

    fn ended(&self) -> Option<Next> {
        let mut ended = self.view.certificates.iter();
        let ended = ended.find(|it| it.not_after <= self.now)?;
        Some(Next::Expire(ended.version))
    }

    /// Nothing is presented, so nothing is delivered: anything is better, and what has worked before
    /// is better than what is untried.
    fn without_active(&self) -> Option<Next> {
        if self.active().is_some() {
            return None;
        }
        let other = self.before().or_else(|| self.in_waiting());
        Some(other.map_or_else(|| self.issue(), |other| Next::Activate(other.version)))
    }

    /// The active certificate was refused where the one before it was not.
    fn refused(&self) -> Option<Next> {
        let refusal = self.view.rotation.refused?;
        let (active, before) = (self.active()?, self.before()?);
        (refusal.version == active.version).then_some(Next::PutBack {
            from: active.version,
            to: before.version,
        })
    }

    /// Brings the next certificate on its way.
    fn candidate(&self, holding: Holding) -> Option<Next> {
        let candidate = self.in_waiting()?;
        if let Some(older) = self.passed_over(candidate) {
            return Some(Next::Retire(older.version));
        }
        if !self.is_wanted(candidate) {
            return Some(Next::Retire(candidate.version));
        }
        // The receiver's CA signs another one only if it is asked to.
        if self.view.rotation.asked && self.issue() == Next::Request {
            return Some(Next::Request);
        }
        if candidate.state == State::Pending {
            return Some(match holding {
                Holding::Durable => Next::Distributed(candidate.version),
                Holding::Waiting => self.soon(HeldUp::NotDurable),
                Holding::NoAgent => self.soon(HeldUp::NoAgent),
            });
        }
        Some(self.probed(candidate))
    }

    /// What the probes of a distributed candidate lead to.
    fn probed(&self, candidate: &ClientCertificate) -> Next {
        let (version, chain) = (candidate.version, ProbePresentation::Chain);
        if self.view.rotation.asked {
            // Somebody has done something about it.
            return Next::Probe(version, chain);
        }
        // What was seen before it was put back does not count any more.
        let refusal = self.view.rotation.refused;
        let put_back = refusal.filter(|refusal| refusal.version == version);
        let note = self.note(version, chain);
        let Some(note) = note.filter(|note| put_back.is_none_or(|it| note.at > it.at)) else {
            let due = put_back.map(|it| it.at.plus(self.backoff(self.view.rotation.refusals)));
            return match (due, put_back) {
                (Some(due), Some(refusal)) if due > self.now => {
                    self.until(due, HeldUp::Refused(refusal.class))
                }
                _ => Next::Probe(version, chain),
            };
        };
        if note.accepted && !forbidden(note) {
            return Next::Activate(version);
        }
        if forbidden(note)
            && let Some(active) = self.active()
        {
            match self.forbidden_to_both(note, active) {
                None => return Next::Probe(active.version, chain),
                Some(true) => return Next::Activate(version),
                Some(false) => {}
            }
        }
        let due = note.at.plus(self.backoff(note.failures));
        if due <= self.now {
            return Next::Probe(version, chain);
        }
        self.until(due, reason(note))
    }

    /// Perhaps the receiver forbids (403) a probe's request whatever is presented: a probe of another
    /// certificate tells, if it is no older. `None` without one.
    fn forbidden_to_both(&self, note: ProbeNote, other: &ClientCertificate) -> Option<bool> {
        let other = self.note(other.version, ProbePresentation::Chain);
        let other = other.filter(|other| other.at >= note.at)?;
        Some(forbidden(other))
    }

    /// Retires the one before, once its time is over and the new one is known to work.
    fn replaced(&self) -> Option<Next> {
        let (active, before) = (self.active()?, self.before()?);
        let over = before
            .replaced_at
            .unwrap_or(self.now)
            .plus(self.policy.grace);
        if over > self.now {
            return None;
        }
        if active.confirmed_at.is_some() {
            return Some(Next::Retire(before.version));
        }
        let chain = ProbePresentation::Chain;
        let since = active.activated_at.unwrap_or(active.not_before);
        let note = self.note(active.version, chain);
        let Some(note) = note.filter(|note| note.at > since) else {
            return Some(Next::Probe(active.version, chain));
        };
        if forbidden(note) {
            match self.forbidden_to_both(note, before) {
                None => return Some(Next::Probe(before.version, chain)),
                Some(true) => return Some(Next::Retire(before.version)),
                Some(false) => {}
            }
        }
        let due = note.at.plus(self.backoff(note.failures));
        Some(match due <= self.now {
            true => Next::Probe(active.version, chain),
            false => self.until(due, HeldUp::NotConfirmed),
        })
    }

    /// Begins a rotation when it is time, when somebody asks, or when another kind is wanted.
    fn renewal(&self) -> Option<Next> {
        let active = self.active()?;
        let due = self.view.rotation.asked
            || !self.is_wanted(active)
            || self.policy.renew_at(active) <= self.now;
        due.then(|| self.issue())
    }

    fn issue(&self) -> Next {
        let (trust_model, key_algorithm) = self.view.wanted();
        let mut open = self.view.request.iter();
        match trust_model {
            TrustModel::Customer if open.any(|it| it.key_algorithm == key_algorithm) => {
                self.later(self.policy.remind, HeldUp::UploadNeeded)
            }
            TrustModel::Customer => Next::Request,
            TrustModel::Dedicated | TrustModel::Shared => Next::Issue,
        }
    }

    /// Whether a certificate is of the kind that is wanted now.
    fn is_wanted(&self, certificate: &ClientCertificate) -> bool {
        let (trust_model, key_algorithm) = self.view.wanted();
        certificate.trust_model == trust_model
            && certificate.key_algorithm == key_algorithm
            && (trust_model == TrustModel::Customer
                || certificate.issuer_generation == self.view.issuing())
    }

    /// While an authority is rotated: does the receiver trust the new generation by itself?
    fn trust(&self) -> Option<Next> {
        let (active, generation) = (self.active()?, self.view.issuing()?);
        let rotates = |(_, state): &(u32, AuthorityState)| {
            matches!(state, AuthorityState::Superseded | AuthorityState::Retiring)
        };
        if !self.is_wanted(active) || !self.view.generations.iter().any(rotates) {
            return None;
        }
        let known = self.view.rotation.trust;
        let known = known.filter(|(known, ..)| *known == generation);
        if known.is_some_and(|(_, state, _)| state.settles()) {
            return None;
        }
        let alone = ProbePresentation::LeafOnly;
        let Some(note) = self.note(active.version, alone) else {
            return Some(Next::Probe(active.version, alone));
        };
        let seen = match (note.accepted, note.class.refuses_client_certificate()) {
            (true, _) => Some(TrustState::ProbedOk),
            (false, true) => Some(TrustState::ProbedRefused),
            // The receiver was not reached, or not trusted: nothing is known.
            (false, false) => None,
        };
        if let Some(seen) = seen
            && known.is_none_or(|(_, state, at)| state != seen && at <= note.at)
        {
            return Some(Next::Trust(generation, seen));
        }
        let due = note.at.plus(self.backoff(note.failures));
        (due <= self.now).then_some(Next::Probe(active.version, alone))
    }

    /// Nothing is to be done: until when?
    fn wait(&self) -> Next {
        let mut until = self.now.plus(self.policy.longest);
        let mut at_latest = |at: Timestamp| {
            if at > self.now {
                until = until.min(at);
            }
        };
        for certificate in &self.view.certificates {
            at_latest(certificate.not_after);
        }
        if let Some(active) = self.active() {
            at_latest(self.policy.renew_at(active));
            if let Some(end) = say::trial_ends(self.view, self.policy) {
                at_latest(end);
            }
            if let Some(note) = self.note(active.version, ProbePresentation::LeafOnly) {
                at_latest(note.at.plus(self.backoff(note.failures)));
            }
        }
        if let Some(before) = self.before() {
            at_latest(
                before
                    .replaced_at
                    .unwrap_or(self.now)
                    .plus(self.policy.grace),
            );
        }
        Next::Wait {
            until,
            held_up: None,
        }
    }

    fn note(&self, version: u32, presentation: ProbePresentation) -> Option<ProbeNote> {
        let notes = self.view.rotation.probes.iter();
        let mut notes = notes.filter(|it| it.version == version && it.presentation == presentation);
        notes.next().copied()
    }

    fn backoff(&self, failures: u32) -> Duration {
        let (first, longest) = self.policy.retry;
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(20));
        first.saturating_mul(doubled).min(longest)
    }

    /// Looks again soon at first, and later the longer it takes.
    fn soon(&self, held_up: HeldUp) -> Next {
        let before = self.view.rotation.held_up;
        let since = before.filter(|(before, _)| *before == held_up);
        let waited = since.map_or(Duration::ZERO, |(_, since)| self.now.since(since));
        let again = (waited / 2).clamp(SOON.min(self.policy.look), self.policy.look);
        self.later(again, held_up)
    }

    fn later(&self, after: Duration, held_up: HeldUp) -> Next {
        self.until(self.now.plus(after), held_up)
    }

    fn until(&self, until: Timestamp, held_up: HeldUp) -> Next {
        // Whatever holds it up, what ends is looked at when it ends.
        let ends = self.view.certificates.iter().map(|it| it.not_after);
        Next::Wait {
            until: ends.fold(until, Timestamp::min),
            held_up: Some(held_up),
        }
    }
}

/// The receiver took the certificate and refused the identity in it, or the request.
fn forbidden(note: ProbeNote) -> bool {
    note.class == FailureClass::ClientIdentityForbidden
}

/// Why a probe that was not accepted holds a rotation up.
fn reason(note: ProbeNote) -> HeldUp {
    match note.class {
        FailureClass::ClientIdentityForbidden => HeldUp::Refused(note.class),
        class if class.refuses_client_certificate() => HeldUp::Refused(class),
        FailureClass::NotAttempted => HeldUp::NoAgent,
        class => HeldUp::Unreachable(class),
    }
}

#[cfg(test)]
mod tests;
