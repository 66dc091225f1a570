//! The conformance suite: what every store must do, run by each implementation's tests.
//!
//! `open` opens the same database each time it is called; what it gives besides the store keeps the
//! store's threads alive.

mod access;
mod alert;
mod audit;
mod delivery;
mod eviction;
mod memory;
mod order;
mod revocation;
mod rotation;
mod tenant;
mod together;

use std::collections::BTreeSet;

use countersign_shared::{
    digest::sha256,
    name::{AccountName, DestinationName, Id},
    random,
    tasks::{Failures, Tasks},
    time::Timestamp,
};

use super::{
    DataKey, Installation, InstallationFacts, NewAccount, NewDestination, Store, StoreError,
};
use crate::model::{
    Account, ApiKey, Authority, AuthorityOwner, AuthorityState, Backoff, ClientCertificate,
    ClientCertificateState, DeliveryPolicy, DestinationConfig, KeyAlgorithm, RequestKey,
    RetryPolicy, Role, Scope, Sealed, Serial, SignatureSchemes, SigningSecret, TrustModel, Waits,
};

pub(super) type Alive = (Tasks, Failures);

/// Runs the whole suite.
pub(super) async fn run<S: Store>(open: impl AsyncFn() -> (S, Alive)) {
    {
        let (store, _alive) = open().await;
        installation(&store).await;
        access::api_keys(&store).await;
        tenant::accounts(&store).await;
        tenant::destinations(&store).await;
        tenant::agents(&store).await;
        alert::alerts(&store).await;
        alert::expiring(&store).await;
        delivery::submission(&store).await;
        delivery::submissions_together(&store).await;
        delivery::leases(&store).await;
        together::many(&store).await;
        memory::replaced(&store).await;
        memory::late_comers(&store).await;
        memory::second_leases(&store).await;
        eviction::takes_every_lease_back(&store).await;
        delivery::settling(&store).await;
        delivery::deadlines(&store).await;
        delivery::holding(&store).await;
        delivery::by_hand(&store).await;
        delivery::backlog(&store).await;
        order::one_after_the_other(&store).await;
        order::dead_letters(&store).await;
        order::by_hand(&store).await;
        tenant::signing_secrets(&store).await;
        revocation::lists(&store).await;
        audit::log(&store).await;
        rotation::steps(&store).await;
    }
    // Nothing that was answered is lost by closing.
    let (store, _alive) = open().await;
    assert!(store.installation().await.unwrap().is_some());
    access::after_reopening(&store).await;
    delivery::after_reopening(&store).await;
    audit::after_reopening(&store).await;
    delivery::retention(&store).await;
    order::retention(&store).await;
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

pub(super) fn id(text: &str) -> Id {
    Id::chosen(text).unwrap()
}

pub(super) fn destination_name(account: &str, destination: &str) -> DestinationName {
    DestinationName::new(&id(account), &id(destination))
}

pub(super) fn request(text: &str, content: &str) -> Option<RequestKey> {
    Some(RequestKey::new(
        "test".to_owned(),
        text.to_owned(),
        content.as_bytes(),
    ))
}

fn serial() -> Serial {
    Serial::from_random(random::bytes())
}

fn authority(owner: AuthorityOwner, generation: u32) -> Authority {
    Authority {
        owner,
        generation,
        anchor: vec![1, 2, 3],
        provenance: None,
        cross: None,
        state: AuthorityState::Active,
        sealed_key: Sealed(vec![4, 5, 6]),
        not_before: at(1),
        not_after: at(2),
    }
}

pub(crate) fn new_account(name: &str, request: Option<RequestKey>) -> NewAccount {
    let name = AccountName::from(id(name));
    NewAccount {
        data_key: DataKey {
            scope: name.to_string(),
            wrapped: vec![7],
            kek_id: "kek".to_owned(),
        },
        authority: authority(AuthorityOwner::Account(name.clone()), 1),
        account: Account {
            name,
            display_name: "An account".to_owned(),
            created_at: at(1),
            updated_at: at(1),
            revision: 1,
        },
        request,
    }
}

pub(super) fn config(url: &str) -> DestinationConfig {
    DestinationConfig {
        display_name: String::new(),
        url: url.to_owned(),
        trust_model: TrustModel::Dedicated,
        key_algorithm: KeyAlgorithm::EcdsaP256,
        region: Some(id("eu")),
        server_ca_pem: String::new(),
        minimum_tls: countersign_shared::bundle::MinimumTls::Tls13,
        mtls_enforcement: countersign_shared::bundle::MtlsEnforcement::Deliver,
        attempt_timeout: std::time::Duration::from_secs(30),
        concurrency_limit: 64,
        signatures: SignatureSchemes::Both,
        policy: DeliveryPolicy {
            retry: RetryPolicy {
                waits: Waits::Backoff(Backoff {
                    first: std::time::Duration::from_secs(2),
                    factor: 1_500,
                    longest: std::time::Duration::from_secs(60),
                    retries: 9,
                }),
                deadline: Some(std::time::Duration::from_secs(90)),
            },
            rate_limit: Some(5),
            max_offline: Some(std::time::Duration::from_secs(5)),
        },
        allowed_ranges: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ordering_failure: crate::model::OrderingFailure::Hold,
        delivery_receipts: true,
    }
}

pub(super) fn client_certificate(version: u32, state: ClientCertificateState) -> ClientCertificate {
    ClientCertificate {
        version,
        state,
        trust_model: TrustModel::Dedicated,
        key_algorithm: KeyAlgorithm::EcdsaP256,
        serial: serial().to_hex(),
        certificate: vec![1],
        chain: vec![vec![4, 5], vec![6]],
        issuer_generation: Some(1),
        sealed_key: Sealed(vec![2]),
        not_before: at(1),
        not_after: at(2),
        activated_at: None,
        confirmed_at: None,
        replaced_at: None,
        revoked_at: None,
    }
}

pub(crate) fn new_destination(
    name: &DestinationName,
    request: Option<RequestKey>,
) -> NewDestination {
    NewDestination {
        name: name.clone(),
        config: config("https://receiver.example/"),
        certificate: Some(client_certificate(1, ClientCertificateState::Active)),
        secret: SigningSecret {
            public_key: [7; 32],
            version: 1,
            sealed: Sealed(vec![3]),
            created_at: at(1),
            expires_at: None,
        },
        created_at: at(1),
        look_at: at(1),
        request,
    }
}

/// Data keys change one by one, and the installation's KEK when none is left.
async fn replacing_the_kek(store: &impl Store) {
    let old = store.data_key("installation").await.unwrap();
    let others = async |kek_id: &str| {
        let found = store.data_keys_of_other_keks(kek_id, 10).await;
        found.unwrap().items
    };
    assert!(others(&old.kek_id).await.is_empty());
    let mut scopes: Vec<DataKey> = Vec::new();
    loop {
        let after = scopes.last().map_or("", |last| last.scope.as_str());
        let next = store.data_keys(after, 1).await.unwrap();
        scopes.extend(next.items);
        if !next.more {
            break;
        }
    }
    assert!(scopes.contains(&old));
    let distinct: BTreeSet<_> = scopes.iter().map(|it| it.scope.clone()).collect();
    assert_eq!(distinct.len(), scopes.len());
    let counts = store.data_key_counts().await.unwrap();
    assert_eq!(counts, [(old.kek_id.clone(), scopes.len() as u64)]);
    assert_eq!(others("new").await, std::slice::from_ref(&old));
    let early = store.set_kek("new").await;
    assert!(matches!(early, Err(StoreError::Precondition(_))));
    let new = DataKey {
        wrapped: vec![2],
        kek_id: "new".to_owned(),
        ..old.clone()
    };
    let stale = DataKey {
        wrapped: vec![9],
        ..old.clone()
    };
    // Somebody else was faster: theirs stays.
    store.replace_data_key(stale, new.clone()).await.unwrap();
    assert_eq!(store.data_key("installation").await.unwrap(), old);
    store
        .replace_data_key(old.clone(), new.clone())
        .await
        .unwrap();
    assert_eq!(store.data_key("installation").await.unwrap(), new);
    store.set_kek("new").await.unwrap();
    assert_eq!(store.installation().await.unwrap().unwrap().kek_id, "new");
    store.replace_data_key(new, old.clone()).await.unwrap();
    store.set_kek(&old.kek_id).await.unwrap();
}

async fn installation(store: &impl Store) {
    assert_eq!(store.installation().await.unwrap(), None);
    let new = Installation {
        id: "one".to_owned(),
        kek_id: "kek-1".to_owned(),
        data_key: DataKey {
            scope: "installation".to_owned(),
            wrapped: vec![1],
            kek_id: "kek".to_owned(),
        },
        authorities: vec![
            authority(AuthorityOwner::Root, 1),
            authority(AuthorityOwner::Shared, 1),
        ],
        api_key: ApiKey {
            id: id("admin"),
            secret_sha256: sha256(b"x"),
            display_name: "administrator".to_owned(),
            roles: vec![Role::Administrator],
            scope: Scope::All,
            calls_per_second: None,
            created_at: at(1),
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
        },
        created_at: at(1),
    };
    store.install(new.clone()).await.unwrap();
    let facts = InstallationFacts {
        id: "one".to_owned(),
        kek_id: "kek-1".to_owned(),
    };
    assert_eq!(store.installation().await.unwrap(), Some(facts.clone()));
    assert!(store.install(new).await.is_err(), "only once");
    assert_eq!(store.installation().await.unwrap(), Some(facts));
    assert_eq!(store.api_keys("", 10).await.unwrap().items.len(), 1);
    assert_eq!(
        store
            .authorities(&AuthorityOwner::Root)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        store
            .authorities(&AuthorityOwner::Agents)
            .await
            .unwrap()
            .len(),
        0
    );
    assert_eq!(store.data_key("installation").await.unwrap().wrapped, [1]);
    assert!(matches!(
        store.data_key("other").await,
        Err(StoreError::NotFound(_))
    ));
    replacing_the_kek(store).await;
    let (first, second) = (serial(), serial());
    store.record_serials(vec![first], at(1)).await.unwrap();
    let reused = store.record_serials(vec![second, first], at(1)).await;
    assert!(matches!(reused, Err(StoreError::AlreadyExists(_))));
    store
        .record_serials(vec![second], at(1))
        .await
        .expect("taken back with the failure");
    store.check().await.unwrap();
}
