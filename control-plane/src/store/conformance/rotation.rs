//! How client certificates and authorities are replaced: every step, and what is noted from outside.

use countersign_shared::{
    class::FailureClass,
    name::{AccountName, AgentName, DestinationName},
    probe::ProbePresentation,
    time::Timestamp,
};

use super::{
    at, authority, client_certificate, config, destination_name, id, new_account, new_destination,
};
use crate::{
    model::{
        AuthorityOwner, AuthorityState, BundleAcknowledgement, BundleStatus, CertificateRequest,
        ClientCertificate, ClientCertificateState as State, DestinationConfig, DestinationKey,
        HeldUp, KeyAlgorithm, ProbeNote, RevocationReason, RotationChange, RotationStep,
        RotationView, Sealed, TrustState,
    },
    store::{AuthorityChange, Store, StoreError},
};

/// A destination whose rotation is carried on here.
struct Subject<'a, S> {
    store: &'a S,
    name: DestinationName,
    key: DestinationKey,
}

impl<S: Store> Subject<'_, S> {
    async fn view(&self) -> RotationView {
        self.store.rotation(&self.name).await.unwrap()
    }

    /// Takes a step on the newest view; a second time with the same view changes nothing.
    async fn step(&self, step: RotationStep) -> RotationView {
        let change = RotationChange {
            destination: self.name.clone(),
            epoch: self.view().await.rotation.epoch,
            now: at(20),
            step,
        };
        self.store.change_rotation(change.clone()).await.unwrap();
        let stale = self.store.change_rotation(change).await;
        assert!(matches!(stale, Err(StoreError::Changed(_))), "{stale:?}");
        self.view().await
    }
}

fn states(view: &RotationView) -> Vec<(u32, State)> {
    let certificates = view.certificates.iter();
    certificates.map(|it| (it.version, it.state)).collect()
}

fn account() -> AccountName {
    id("turning").into()
}

fn owner() -> AuthorityOwner {
    AuthorityOwner::Account(account())
}

fn agent() -> AgentName {
    id("edge-1").into()
}

fn pending(version: u32, generation: u32) -> ClientCertificate {
    ClientCertificate {
        issuer_generation: Some(generation),
        ..client_certificate(version, State::Pending)
    }
}

fn probe(version: u32, accepted: bool) -> ProbeNote {
    ProbeNote {
        version,
        presentation: ProbePresentation::Chain,
        at: at(21),
        class: match accepted {
            true => FailureClass::Delivered,
            false => FailureClass::ClientCaNotTrusted,
        },
        accepted,
        failures: u32::from(!accepted),
    }
}

/// From the first certificate to the second, and back and forth.
pub(super) async fn steps(store: &impl Store) {
    store
        .create_account(new_account("turning", None))
        .await
        .unwrap();
    let name = destination_name("turning", "orders");
    let made = store.create_destination(new_destination(&name, None)).await;
    let subject = Subject {
        store,
        key: made.unwrap().key,
        name,
    };
    let view = subject.view().await;
    assert_eq!((view.highest_version, view.issuing()), (1, Some(1)));
    assert_eq!(states(&view), [(1, State::Active)]);
    let due = store.rotations_due(at(5), 100).await.unwrap();
    assert!(due.contains(&subject.name), "{due:?}");
    assert!(store.next_rotation().await.unwrap().is_some());
    acknowledge(&subject).await;

    let view = subject
        .step(RotationStep::Add(Box::new(pending(2, 1))))
        .await;
    assert_eq!(states(&view), [(2, State::Pending), (1, State::Active)]);
    let first = subject.step(RotationStep::Probed(probe(2, false))).await;
    assert_eq!(first.rotation.probes, [probe(2, false)]);
    let second = subject.step(RotationStep::Probed(probe(2, true))).await;
    assert_eq!(
        second.rotation.probes,
        [probe(2, true)],
        "the newest of each"
    );
    let view = subject.step(RotationStep::Distributed(2)).await;
    assert_eq!(states(&view)[0], (2, State::Distributed));
    let generation = view.destination.generation;
    let view = subject.step(RotationStep::Activate(2)).await;
    assert_eq!(states(&view), [(2, State::Active), (1, State::Retiring)]);
    assert_eq!(view.destination.active_certificate, 2);
    assert!(view.destination.generation > generation, "agents must know");
    let view = subject.step(RotationStep::PutBack { from: 2, to: 1 }).await;
    assert_eq!(states(&view), [(2, State::Distributed), (1, State::Active)]);
    assert_eq!(view.rotation.refusals, 1);
    subject.step(RotationStep::Activate(2)).await;
    let view = subject.step(RotationStep::Retire(1)).await;
    assert_eq!(states(&view), [(2, State::Active)]);
    let retired = store.client_certificate(&subject.name, 1).await.unwrap();
    assert_eq!(
        (retired.state, retired.revoked_at),
        (State::Retired, Some(at(20)))
    );

    noted_from_outside(&subject).await;
    stops(&subject, &retired.serial).await;
    requests(&subject).await;
    by_hand(&subject).await;
    authorities(&subject).await;
    store
        .delete_account(&account(), None, true, at(90))
        .await
        .unwrap();
}

/// The agent has a bundle: it is to hear of what must not be used any more.
async fn acknowledge(subject: &Subject<'_, impl Store>) {
    let word = BundleAcknowledgement {
        agent: agent(),
        destination: subject.name.clone(),
        generation: 1,
        status: BundleStatus::Durable,
        reason: String::new(),
        at: at(3),
    };
    subject.store.acknowledge_bundle(word).await.unwrap();
}

async fn noted_from_outside(subject: &Subject<'_, impl Store>) {
    let (store, key) = (subject.store, subject.key);
    assert!(store.confirm_certificate(key, 2, at(22)).await.unwrap());
    assert!(
        !store.confirm_certificate(key, 2, at(23)).await.unwrap(),
        "no news"
    );
    let class = FailureClass::ClientCertificateExpired;
    assert!(store.note_refusal(key, 2, class, at(24)).await.unwrap());
    assert!(
        !store.note_refusal(key, 2, class, at(25)).await.unwrap(),
        "no news"
    );
    assert!(
        !store.note_refusal(key, 1, class, at(25)).await.unwrap(),
        "not active"
    );
    let refused = subject.view().await.rotation.refused.unwrap();
    assert_eq!(
        (refused.version, refused.class, refused.at),
        (2, class, at(24))
    );

    let held_up = (HeldUp::Refused(class), at(26));
    let look = RotationStep::Look {
        at: at(1_000),
        held_up: Some(held_up),
    };
    let view = subject.step(look).await;
    assert_eq!(
        (view.rotation.next_look_at, view.rotation.held_up),
        (at(1_000), Some(held_up))
    );
    store.ask_rotation(&subject.name, at(30)).await.unwrap();
    let view = subject.view().await;
    assert_eq!(
        (view.rotation.next_look_at, view.rotation.asked),
        (at(30), true)
    );
    let changed = DestinationConfig {
        display_name: "changed".to_owned(),
        ..config("https://elsewhere.example/")
    };
    let updated = store.update_destination(&subject.name, changed, None, at(29));
    updated.await.unwrap();
    let view = subject.view().await;
    assert_eq!(view.rotation.next_look_at, at(29));
    assert_eq!(view.rotation.probes, [], "another receiver is not known");
}

async fn stops(subject: &Subject<'_, impl Store>, serial: &str) {
    let store = subject.store;
    let open = store.open_stops(&agent()).await.unwrap();
    let ours = open.iter().find(|stop| stop.destination == subject.name);
    assert_eq!(ours.unwrap().serial, serial);
    let serials = vec![serial.to_owned()];
    let agent = agent();
    let acknowledged = store.acknowledge_stop(&agent, &subject.name, serials, at(40));
    acknowledged.await.unwrap();
    let all = store.stops(&subject.name).await.unwrap();
    assert_eq!(all[0].acknowledged_at, Some(at(40)));
    let open = store.open_stops(&agent).await.unwrap();
    assert!(open.iter().all(|stop| stop.destination != subject.name));
    store.forget_stops(at(40)).await.unwrap();
    assert_eq!(
        store.stops(&subject.name).await.unwrap().len(),
        1,
        "not before it"
    );
    store.forget_stops(at(41)).await.unwrap();
    assert_eq!(store.stops(&subject.name).await.unwrap(), []);
}

/// A receiver's own authority signs.
async fn requests(subject: &Subject<'_, impl Store>) {
    let request = |version| CertificateRequest {
        version,
        request: vec![1, 2],
        key_algorithm: KeyAlgorithm::EcdsaP256,
        sealed_key: Sealed(vec![3]),
        created_at: at(41),
    };
    subject.step(RotationStep::Ask(Box::new(request(3)))).await;
    let view = subject.step(RotationStep::Ask(Box::new(request(4)))).await;
    assert_eq!((view.request, view.highest_version), (Some(request(4)), 4));
    let uploaded = ClientCertificate {
        issuer_generation: None,
        ..client_certificate(4, State::Pending)
    };
    let store = subject.store;
    let stale = ClientCertificate {
        version: 3,
        ..uploaded.clone()
    };
    let refused = store.upload_certificate(&subject.name, stale, at(42)).await;
    assert!(matches!(refused, Err(StoreError::Precondition(_))));
    let taken = store.upload_certificate(&subject.name, uploaded, at(42));
    taken.await.unwrap();
    let view = subject.view().await;
    assert_eq!(view.request, None);
    assert_eq!(states(&view)[0], (4, State::Pending));
}

async fn by_hand(subject: &Subject<'_, impl Store>) {
    let store = subject.store;
    let reason = RevocationReason::KeyCompromise;
    let name = &subject.name;
    for _ in 0..2 {
        let revoked = store
            .revoke_certificate(name, 2, reason, at(50))
            .await
            .unwrap();
        assert_eq!(
            (revoked.state, revoked.revoked_at),
            (State::Revoked, Some(at(50)))
        );
    }
    let view = subject.view().await;
    assert_eq!(
        view.destination.active_certificate, 0,
        "nothing is presented"
    );
    assert!(view.rotation.asked);
    let missing = store.revoke_certificate(name, 9, reason, at(50)).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
    let view = subject.step(RotationStep::Activate(4)).await;
    assert_eq!(view.destination.active_certificate, 4);
    let view = subject.step(RotationStep::Expire(4)).await;
    assert_eq!(
        (view.certificates.len(), view.destination.active_certificate),
        (0, 0)
    );
}

async fn authorities(subject: &Subject<'_, impl Store>) {
    let (store, owner) = (subject.store, owner());
    let change = |from, to| AuthorityChange {
        generation: 1,
        from,
        to,
    };
    let mut second = authority(owner.clone(), 2);
    second.state = AuthorityState::Prepared;
    let wrong = change(AuthorityState::Retired, AuthorityState::Revoked);
    let refused = store.change_authorities(&owner, Some(second.clone()), vec![wrong], at(60));
    assert!(matches!(refused.await, Err(StoreError::Changed(_))));
    let right = change(AuthorityState::Active, AuthorityState::Superseded);
    second.state = AuthorityState::Active;
    let changed = store.change_authorities(&owner, Some(second.clone()), vec![right], at(60));
    changed.await.unwrap();
    let again = store
        .change_authorities(&owner, Some(second), Vec::new(), at(60))
        .await;
    assert!(matches!(again, Err(StoreError::Changed(_))));
    let view = subject.view().await;
    assert_eq!(view.issuing(), Some(2));

    let old = subject.store.change_rotation(RotationChange {
        destination: subject.name.clone(),
        epoch: view.rotation.epoch,
        now: at(61),
        step: RotationStep::Add(Box::new(pending(5, 1))),
    });
    assert!(
        matches!(old.await, Err(StoreError::Changed(_))),
        "it does not sign any more"
    );
    subject
        .step(RotationStep::Add(Box::new(pending(5, 2))))
        .await;
    subject.step(RotationStep::Activate(5)).await;
    let used = store.generation_use(&owner, 2).await.unwrap();
    assert_eq!((used.active, used.standby), (1, 0));

    store
        .set_trust(&subject.name, 2, TrustState::Acknowledged, at(62))
        .await
        .unwrap();
    let trust = async |generation, after: Option<&DestinationName>| {
        let found = store.destination_trust(&owner, generation, after, 10);
        found.await.unwrap().items
    };
    let known = trust(2, None).await;
    assert_eq!(
        (known[0].state, known[0].at),
        (TrustState::Acknowledged, Some(at(62)))
    );
    assert_eq!(known[0].presented, Some(2));
    assert_eq!(trust(1, None).await[0].state, TrustState::Unknown);
    assert_eq!(trust(2, Some(&subject.name)).await, []);
    subject
        .step(RotationStep::Trust(2, TrustState::ProbedOk))
        .await;
    assert_eq!(trust(2, None).await[0].state, TrustState::ProbedOk);

    let look = |seconds| RotationStep::Look {
        at: at(seconds),
        held_up: None,
    };
    subject.step(look(5_000)).await;
    store.look_at_all(&owner, at(70)).await.unwrap();
    assert_eq!(subject.view().await.rotation.next_look_at, at(70));
    let gone = store.revoke_authority(&owner, 2, at(80)).await.unwrap();
    assert_eq!(gone, std::slice::from_ref(&subject.name));
    let missing = store.revoke_authority(&owner, 7, at(80)).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
    let revoked = store
        .revocations(&owner, 2, Timestamp::default())
        .await
        .unwrap();
    assert_eq!(revoked.revocations.len(), 1);
}
