//! What happens in the year, in the order of time, and what must hold at every event.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    future::Future as _,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use countersign_shared::{
    class::FailureClass,
    name::DestinationName,
    time::{Clock as _, ManualClock, Timestamp},
};

use super::{
    super::{
        testing::{DAY, HOUR, LIFE, MINUTE, START, certificate, config},
        *,
    },
    dice::Dice,
    fleet::evidence,
    plane::{Plane, Run},
    world::{
        ACCOUNTS, GIVEN_UP, INSTALLED, ISSUING, ISSUING_AGAIN, PREPARED, PREPARED_AGAIN, REVOKED,
        Stubborn, World, YEAR,
    },
};
use crate::{
    model::{
        AlertCause, AuthorityOwner, AuthorityState, ClientCertificateState as State, HeldUp,
        KeyAlgorithm, RevocationReason, Sealed, Shown, SigningSecret, TrustModel, TrustState,
    },
    store::NewDestination,
};

/// What happens besides rotation itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Created(usize),
    Stubborn(usize),
    Delivery(usize),
    Upload(usize),
    RotatedByHand(usize),
    Revoked(usize),
    OtherKey(usize),
    Restart,
    Prepare(&'static str),
    Advance(&'static str),
    Abort(&'static str),
    RevokeAuthority(&'static str),
    Acknowledge(&'static str),
    Day,
}

/// By then whatever passes has been noticed: the longest wait before a receiver is asked again.
const NOTICED: Duration = Duration::from_secs(9 * 3600);
/// And an alert is gone when the certificate before is.
const GONE: Duration = Duration::from_secs(3 * 24 * 3600);

struct Simulation {
    plane: Plane,
    run: Option<Run>,
    clock: Arc<ManualClock>,
    events: BinaryHeap<Reverse<(Timestamp, Event)>>,
    uploads: HashMap<usize, Timestamp>,
    told: Told,
}

/// Figures of the year.
#[derive(Debug, Default)]
struct Told {
    events: usize,
    looks: usize,
    cut: usize,
    restarts: usize,
    deliveries: usize,
    fallbacks: usize,
    failed: usize,
    alerts: usize,
}

/// Lives through a year with so many destinations.
pub(super) async fn live(count: usize, seed: u64) {
    let clock = Arc::new(ManualClock::at(START));
    let world = World::new(count, Dice::new(seed));
    let (plane, run) = Plane::new(world, Arc::clone(&clock)).await;
    let mut simulation = Simulation {
        plane,
        run: Some(run),
        clock,
        events: BinaryHeap::new(),
        uploads: HashMap::new(),
        told: Told::default(),
    };
    simulation.plan(count);
    simulation.pass().await;
    simulation.look_back(count).await;
    let (told, probes) = (&simulation.told, simulation.run().fleet.world().probes);
    println!("seed {seed}: {count} destinations, {probes} probes, {told:?}");
    assert!(told.deliveries > count && told.looks > count && probes > count);
}

impl Simulation {
    fn at(&mut self, at: Timestamp, event: Event) {
        self.events.push(Reverse((at, event)));
    }

    fn plan(&mut self, count: usize) {
        let world = Arc::clone(&self.plane.world);
        let mut world = world.lock().unwrap();
        for at in 0..count {
            let created = world.receivers[at].created_at;
            self.at(created, Event::Created(at));
            for (from, ..) in &world.receivers[at].stubborn {
                self.events.push(Reverse((*from, Event::Stubborn(at))));
            }
            let first = created.plus(world.dice.between(Duration::ZERO, 10 * DAY));
            self.at(first, Event::Delivery(at));
        }
        let mut some = |share: usize, event: fn(usize) -> Event| {
            for _ in 0..count.div_ceil(share) {
                let at = START.plus(world.dice.between(61 * DAY, YEAR));
                let event = event(world.dice.below(count));
                self.events.push(Reverse((at, event)));
            }
        };
        some(5, Event::RotatedByHand);
        some(20, Event::Revoked);
        some(20, Event::OtherKey);
        for _ in 0..40 {
            let at = START.plus(world.dice.between(Duration::ZERO, YEAR));
            self.events.push(Reverse((at, Event::Restart)));
        }
        drop(world);
        self.at(PREPARED, Event::Prepare("rotated"));
        self.at(ISSUING, Event::Advance("rotated"));
        self.at(PREPARED, Event::Prepare("aborted"));
        self.at(ISSUING, Event::Advance("aborted"));
        self.at(GIVEN_UP, Event::Abort("aborted"));
        self.at(PREPARED_AGAIN, Event::Prepare("aborted"));
        self.at(ISSUING_AGAIN, Event::Advance("aborted"));
        self.at(INSTALLED, Event::Acknowledge("aborted"));
        self.at(REVOKED, Event::RevokeAuthority("revoked"));
        self.at(START.plus(DAY), Event::Day);
    }

    /// From one event to the next.
    async fn pass(&mut self) {
        let end = START.plus(YEAR);
        let (mut last, mut same) = (START, 0);
        loop {
            let due = self.run().store.next_rotation().await.unwrap();
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let now = self.clock.now();
            let next = due.into_iter().chain(event).min().unwrap().max(now);
            if next > end {
                return;
            }
            self.clock.advance(next.since(now));
            same = if next == last { same + 1 } else { 0 };
            assert!(same < 50_000, "time stands still at {next}");
            last = next;
            self.told.events += 1;
            match due.is_some_and(|due| due <= next) {
                true => self.carry_on(next).await,
                false => {
                    if let Some(Reverse((_, event))) = self.events.pop() {
                        self.take(event, next).await;
                    }
                }
            }
        }
    }

    /// Looks at what is due. Now and then the process ends in the middle of it.
    async fn carry_on(&mut self, now: Timestamp) {
        for name in self.run().store.rotations_due(now, 64).await.unwrap() {
            self.told.looks += 1;
            self.run().vault.forget(&name.account_name().to_string());
            let polls = {
                let mut world = self.run().fleet.world();
                let cut = world.dice.percent(2);
                cut.then(|| world.dice.below(25))
            };
            match polls {
                None => self.run().rotations.carry_on(&name).await.unwrap(),
                Some(mut left) => {
                    self.told.cut += 1;
                    let mut work = pin!(self.run().rotations.carry_on(&name));
                    std::future::poll_fn(|context| {
                        if left == 0 {
                            return Poll::Ready(());
                        }
                        left -= 1;
                        work.as_mut().poll(context).map(|done| done.unwrap())
                    })
                    .await;
                }
            }
        }
    }

    fn run(&self) -> &Run {
        self.run
            .as_ref()
            .expect("between two starts nothing happens")
    }

    fn name(&self, at: usize) -> DestinationName {
        self.run().fleet.world().receivers[at].name.clone()
    }

    async fn take(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Created(at) => self.create(at, now).await,
            Event::Stubborn(at) => self.stubborn(at).await,
            Event::Delivery(at) => self.deliver(at, now).await,
            Event::Upload(at) => self.upload(at, now).await,
            Event::RotatedByHand(at) => {
                let name = self.name(at);
                self.run().rotations.rotate(&name).await.unwrap();
            }
            Event::Revoked(at) => self.revoke(at).await,
            Event::OtherKey(at) => {
                let name = self.name(at);
                let mut config = self.run().store.destination(&name).await.unwrap().config;
                config.key_algorithm = KeyAlgorithm::EcdsaP384;
                let changed = self
                    .run()
                    .store
                    .update_destination(&name, config, None, now);
                changed.await.unwrap();
            }
            Event::Restart => {
                self.told.restarts += 1;
                if let Some(run) = self.run.take() {
                    run.stop().await;
                }
                self.run = Some(self.plane.start().await);
            }
            Event::Prepare(id) => self.prepare(id).await,
            Event::Advance(id) => self.advance(id, now).await,
            Event::Abort(id) => {
                self.run().authorities.abort(&owner(id)).await.unwrap();
                self.at(now.plus(DAY), Event::Advance(id));
            }
            Event::RevokeAuthority(id) => self.revoke_authority(id).await,
            Event::Acknowledge(id) => {
                for name in self.names_of(id) {
                    let exempt = TrustState::Exempt;
                    self.run()
                        .authorities
                        .set_trust(&name, exempt)
                        .await
                        .unwrap();
                }
            }
            Event::Day => self.day(now).await,
        }
    }

    fn names_of(&self, id: &str) -> Vec<DestinationName> {
        let world = self.run().fleet.world();
        let all = world
            .receivers
            .iter()
            .filter(|it| ACCOUNTS[it.account] == id && it.trust_model == TrustModel::Dedicated);
        all.map(|it| it.name.clone()).collect()
    }

    async fn create(&mut self, at: usize, now: Timestamp) {
        let (name, mut config) = (self.name(at), config());
        config.trust_model = self.run().fleet.world().receivers[at].trust_model;
        let issued = self
            .run()
            .rotations
            .issuing
            .issue(&name, &config, 1, State::Active);
        let Ok(certificate) = issued.await else {
            // No key opens now: whoever creates it hears so and tries again.
            self.at(now.plus(HOUR), Event::Created(at));
            return;
        };
        let certificate = certificate.map(|mut it| {
            it.activated_at = Some(now);
            it
        });
        let secret = SigningSecret {
            public_key: [0; 32],
            version: 1,
            sealed: Sealed(Vec::new()),
            created_at: now,
            expires_at: None,
        };
        let new = NewDestination {
            name,
            config,
            certificate,
            secret,
            created_at: now,
            look_at: now,
            request: None,
        };
        let made = self.run().store.create_destination(new).await.unwrap();
        self.run().fleet.world().receivers[at].key = Some(made.key);
    }

    /// From now on this receiver refuses what is new: what is presented now is to be kept.
    async fn stubborn(&mut self, at: usize) {
        let name = self.name(at);
        let Ok(view) = self.run().store.rotation(&name).await else {
            return;
        };
        let mut active = view.certificates.iter();
        let active = active.find(|it| it.state == State::Active);
        let mut world = self.run().fleet.world();
        let seen = active.map(|it| world.seen(&name, it));
        world.receivers[at].last_good = seen;
    }

    async fn deliver(&mut self, at: usize, now: Timestamp) {
        let name = self.name(at);
        let key = self.run().fleet.world().receivers[at].key;
        let next = {
            let mut world = self.run().fleet.world();
            let stubborn = world.receivers[at]
                .stubborn
                .iter()
                .any(|(from, until, how)| {
                    *how == Stubborn::RefusesDeliveries
                        && *from <= now.plus(8 * DAY)
                        && now < *until
                });
            // Where only deliveries show it, they have to come before the one before goes.
            match stubborn {
                true => world.dice.between(HOUR, 8 * HOUR),
                false => world.dice.between(HOUR, 16 * DAY),
            }
        };
        self.at(now.plus(next), Event::Delivery(at));
        let (Some(key), Some(delivered)) = (key, self.run().fleet.deliver(&name).await) else {
            return;
        };
        self.told.deliveries += 1;
        let shown = delivered.shown;
        self.told.fallbacks += usize::from(shown.refused.is_some());
        let destination = self.run().store.destination_by_key(key).await.unwrap();
        let evidence = evidence(&destination, shown);
        self.run().rotations.take_in(&evidence).await.unwrap();
        self.probed_before(at, &shown, now);
        if shown.class == FailureClass::Delivered {
            return;
        }
        self.told.failed += 1;
        let view = self.run().store.rotation(&name).await.unwrap();
        let world = self.run().fleet.world();
        let receiver = &world.receivers[at];
        if !delivered.fresh || !receiver.is_up(now) {
            return;
        }
        let kept = receiver.last_good.as_ref().filter(|it| {
            let mut stubborn = receiver.stubborn.iter();
            stubborn.any(|(from, until, _)| *from <= now && now < *until)
                && it.not_after > now
                && !world.stopped.contains(&it.serial)
        });
        assert!(
            kept.is_none_or(
                |it| world.judge(receiver, it, false, false, now) != FailureClass::Delivered
            ),
            "{name} at {now}: {shown:?}, although {kept:?} is good: {view:#?}"
        );
        let well = !world.troubled(at, now.minus(NOTICED), now);
        assert!(
            !well,
            "{name} at {now}: {shown:?} in a world that is well: {view:#?}"
        );
    }

    /// What is refused in a delivery would have been refused in the probe before it was presented,
    /// unless the receiver's probes tell nothing.
    fn probed_before(&self, at: usize, shown: &Shown, now: Timestamp) {
        use FailureClass::{ClientCertificateRejected, ClientIdentityForbidden};
        let Some((version, ClientCertificateRejected | ClientIdentityForbidden)) = shown.refused
        else {
            return;
        };
        let world = self.run().fleet.world();
        let receiver = &world.receivers[at];
        let mut stubborn = receiver.stubborn.iter();
        let tells_nothing = receiver.forbids_probes
            || stubborn.any(|(.., how)| *how == Stubborn::RefusesDeliveries);
        let name = &receiver.name;
        assert!(
            tells_nothing,
            "{name} at {now}: {version} was presented untried: {shown:?}"
        );
    }

    /// The receiver's CA signs after some days.
    async fn upload(&mut self, at: usize, now: Timestamp) {
        self.uploads.remove(&at);
        let name = self.name(at);
        let view = self.run().store.rotation(&name).await.unwrap();
        let request = view.request.expect("it was waited for");
        let mut signed = certificate(request.version, State::Pending);
        signed.trust_model = TrustModel::Customer;
        signed.key_algorithm = request.key_algorithm;
        signed.sealed_key = request.sealed_key;
        signed.issuer_generation = None;
        signed.serial = format!("{:08x}", self.run().fleet.world().dice.below(usize::MAX));
        signed.not_before = now.minus(10 * MINUTE);
        signed.not_after = now.plus(2 * LIFE);
        let uploaded = self.run().store.upload_certificate(&name, signed, now);
        uploaded.await.unwrap();
    }

    async fn revoke(&mut self, at: usize) {
        let name = self.name(at);
        let active = self.run().store.destination(&name).await.unwrap();
        if active.active_certificate != 0 {
            let (version, reason) = (active.active_certificate, RevocationReason::KeyCompromise);
            let rotations = &self.run().rotations;
            rotations.revoke(&name, version, reason).await.unwrap();
        }
    }

    async fn prepare(&mut self, id: &str) {
        let authorities = &self.run().authorities;
        let rotation = match authorities.rotate(&owner(id), None, false).await {
            // What was given up is still being replaced somewhere: no other rotation this year.
            Err(AuthorityError::Blocked(Blocked::UnderWay(_))) => return,
            rotation => rotation.unwrap(),
        };
        assert_eq!(rotation.phase, Phase::Prepared);
        let signs = rotation.generations.iter();
        let signer = signs
            .map(|(it, _)| it)
            .find(|it| it.state == AuthorityState::Active);
        let (new, _) = rotation.generations.last().unwrap();
        assert!(new.cross.is_some());
        let signer = signer.unwrap().generation;
        let made = (owner(id), new.generation);
        self.run().fleet.world().crossed_by.insert(made, signer);
    }

    /// Goes on as soon as the evidence is there.
    async fn advance(&mut self, id: &'static str, now: Timestamp) {
        match self.run().authorities.advance(&owner(id)).await {
            Ok(rotation) if rotation.phase == Phase::Stable => {}
            Err(AuthorityError::Blocked(Blocked::Stable)) => {}
            Ok(_)
            | Err(AuthorityError::Blocked(Blocked::InUse { .. } | Blocked::NotTrusted { .. })) => {
                let given_up = id == "aborted" && now < GIVEN_UP;
                if !given_up {
                    self.at(now.plus(DAY), Event::Advance(id));
                }
            }
            Err(error) => panic!("{id} at {now}: {error}"),
        }
    }

    async fn revoke_authority(&mut self, id: &str) {
        for name in self.names_of(id) {
            // They could not be told by serial number: no agent has acknowledged anything.
            let view = self.run().store.rotation(&name).await.unwrap();
            let serials = view.certificates.into_iter().map(|it| it.serial);
            self.run().fleet.world().stopped.extend(serials);
        }
        let (rotation, names) = self.run().authorities.revoke(&owner(id), 1).await.unwrap();
        assert_eq!(rotation.phase, Phase::Stable);
        assert!(!names.is_empty());
    }

    /// Once a day: what ends soon, and whether alerts tell what is.
    async fn day(&mut self, now: Timestamp) {
        self.at(now.plus(DAY), Event::Day);
        let until = now.plus(crate::alerts::WARN_WITHIN);
        let ending = self.run().store.expiring(until, None, 2000).await.unwrap();
        for item in ending.items {
            if item.cause != AlertCause::ClientCertificateExpires {
                continue;
            }
            let name: DestinationName = item
                .resource
                .rsplit_once("/clientCertificates/")
                .unwrap()
                .0
                .parse()
                .unwrap();
            let world = self.run().fleet.world();
            let at = world.places[&name];
            let customer = world.receivers[at].trust_model == TrustModel::Customer;
            let well = !world.troubled(at, now.minus(LIFE.mul_f64(0.4)), now);
            assert!(
                !well || customer,
                "{} ends soon at {now}, and nothing was the matter",
                item.resource
            );
        }
        let open = self
            .run()
            .store
            .alerts(None, false, 2000)
            .await
            .unwrap()
            .items;
        let mut names: Vec<DestinationName> = Vec::new();
        {
            let mut world = self.run().fleet.world();
            for _ in 0..20 {
                let count = world.receivers.len();
                let at = world.dice.below(count);
                names.push(world.receivers[at].name.clone());
            }
        }
        names.extend(open.iter().map(|it| it.finding.resource.parse().unwrap()));
        for name in names {
            let Ok(view) = self.run().store.rotation(&name).await else {
                continue;
            };
            let is_open = |cause| {
                let mut found = open.iter().map(|it| &it.finding);
                found.any(|it| it.cause == cause && it.resource == name.as_str())
            };
            let stuck = is_open(AlertCause::RotationHeldUp);
            let needed = is_open(AlertCause::ClientCertificateNeeded);
            let held_up = view.rotation.held_up;
            let expected = match held_up.map(|(held_up, _)| held_up) {
                Some(HeldUp::UploadNeeded) => Some(false),
                Some(HeldUp::Refused(_)) => Some(true),
                None if view.rotation.refusals == 0 => Some(false),
                _ => None,
            };
            assert!(
                expected.is_none_or(|it| it == stuck),
                "{name} at {now}: {view:#?}"
            );
            let mut retiring = view.certificates.iter();
            let retiring = retiring.find(|it| it.state == State::Retiring);
            let since = retiring.and_then(|it| it.replaced_at);
            let long = since.filter(|since| since.plus(GONE + DAY) < now);
            let place = self.run().fleet.world().places[&name];
            let well = |since| !self.run().fleet.world().troubled(place, since, now);
            assert!(
                !long.is_some_and(well),
                "{name} at {now} keeps the one before for ever: {view:#?}"
            );
            let waits = matches!(held_up, Some((HeldUp::UploadNeeded, _)));
            assert_eq!(needed, waits, "{name} at {now}: {view:#?}");
            let at = self.run().fleet.world().places[&name];
            if needed && !self.uploads.contains_key(&at) {
                let after = self.run().fleet.world().dice.between(DAY, 20 * DAY);
                self.uploads.insert(at, now.plus(after));
                self.at(now.plus(after), Event::Upload(at));
            }
        }
    }

    /// Every alert of the year had a cause while it was open, and each cause one alert. The authority
    /// that was rotated has one generation, the second, unless a receiver refuses it to the end.
    async fn look_back(&mut self, count: usize) {
        let rotated = self.run().authorities.rotation(&owner("rotated")).await;
        let rotated = rotated.unwrap();
        let mut trust = rotated.trust.iter();
        let refused = trust.any(|it| matches!(it, (TrustState::ProbedRefused, 1..)));
        assert!(rotated.phase == Phase::Stable || refused, "{rotated:?}");
        let mut before = None;
        let mut all = Vec::new();
        loop {
            let page = self.run().store.alerts(before, true, 500).await.unwrap();
            all.extend(page.items);
            match all.last() {
                Some(last) if page.more => before = Some(last.name.clone()),
                _ => break,
            }
        }
        self.told.alerts = all.len();
        all.retain(|it| it.finding.cause == AlertCause::RotationHeldUp);
        let now = self.clock.now();
        let world = self.run().fleet.world();
        for alert in &all {
            let name: DestinationName = alert.finding.resource.parse().unwrap();
            let at = world.places[&name];
            let (opened, resolved) = (alert.created_at, alert.resolved_at.unwrap_or(now));
            let troubled = |from, until| world.troubled(at, from, until);
            assert!(
                troubled(opened.minus(NOTICED), opened),
                "without a cause: {alert:#?}"
            );
            assert!(
                troubled(resolved.minus(GONE), resolved),
                "too long: {alert:#?}"
            );
            let mut others = all
                .iter()
                .filter(|it| it.finding.resource == alert.finding.resource);
            let again = others.find(|it| {
                // Within the hour, what counts is whether there is trouble when it is opened: it may well end
                // soon after.
                let from = resolved.plus(HOUR).min(it.created_at);
                it.created_at > resolved && !troubled(from, it.created_at)
            });
            assert!(again.is_none(), "twice: {alert:#?} {again:#?}");
        }
        assert!(all.len() < count * 2, "{} alerts", all.len());
    }
}

fn owner(id: &str) -> AuthorityOwner {
    AuthorityOwner::Account(format!("accounts/{id}").parse().unwrap())
}
