//! API keys.

use countersign_shared::{digest::sha256, name::ApiKeyName};

use super::{at, id};
use crate::{
    model::{ApiKey, Role, Scope},
    store::{Store, StoreError},
};

fn key(name: &str) -> ApiKey {
    ApiKey {
        id: id(name),
        secret_sha256: sha256(name.as_bytes()),
        display_name: "Billing".to_owned(),
        roles: vec![Role::Sender, Role::Auditor],
        scope: Scope::Accounts(vec![id("acme").into(), id("globex").into()]),
        calls_per_second: Some(7),
        created_at: at(1),
        expires_at: Some(at(100)),
        last_used_at: None,
        revoked_at: None,
    }
}

fn name(text: &str) -> ApiKeyName {
    id(text).into()
}

/// The installation has made one key, `admin`.
pub(super) async fn api_keys(store: &impl Store) {
    let (billing, reports) = (key("billing"), key("reports"));
    let missing = store.api_key(&name("billing")).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
    let created = store.create_api_key(billing.clone(), 3, at(1)).await;
    created.unwrap();
    assert_eq!(store.api_key(&name("billing")).await.unwrap(), billing);
    let again = store.create_api_key(billing.clone(), 3, at(1)).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists(_))));
    let too_many = store.create_api_key(reports.clone(), 2, at(1)).await;
    assert!(matches!(too_many, Err(StoreError::Precondition(_))));
    // What has expired does not count.
    let created = store.create_api_key(reports.clone(), 2, at(100)).await;
    created.unwrap();

    let first = store.api_keys("", 2).await.unwrap();
    assert_eq!((first.items[0].id.as_str(), first.more), ("admin", true));
    let rest = store.api_keys("billing", 2).await.unwrap();
    assert_eq!((rest.items, rest.more), (vec![reports], false));

    for (now, valid) in [(at(99), 3), (at(100), 1)] {
        assert_eq!(store.valid_api_keys(now).await.unwrap().len(), valid);
    }
    let revoked = store.revoke_api_key(&name("reports"), at(5)).await;
    let revoked = revoked.unwrap();
    assert_eq!(revoked.revoked_at, Some(at(5)));
    let again = store.revoke_api_key(&name("reports"), at(6)).await;
    assert_eq!(again.unwrap(), revoked);
    let missing = store.revoke_api_key(&name("nobody"), at(6)).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
    assert_eq!(store.valid_api_keys(at(7)).await.unwrap().len(), 2);

    for (at_seconds, expected) in [(8, 8), (7, 8), (9, 9)] {
        let used = vec![(name("billing"), at(at_seconds)), (name("nobody"), at(1))];
        store.note_api_key_use(used).await.unwrap();
        let found = store.api_key(&name("billing")).await.unwrap();
        assert_eq!(found.last_used_at, Some(at(expected)));
    }
}

pub(super) async fn after_reopening(store: &impl Store) {
    let valid = store.valid_api_keys(at(7)).await.unwrap();
    let ids: Vec<_> = valid.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(ids, ["admin", "billing"], "revoked is revoked");
}
