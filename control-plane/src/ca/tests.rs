//! What authorities sign, over the generations.

use std::time::Duration;

use countersign_shared::tls::certificate_facts;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    CLIENT_LIFE, CRL_LIFE, CaError, NewClient, NewGeneration, SigningAuthority, check,
    issue_client, new_shared_authority, sign_crl,
    testing::{DAY, NOW, World, names, orders},
};
use crate::model::{
    AuthorityOwner, AuthorityState, ClientCertificateState, KeyAlgorithm, Revocation,
    RevocationReason, Serial, TrustModel,
};

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).unwrap().1
}

/// Whether `signer`'s key has signed `certificate` under `signer`'s name.
fn signed(certificate: &[u8], signer: &SigningAuthority) -> bool {
    check::signed_by(&parsed(certificate), &parsed(&signer.authority.anchor))
}

fn next(previous: &SigningAuthority) -> NewGeneration<'_> {
    NewGeneration {
        number: previous.authority.generation + 1,
        state: AuthorityState::Prepared,
        previous: Some(previous),
    }
}

#[tokio::test]
async fn a_later_generation_is_signed_by_the_one_before_and_does_not_outlive_it() {
    let world = World::new().await;
    let first = world.account("acme", NewGeneration::FIRST, NOW).await;
    assert_eq!(first.authority.state, AuthorityState::Active);
    assert_eq!(first.authority.cross, None);
    let later = NOW.plus(9 * 365 * DAY);
    let second = world.account("acme", next(&first), later).await;
    assert_eq!(second.authority.state, AuthorityState::Prepared);
    let cross = second.authority.cross.as_deref().unwrap();
    let (cross_facts, anchor) = (
        certificate_facts(cross).unwrap(),
        certificate_facts(&second.authority.anchor).unwrap(),
    );
    assert!(signed(cross, &first));
    assert_eq!(cross_facts.subject, anchor.subject);
    assert_eq!(cross_facts.public_key_sha256, anchor.public_key_sha256);
    assert_eq!(cross_facts.not_after, first.authority.not_after);
    assert!(anchor.not_after > cross_facts.not_after);
    let length = |der: &[u8]| {
        let constraints = parsed(der)
            .basic_constraints()
            .unwrap()
            .unwrap()
            .value
            .clone();
        constraints.path_len_constraint
    };
    assert_eq!(length(cross), Some(0));
    assert_eq!(length(&second.authority.anchor), Some(1));
    assert_ne!(
        certificate_facts(&first.authority.anchor).unwrap().subject,
        anchor.subject
    );
    // In an emergency the older key vouches for nothing.
    let emergency = NewGeneration {
        previous: None,
        ..next(&first)
    };
    let alone = world.account("acme", emergency, later).await;
    assert_eq!(alone.authority.cross, None);
}

#[tokio::test]
async fn only_a_generation_of_the_same_authority_vouches_for_the_next() {
    let world = World::new().await;
    let globex = world.account("globex", NewGeneration::FIRST, NOW).await;
    let (root, scope, store) = (&world.root, &world.scope, &world.store);
    let acme = "accounts/acme".parse().unwrap();
    let made = super::new_account_authority(&acme, next(&globex), root, scope, store, NOW).await;
    assert!(matches!(made, Err(CaError::Generation(..))), "{made:?}");
    let first = world.account("acme", NewGeneration::FIRST, NOW).await;
    let again = NewGeneration {
        number: 1,
        ..next(&first)
    };
    let made = super::new_account_authority(&acme, again, root, scope, store, NOW).await;
    assert!(matches!(made, Err(CaError::Generation(..))), "{made:?}");
}

#[tokio::test]
async fn client_certificates_have_the_key_the_chain_and_the_life_that_were_asked_for() {
    let world = World::new().await;
    let first = world.account("acme", NewGeneration::FIRST, NOW).await;
    let second = world.account("acme", next(&first), NOW).await;
    use KeyAlgorithm::{EcdsaP256, EcdsaP384, Rsa2048, Rsa3072};
    for algorithm in [EcdsaP256, EcdsaP384, Rsa2048, Rsa3072] {
        let issued = world.client(&second, algorithm, CLIENT_LIFE, NOW).await;
        let leaf = parsed(&issued.certificate);
        assert_eq!(check::key_algorithm(leaf.public_key()), Some(algorithm));
        assert!(signed(&issued.certificate, &second));
        assert_eq!(
            issued.chain,
            second
                .authority
                .cross
                .clone()
                .into_iter()
                .collect::<Vec<_>>()
        );
        assert_eq!((issued.version, issued.key_algorithm), (1, algorithm));
        assert_eq!(issued.state, ClientCertificateState::Pending);
        let record = crate::vault::Record::ClientKey(&orders(), 1);
        assert!(world.scope.open(&issued.sealed_key, &record).is_ok());
    }
    let short = world
        .client(&first, EcdsaP256, Duration::from_secs(30), NOW)
        .await;
    assert_eq!(
        short.chain,
        Vec::<Vec<u8>>::new(),
        "the first generation has no other's signature"
    );
    assert_eq!(short.not_after, NOW.plus(Duration::from_secs(30)));
    assert_eq!(short.not_before, NOW.minus(Duration::from_secs(3)));
    let late = first.authority.not_after.minus(DAY);
    let last = world.client(&first, EcdsaP256, CLIENT_LIFE, late).await;
    assert_eq!(
        last.not_after, first.authority.not_after,
        "nothing outlives its authority"
    );
}

#[tokio::test]
async fn an_authority_signs_for_its_own_destinations_only() {
    let world = World::new().await;
    let globex = world.account("globex", NewGeneration::FIRST, NOW).await;
    let destination = orders();
    let new = NewClient {
        destination: &destination,
        version: 1,
        names: &names(TrustModel::Dedicated),
        key_algorithm: KeyAlgorithm::EcdsaP256,
        life: CLIENT_LIFE,
        state: ClientCertificateState::Pending,
        with_cross: false,
    };
    for wrong in [&globex, &world.root] {
        let issued = issue_client(&new, wrong, &world.scope, &world.store, NOW).await;
        assert!(
            matches!(issued, Err(CaError::WrongAuthority(..))),
            "{issued:?}"
        );
    }
    let acme = world.account("acme", NewGeneration::FIRST, NOW).await;
    let after = acme.authority.not_after;
    let issued = issue_client(&new, &acme, &world.scope, &world.store, after).await;
    assert!(matches!(issued, Err(CaError::Profile(_))), "{issued:?}");
}

#[tokio::test]
async fn the_shared_authority_signs_under_the_dns_name() {
    let world = World::new().await;
    let (root, scope, store) = (&world.root, &world.scope, &world.store);
    let made = new_shared_authority(NewGeneration::FIRST, root, scope, store, NOW).await;
    let shared = world.opened(made.unwrap());
    let facts = certificate_facts(&shared.authority.anchor).unwrap();
    assert_eq!(
        facts.subject,
        "CN=Countersign Shared Delivery CA 0a1b2c3d G1"
    );
    let issued = world
        .client(&shared, KeyAlgorithm::EcdsaP256, CLIENT_LIFE, NOW)
        .await;
    assert_eq!(issued.trust_model, TrustModel::Shared);
    let facts = certificate_facts(&issued.certificate).unwrap();
    assert_eq!(facts.subject, "CN=orders.acme.delivery.bank.example");
}

#[tokio::test]
async fn what_differs_from_its_profile_in_anything_is_thrown_away() {
    let world = World::new().await;
    let acme = world.account("acme", NewGeneration::FIRST, NOW).await;
    let other = world.account("acme", NewGeneration::FIRST, NOW).await;
    let (key, _) = super::keys::new_key().unwrap();
    let contents = super::profile::Contents {
        profile: super::profile::Profile::Client(KeyAlgorithm::EcdsaP256),
        common_name: "a".to_owned(),
        like: None,
        alternative_names: super::issue::alternative_names(&names(TrustModel::Shared)).unwrap(),
        serial: Serial::from_random([7; 16]),
        validity: super::profile::Validity::from_now(NOW, DAY),
    };
    let good = acme.sign(&contents, &key).unwrap();
    let public_key = rcgen::PublicKeyData::subject_public_key_info(&key);
    let check = |contents: &_, key: &[u8], issuer: &SigningAuthority| {
        check::certificate(&good, contents, key, &issuer.authority.anchor).is_ok()
    };
    assert!(check(&contents, &public_key, &acme));
    assert!(
        !check(&contents, &public_key, &other),
        "same name, other key"
    );
    assert!(!check(&contents, &[], &acme));
    let differing: [fn(&mut super::profile::Contents); 8] = [
        |it| it.profile = super::profile::Profile::Server,
        |it| it.profile = super::profile::Profile::Client(KeyAlgorithm::EcdsaP384),
        |it| {
            it.profile = super::profile::Profile::Authority {
                path_length: 0,
                key: KeyAlgorithm::EcdsaP256,
            }
        },
        |it| it.common_name = "b".to_owned(),
        |it| it.alternative_names.clear(),
        |it| it.alternative_names.reverse(),
        |it| it.serial.0[15] ^= 1,
        |it| it.validity.not_after = NOW,
    ];
    for (number, change) in differing.into_iter().enumerate() {
        let mut other = contents.clone();
        change(&mut other);
        assert!(!check(&other, &public_key, &acme), "{number}");
    }
}

fn revocation(serial: &str, reason: RevocationReason) -> Revocation {
    Revocation {
        serial: serial.to_owned(),
        revoked_at: NOW,
        reason,
        not_after: NOW.plus(DAY),
    }
}

#[tokio::test]
async fn a_revocation_list_is_signed_by_its_authority_and_forgets_what_ended_long_ago() {
    let world = World::new().await;
    let acme = world.account("acme", NewGeneration::FIRST, NOW).await;
    let empty = sign_crl(&acme, 1, &[], NOW, CRL_LIFE).unwrap();
    assert_eq!(empty.next_update, NOW.plus(CRL_LIFE));
    assert_eq!(empty.this_update, NOW.minus(Duration::from_secs(600)));
    let longest = "f1".repeat(20);
    let all = [
        revocation(&longest, RevocationReason::KeyCompromise),
        revocation("007f", RevocationReason::Unspecified),
        revocation(
            &Serial::from_random([0xff; 16]).to_hex(),
            RevocationReason::Superseded,
        ),
    ];
    let entries = |now| {
        let list = sign_crl(&acme, u64::MAX, &all, now, CRL_LIFE).unwrap();
        let (_, list) = x509_parser::parse_x509_crl(&list.der).unwrap();
        list.iter_revoked_certificates().count()
    };
    assert_eq!(entries(NOW), 3);
    // On a list that was made after their end (RFC 5280 section 3.3), and then not any more.
    assert_eq!(entries(NOW.plus(2 * DAY)), 3);
    assert_eq!(entries(NOW.plus(DAY + CRL_LIFE)), 0);
    for bad in ["", "0", "xx", &"01".repeat(21)] {
        let bad = [revocation(bad, RevocationReason::Unspecified)];
        let refused = sign_crl(&acme, 1, &bad, NOW, CRL_LIFE);
        assert!(matches!(refused, Err(CaError::Profile(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn the_generation_that_signs_is_the_active_one() {
    let world = World::new().await;
    let (root, scope, store) = (&world.root, &world.scope, &world.store);
    let owner = AuthorityOwner::Shared;
    let active = || SigningAuthority::active(&owner, store, &world.vault);
    assert!(active().await.unwrap().is_none(), "nothing is stored yet");
    let mut generations = Vec::new();
    for (number, state) in [
        (1, AuthorityState::Superseded),
        (2, AuthorityState::Active),
        (3, AuthorityState::Prepared),
    ] {
        let new = NewGeneration {
            number,
            state,
            previous: None,
        };
        let made = new_shared_authority(new, root, scope, store, NOW).await;
        generations.push(made.unwrap());
    }
    world.install(generations).await;
    assert_eq!(active().await.unwrap().unwrap().authority.generation, 2);
    let one = |number| SigningAuthority::generation(&owner, number, store, &world.vault);
    let third = one(3).await.unwrap().unwrap();
    assert_eq!(third.authority.state, AuthorityState::Prepared);
    assert!(one(4).await.unwrap().is_none());
}
