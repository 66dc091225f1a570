//! The audit log: what is changed by somebody known is on record, what fails is not.

use std::sync::Arc;

use countersign_shared::time::SystemClock;

use super::*;
use crate::{
    audit::{self, Broken, Call, Chain},
    model::{AuditCheckpoint, AuditEntry, AuditFilter, AuditKind},
};

fn call(principal: &str, about: &[&str]) -> Call {
    let about = about.iter().map(|name| (*name).to_owned()).collect();
    Call::new(principal, None, "S/M", b"", about, Arc::new(SystemClock))
}

async fn found(store: &impl Store, filter: AuditFilter) -> Vec<AuditEntry> {
    store.audit_entries(filter, 0, 1000).await.unwrap().items
}

async fn of(store: &impl Store, principal: &str) -> Vec<AuditEntry> {
    let filter = AuditFilter {
        principal: principal.to_owned(),
        ..AuditFilter::default()
    };
    found(store, filter).await
}

pub(super) async fn log(store: &impl Store) {
    assert_eq!(
        store.last_audit_entry().await.unwrap(),
        None,
        "nobody was at work"
    );
    let key = ApiKey {
        id: id("audited"),
        secret_sha256: sha256(b"audited"),
        display_name: String::new(),
        roles: vec![Role::Auditor],
        scope: Scope::All,
        calls_per_second: None,
        created_at: at(1),
        expires_at: Some(at(2)),
        last_used_at: None,
        revoked_at: None,
    };
    let first = call("apiKeys/one", &["accounts/acme/destinations/orders"]);
    audit::scope(first, async {
        store
            .create_api_key(key.clone(), 100, key.created_at)
            .await
            .unwrap();
        // A second change of the same call is a second record; what fails and what only looks is none.
        let serial = Serial::from_random(random::bytes());
        store
            .record_serials(vec![serial], key.created_at)
            .await
            .unwrap();
        let again = store.create_api_key(key.clone(), 100, key.created_at).await;
        assert!(matches!(again, Err(StoreError::AlreadyExists(_))));
        store.api_keys("", 10).await.unwrap();
    })
    .await;
    let mine = of(store, "apiKeys/one").await;
    assert_eq!(mine.len(), 2, "{mine:?}");
    assert!(mine[0].line.contains("apiKeys/audited"), "{mine:?}");

    // Not even the record stays of a change that fails.
    audit::scope(call("apiKeys/two", &[]), async {
        let gone: DestinationName = "accounts/none/destinations/none".parse().unwrap();
        assert!(
            store
                .delete_destination(&gone, None, false, key.created_at)
                .await
                .is_err()
        );
    })
    .await;
    assert!(of(store, "apiKeys/two").await.is_empty());

    let refusal = call("apiKeys/three", &[]).record(AuditKind::Refusal, 0);
    // Writing the record is not a change of its own.
    let writing = store.record(vec![refusal.clone(), refusal]);
    audit::scope(call("apiKeys/three", &[]), writing)
        .await
        .unwrap();
    let filtered = [
        (
            AuditFilter {
                kind: Some(AuditKind::Refusal),
                ..AuditFilter::default()
            },
            2,
        ),
        (
            AuditFilter {
                kind: Some(AuditKind::Disclosure),
                ..AuditFilter::default()
            },
            0,
        ),
        (
            AuditFilter {
                method: "S/M".to_owned(),
                ..AuditFilter::default()
            },
            4,
        ),
        (
            AuditFilter {
                resource: "accounts/acme".to_owned(),
                ..AuditFilter::default()
            },
            2,
        ),
        (
            AuditFilter {
                resource: "accounts/acm".to_owned(),
                ..AuditFilter::default()
            },
            0,
        ),
        (
            AuditFilter {
                until: Some(Timestamp::from_unix_seconds(1)),
                ..AuditFilter::default()
            },
            0,
        ),
        (
            AuditFilter {
                from: Some(Timestamp::from_unix_seconds(1)),
                ..AuditFilter::default()
            },
            4,
        ),
    ];
    for (filter, expected) in filtered {
        let count = found(store, filter.clone()).await.len();
        assert_eq!(count, expected, "{filter:?}");
    }
    let page = store
        .audit_entries(AuditFilter::default(), 1, 2)
        .await
        .unwrap();
    assert!(page.more);
    let numbers: Vec<u64> = page.items.iter().map(|entry| entry.sequence).collect();
    assert_eq!(numbers, [2, 3]);

    let last = store.last_audit_entry().await.unwrap().unwrap();
    let checkpoint = AuditCheckpoint {
        sequence: last.sequence,
        hash: last.hash,
        signed_at: key.created_at,
        signature: vec![1; 64],
    };
    store
        .add_audit_checkpoint(checkpoint.clone())
        .await
        .unwrap();
    let other = AuditCheckpoint {
        signature: vec![2; 64],
        ..checkpoint.clone()
    };
    store.add_audit_checkpoint(other).await.unwrap();
    let signed = store.audit_checkpoints(0, 10).await.unwrap();
    assert_eq!(signed.items, [checkpoint]);
    assert!(
        store
            .audit_checkpoints(last.sequence, 10)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

/// It hangs together, from the first record on, also over a restart.
pub(super) async fn after_reopening(store: &impl Store) {
    let refusal = call("apiKeys/later", &[]).record(AuditKind::Refusal, 0);
    store.record(vec![refusal]).await.unwrap();
    let mut chain = Chain::default();
    let all = found(store, AuditFilter::default()).await;
    let walked: Result<Vec<_>, Broken> = all.iter().map(|entry| chain.follow(entry)).collect();
    assert_eq!(walked.unwrap().last().unwrap().principal, "apiKeys/later");
    let last = store.last_audit_entry().await.unwrap().unwrap();
    assert_eq!((chain.sequence, chain.hash), (last.sequence, last.hash));
}
