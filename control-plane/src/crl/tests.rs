//! Lists over the days, with a store and in virtual time.

use std::time::Duration;

use countersign_shared::{
    name::Id,
    random,
    tasks::{Failures, Tasks},
    time::ManualClock,
};
use tempfile::TempDir;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::*;
use crate::{
    ca::NewGeneration,
    kek::FileKek,
    model::{Account, AuthorityState, KeyAlgorithm, Revocation, RevocationReason, Serial},
    store::{NewAccount, sqlite::SqliteStore},
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    lists: RevocationLists,
    clock: Arc<ManualClock>,
    owner: AuthorityOwner,
    _alive: (TempDir, Tasks, Failures),
}

impl World {
    /// With an account whose authority has a first generation.
    async fn new(state: AuthorityState) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, failures) = Tasks::new();
        let store = SqliteStore::open(&folder.path().join("store.sqlite"), &tasks).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let vault = Vault::new(Arc::new(
            FileKek::create(&folder.path().join("kek")).unwrap(),
        ));
        let name = countersign_shared::name::AccountName::from(Id::chosen("acme").unwrap());
        let (data_key, scope) = vault.new_scope(&name.to_string()).await.unwrap();
        let serial = Serial::from_random(random::bytes());
        let root = ca::new_root(
            "test",
            ca::RootKey::Stored(KeyAlgorithm::EcdsaP256),
            &scope,
            serial,
            NOW,
        )
        .unwrap();
        let first = NewGeneration {
            state,
            ..NewGeneration::FIRST
        };
        let made = ca::new_account_authority(&name, first, &root, &scope, store.as_ref(), NOW);
        let account = Account {
            name: name.clone(),
            display_name: String::new(),
            created_at: NOW,
            updated_at: NOW,
            revision: 1,
        };
        let new = NewAccount {
            account,
            data_key,
            authority: made.await.unwrap(),
            request: None,
        };
        store.create_account(new).await.unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        Self {
            lists: RevocationLists {
                store,
                vault: Arc::new(vault),
                due: Arc::default(),
                clock: clock.clone(),
            },
            clock,
            owner: AuthorityOwner::Account(name),
            _alive: (folder, tasks, failures),
        }
    }

    async fn number(&self) -> Option<u64> {
        let last = self.lists.store.crl(&self.owner, 1).await.unwrap();
        last.map(|last| last.number)
    }

    async fn revoke(&self, serial: &str, not_after: Timestamp) {
        let revocation = Revocation {
            serial: serial.to_owned(),
            revoked_at: self.clock.now(),
            reason: RevocationReason::Superseded,
            not_after,
        };
        let revoked = self.lists.store.revoke(&self.owner, 1, vec![revocation]);
        revoked.await.unwrap();
    }
}

fn serials(crl: &Crl) -> Vec<String> {
    let (_, list) = CertificateRevocationList::from_der(&crl.der).unwrap();
    let entries = list.iter_revoked_certificates();
    entries
        .map(|entry| countersign_shared::tls::serial_text(entry.raw_serial()))
        .collect()
}

#[tokio::test]
async fn a_list_is_there_from_birth_and_signed_anew_every_day() {
    let world = World::new(AuthorityState::Active).await;
    assert_eq!(world.number().await, None);
    world.lists.sign_due().await.unwrap();
    assert_eq!(world.number().await, Some(1));
    world.lists.sign_due().await.unwrap();
    assert_eq!(world.number().await, Some(1), "nothing has changed");
    world.clock.advance(DAY - SPREAD - Duration::from_secs(1));
    world.lists.sign_due().await.unwrap();
    assert_eq!(world.number().await, Some(1));
    world.clock.advance(SPREAD + Duration::from_secs(1));
    world.lists.sign_due().await.unwrap();
    assert_eq!(world.number().await, Some(2));
}

#[tokio::test]
async fn what_is_revoked_is_on_the_list_until_a_while_after_its_end() {
    let world = World::new(AuthorityState::Active).await;
    world.lists.sign_due().await.unwrap();
    world.revoke("0a", NOW.plus(DAY)).await;
    let crl = world.lists.sign_now(&world.owner, 1).await.unwrap();
    assert_eq!((crl.number, serials(&crl)), (2, vec!["0a".to_owned()]));
    world.lists.sign_due().await.unwrap();
    assert_eq!(world.number().await, Some(2), "it covers the revocation");
    world.revoke("0b", NOW.plus(90 * DAY)).await;
    world.lists.sign_due().await.unwrap();
    assert_eq!(
        world.number().await,
        Some(3),
        "nobody has signed for this one"
    );
    world.clock.advance(DAY + CRL_LIFE);
    let crl = world.lists.sign_now(&world.owner, 1).await.unwrap();
    assert_eq!(serials(&crl), ["0b"]);
}

#[tokio::test]
async fn lists_that_are_signed_at_once_have_numbers_of_their_own() {
    let world = World::new(AuthorityState::Active).await;
    let sign = || world.lists.sign_now(&world.owner, 1);
    let signed = tokio::join!(sign(), sign(), sign(), world.lists.sign_due());
    signed.3.unwrap();
    let mut numbers = [signed.0, signed.1, signed.2].map(|crl| crl.unwrap().number);
    numbers.sort_unstable();
    assert!(
        numbers[0] < numbers[1] && numbers[1] < numbers[2],
        "{numbers:?}"
    );
    assert!(world.number().await >= Some(numbers[2]));
}

#[tokio::test]
async fn a_revoked_authority_still_signs_its_list_and_an_aborted_one_has_none() {
    let revoked = World::new(AuthorityState::Revoked).await;
    revoked.lists.sign_due().await.unwrap();
    assert_eq!(revoked.number().await, Some(1));
    let aborted = World::new(AuthorityState::Aborted).await;
    aborted.lists.sign_due().await.unwrap();
    assert_eq!(aborted.number().await, None);
    let unknown = aborted.lists.sign_now(&aborted.owner, 7).await;
    assert!(matches!(
        unknown,
        Err(CaError::Store(StoreError::NotFound(_)))
    ));
}
