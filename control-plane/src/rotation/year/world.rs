//! The world around the control plane: receivers with what they trust and when they are down or
//! stubborn, agents that come and go, key-encryption keys that do not answer.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use countersign_shared::{
    class::FailureClass,
    name::{DestinationName, Id},
    time::Timestamp,
};

use super::{
    super::testing::{DAY, HOUR, MINUTE, START},
    dice::{Dice, Spans, within},
};
use crate::model::{AuthorityOwner, ClientCertificate, DestinationKey, TrustModel};

/// How long the year is.
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Where the agents are.
pub(super) const REGIONS: usize = 3;
/// Agents of one region.
const AGENTS: usize = 2;
/// What happens to their authorities: nothing; a rotation; one that is given up, and another one; the
/// first generation is revoked.
pub(super) const ACCOUNTS: [&str; 4] = ["steady", "rotated", "aborted", "revoked"];

/// When authorities are changed.
pub(super) const PREPARED: Timestamp = days(120);
pub(super) const ISSUING: Timestamp = days(140);
pub(super) const GIVEN_UP: Timestamp = days(150);
pub(super) const PREPARED_AGAIN: Timestamp = days(230);
pub(super) const ISSUING_AGAIN: Timestamp = days(240);
pub(super) const REVOKED: Timestamp = days(200);
/// Until then the receivers that will have installed the newest trust anchor.
pub(super) const INSTALLED: Timestamp = days(290);

const fn days(days: i64) -> Timestamp {
    Timestamp::from_unix_micros(START.as_unix_micros() + days * 24 * 3600 * 1_000_000)
}

/// What a receiver does with certificates that were issued after it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stubborn {
    /// Refuses them in the handshake.
    Refuses,
    /// Takes them and answers 403.
    Forbids,
    /// Takes them in probes and refuses them in deliveries.
    RefusesDeliveries,
}

/// What is presented.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) version: u32,
    pub(super) serial: String,
    pub(super) issued_at: Timestamp,
    pub(super) not_after: Timestamp,
    /// Generation of the authority; `None` for the receiver's own.
    generation: Option<u32>,
    /// Generation that signed the cross certificate in the chain.
    crossed_by: Option<u32>,
}

/// The certificates in a bundle.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) generation: u64,
    pub(super) active: Seen,
    pub(super) fallback: Option<Seen>,
    pub(super) candidate: Option<Seen>,
}

/// One receiver, and its destination.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) name: DestinationName,
    pub(super) key: Option<DestinationKey>,
    pub(super) created_at: Timestamp,
    pub(super) trust_model: TrustModel,
    pub(super) account: usize,
    pub(super) region: usize,
    down: Spans,
    pub(super) stubborn: Vec<(Timestamp, Timestamp, Stubborn)>,
    /// Which generations it trusts since when.
    trusts: Vec<(Timestamp, Vec<u32>)>,
    /// Answers 403 to every request of a probe.
    pub(super) forbids_probes: bool,
    /// What was presented when it became stubborn.
    pub(super) last_good: Option<Seen>,
}

/// One agent.
#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) region: usize,
    offline: Spans,
    /// Takes no new bundles.
    sick: Spans,
    pub(super) bundles: HashMap<DestinationName, Held>,
}

/// All of it.
pub(super) struct World {
    pub(super) receivers: Vec<Receiver>,
    pub(super) places: HashMap<DestinationName, usize>,
    pub(super) agents: Vec<Agent>,
    /// When no key opens.
    pub(super) locked: Spans,
    /// What agents were told to stop using; it is on revocation lists.
    pub(super) stopped: HashSet<String>,
    /// Generation that signed a cross certificate.
    pub(super) crossed_by: HashMap<(AuthorityOwner, u32), u32>,
    pub(super) probes: usize,
    pub(super) dice: Dice,
}

impl World {
    pub(super) fn new(count: usize, mut dice: Dice) -> Self {
        let receivers: Vec<Receiver> = (0..count).map(|at| Receiver::new(at, &mut dice)).collect();
        let agents = (0..REGIONS * AGENTS).map(|at| Agent {
            region: at % REGIONS,
            offline: dice.spans(8, START, YEAR, (5 * MINUTE, 2 * DAY)),
            sick: dice.spans(3, START, YEAR, (5 * MINUTE, DAY)),
            bundles: HashMap::new(),
        });
        let agents = agents.collect();
        let places = receivers.iter().enumerate();
        Self {
            places: places.map(|(at, it)| (it.name.clone(), at)).collect(),
            receivers,
            agents,
            locked: dice.spans(6, START, YEAR, (HOUR, 30 * HOUR)),
            stopped: HashSet::new(),
            crossed_by: HashMap::new(),
            probes: 0,
            dice,
        }
    }

    pub(super) fn receiver(&self, name: &DestinationName) -> &Receiver {
        &self.receivers[self.places[name]]
    }

    /// Agents of a region that are connected, by their places.
    pub(super) fn online(&self, region: usize, now: Timestamp) -> Vec<usize> {
        let all = self.agents.iter().enumerate();
        all.filter(|(_, it)| it.region == region && !within(&it.offline, now))
            .map(|(at, _)| at)
            .collect()
    }

    /// What agents and receivers see of a certificate.
    pub(super) fn seen(&self, name: &DestinationName, it: &ClientCertificate) -> Seen {
        let owner = match it.trust_model {
            TrustModel::Shared => AuthorityOwner::Shared,
            _ => AuthorityOwner::Account(name.account_name()),
        };
        let crossed_by = it.issuer_generation.filter(|_| !it.chain.is_empty());
        let crossed_by = crossed_by.map(|generation| self.crossed_by[&(owner, generation)]);
        Seen {
            version: it.version,
            serial: it.serial.clone(),
            issued_at: it.not_before.plus(10 * MINUTE),
            not_after: it.not_after,
            generation: it.issuer_generation,
            crossed_by,
        }
    }

    /// Whether anything hindered the rotation of this destination between two times.
    pub(super) fn troubled(&self, at: usize, from: Timestamp, until: Timestamp) -> bool {
        let receiver = &self.receivers[at];
        let meets = |spans: &Spans| spans.iter().any(|span| span.0 <= until && from < span.1);
        let mut agents = self.agents.iter().filter(|it| it.region == receiver.region);
        let mut stubborn = receiver.stubborn.iter();
        meets(&receiver.down)
            || meets(&self.locked)
            || stubborn.any(|span| span.0 <= until && from < span.1)
            || agents.any(|agent| meets(&agent.offline) || meets(&agent.sick))
            || receiver.untrusting().is_some_and(|span| meets(&vec![span]))
    }

    /// How a receiver answers; `alone`: in a probe without the chain.
    pub(super) fn judge(
        &self,
        receiver: &Receiver,
        it: &Seen,
        probe: bool,
        alone: bool,
        now: Timestamp,
    ) -> FailureClass {
        use FailureClass as Class;
        let (_, trusted) = receiver
            .trusts
            .iter()
            .rfind(|(since, _)| *since <= now)
            .unwrap();
        let cross = it.crossed_by.filter(|_| !alone);
        let trusts = |generation: u32| trusted.contains(&generation);
        let mut stubborn = receiver.stubborn.iter();
        let stubborn = stubborn.find(|(from, until, _)| *from <= now && now < *until);
        let stubborn = stubborn.filter(|(from, ..)| it.issued_at > *from);
        match stubborn.map(|(_, _, how)| *how) {
            _ if within(&receiver.down, now) => Class::ConnectionRefused,
            _ if it.not_after <= now => Class::ClientCertificateExpired,
            _ if self.stopped.contains(&it.serial) => Class::ClientCertificateRevoked,
            _ if !it.generation.is_none_or(trusts) && !cross.is_some_and(trusts) => {
                Class::ClientCaNotTrusted
            }
            Some(Stubborn::Refuses) => Class::ClientCertificateRejected,
            Some(Stubborn::Forbids) => Class::ClientIdentityForbidden,
            Some(Stubborn::RefusesDeliveries) if !probe => Class::ClientCertificateRejected,
            _ if probe && receiver.forbids_probes => Class::ClientIdentityForbidden,
            _ => Class::Delivered,
        }
    }
}

impl Agent {
    /// Takes new bundles.
    pub(super) fn is_well(&self, now: Timestamp) -> bool {
        !within(&self.sick, now)
    }
}

impl Receiver {
    fn new(at: usize, dice: &mut Dice) -> Self {
        let account = at % ACCOUNTS.len();
        let created_at = START.plus(dice.between(Duration::ZERO, 60 * DAY));
        let id = |text: &str| Id::chosen(text).unwrap();
        let trust_model = match at % 20 {
            6 => TrustModel::Customer,
            13 => TrustModel::Shared,
            _ => TrustModel::Dedicated,
        };
        let outages = dice.below(4);
        let how = [
            Stubborn::Refuses,
            Stubborn::Refuses,
            Stubborn::Forbids,
            Stubborn::RefusesDeliveries,
        ][dice.below(4)];
        let lasts = match dice.percent(10) {
            true => YEAR,
            false => dice.between(DAY, 45 * DAY),
        };
        let from = created_at.plus(dice.between(DAY, 300 * DAY));
        let stubborn = dice.percent(12).then(|| (from, from.plus(lasts), how));
        Self {
            name: DestinationName::new(&id(ACCOUNTS[account]), &id(&format!("to-{at}"))),
            key: None,
            created_at,
            trust_model,
            account,
            region: at % REGIONS,
            down: dice.spans(outages, START, YEAR, (5 * MINUTE, 4 * DAY)),
            stubborn: Vec::from_iter(stubborn),
            trusts: trusts(account, trust_model, dice),
            forbids_probes: dice.percent(5),
            last_good: None,
        }
    }

    /// When it did not trust the generation that signs, by itself, though nobody waited for it: its
    /// authority was revoked, or it was made exempt.
    fn untrusting(&self) -> Option<(Timestamp, Timestamp)> {
        let (since, last) = self.trusts.last().unwrap();
        if self.trust_model != TrustModel::Dedicated {
            return None;
        }
        match ACCOUNTS[self.account] {
            "revoked" if *since > REVOKED => Some((REVOKED, *since)),
            "aborted" if !last.contains(&3) => Some((INSTALLED, START.plus(2 * YEAR))),
            "aborted" if *since > INSTALLED => Some((INSTALLED, *since)),
            _ => None,
        }
    }

    pub(super) fn is_up(&self, now: Timestamp) -> bool {
        !within(&self.down, now)
    }
}

/// What a receiver trusts in the course of the year.
fn trusts(account: usize, trust_model: TrustModel, dice: &mut Dice) -> Vec<(Timestamp, Vec<u32>)> {
    let mut all = vec![(START, vec![1])];
    if trust_model != TrustModel::Dedicated {
        return all;
    }
    let late = dice.percent(50);
    let never = late && dice.percent(50);
    let mut install = |from: Timestamp, until: Timestamp, what: &[u32]| {
        let at = from.plus(dice.between(Duration::ZERO, until.since(from)));
        all.push((at, what.to_vec()));
        at
    };
    match ACCOUNTS[account] {
        // In good time, or late: the cross certificate helps until then.
        "rotated" => {
            let both = install(PREPARED, INSTALLED, &[1, 2]);
            install(both.max(ISSUING.plus(60 * DAY)), INSTALLED, &[2]);
        }
        // Some never trust more than the first.
        "aborted" if never => {}
        "aborted" if late => {
            install(INSTALLED, INSTALLED.plus(DAY), &[1, 3]);
        }
        "aborted" => {
            install(PREPARED, ISSUING, &[1, 2]);
            install(PREPARED_AGAIN, INSTALLED, &[1, 3]);
        }
        // Only what the receivers' operators do helps.
        "revoked" => {
            install(REVOKED, REVOKED.plus(20 * DAY), &[2]);
        }
        _ => {}
    }
    all
}
