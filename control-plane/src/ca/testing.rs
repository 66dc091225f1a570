//! For the tests of this folder: an installation with a root, in a store of its own.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    name::{AccountName, DestinationName, Id},
    random,
    tasks::{Failures, Tasks},
    time::Timestamp,
};
use tempfile::TempDir;

use super::{ClientNames, NewClient, NewGeneration, SigningAuthority, new_account_authority};
use crate::{
    kek::FileKek,
    model::{
        Authority, ClientCertificate, ClientCertificateState, KeyAlgorithm, Serial, TrustModel,
    },
    store::{
        CertificateStore as _, DataKey, Installation, InstallationStore as _, sqlite::SqliteStore,
    },
    vault::{INSTALLATION, ScopeKey, Vault},
};

/// When the tests take place.
pub(super) const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct World {
    pub(super) store: SqliteStore,
    /// One scope for everything: which one seals what is not for these tests.
    pub(super) scope: Arc<ScopeKey>,
    pub(super) root: SigningAuthority,
    pub(super) vault: Vault,
    data_key: DataKey,
    _alive: (TempDir, Tasks, Failures),
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, failures) = Tasks::new();
        let store = SqliteStore::open(&folder.path().join("store.sqlite"), &tasks).unwrap();
        let kek = FileKek::create(&folder.path().join("kek")).unwrap();
        let vault = Vault::new(Arc::new(kek));
        let (data_key, scope) = vault.new_scope(INSTALLATION).await.unwrap();
        let serial = Serial::from_random(random::bytes());
        store.record_serials(vec![serial], NOW).await.unwrap();
        let root = super::new_root(
            "0a1b2c3d",
            super::RootKey::Stored(KeyAlgorithm::EcdsaP384),
            &scope,
            serial,
            NOW,
        )
        .unwrap();
        Self {
            store,
            scope,
            root,
            vault,
            data_key,
            _alive: (folder, tasks, failures),
        }
    }

    /// Stores these authorities.
    pub(super) async fn install(&self, authorities: Vec<Authority>) {
        let installation = Installation {
            id: "test".to_owned(),
            kek_id: "test".to_owned(),
            data_key: self.data_key.clone(),
            authorities,
            api_key: crate::auth::generate(crate::auth::KeyRequest::administrator(), NOW).0,
            created_at: NOW,
        };
        self.store.install(installation).await.unwrap();
    }

    /// A generation of an account's authority, opened.
    pub(super) async fn account(
        &self,
        id: &str,
        generation: NewGeneration<'_>,
        now: Timestamp,
    ) -> SigningAuthority {
        let name = AccountName::from(Id::chosen(id).unwrap());
        let (root, scope) = (&self.root, &self.scope);
        let made = new_account_authority(&name, generation, root, scope, &self.store, now);
        self.opened(made.await.unwrap())
    }

    pub(super) fn opened(&self, authority: Authority) -> SigningAuthority {
        let record = crate::vault::Record::AuthorityKey(&authority.owner, authority.generation);
        let key = self.scope.open(&authority.sealed_key, &record).unwrap();
        let key = super::AuthorityKey::stored(&authority, &key, None).unwrap();
        SigningAuthority::with_key(authority, key).unwrap()
    }

    /// A client certificate of `accounts/acme/destinations/orders`.
    pub(super) async fn client(
        &self,
        authority: &SigningAuthority,
        algorithm: KeyAlgorithm,
        life: Duration,
        now: Timestamp,
    ) -> ClientCertificate {
        let destination = orders();
        let trust_model = match authority.authority.owner {
            crate::model::AuthorityOwner::Shared => TrustModel::Shared,
            _ => TrustModel::Dedicated,
        };
        let names = names(trust_model);
        let new = NewClient {
            destination: &destination,
            version: 1,
            names: &names,
            key_algorithm: algorithm,
            life,
            state: ClientCertificateState::Pending,
            with_cross: true,
        };
        super::issue_client(&new, authority, &self.scope, &self.store, now)
            .await
            .unwrap()
    }
}

pub(super) fn orders() -> DestinationName {
    "accounts/acme/destinations/orders".parse().unwrap()
}

pub(super) fn names(trust_model: TrustModel) -> ClientNames {
    ClientNames::of(trust_model, "bank.internal", "bank.example", &orders())
}
