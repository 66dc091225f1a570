//! Accounts, destinations, agents.

use countersign_shared::name::{AccountName, AgentName};

use super::{at, config, destination_name, id, new_account, new_destination, request};
use crate::{
    model::{
        BundleAcknowledgement, BundleStatus, DestinationState, Enrollment, JoinToken, JoinTokenUse,
        Sealed, SigningSecret,
    },
    store::{Store, StoreError},
};

pub(super) async fn accounts(store: &impl Store) {
    let made = store
        .create_account(new_account("acme", request("r1", "a")))
        .await
        .unwrap();
    let again = store
        .create_account(new_account("acme", request("r1", "a")))
        .await
        .unwrap();
    assert_eq!(made, again, "a repeated request answers as the first did");
    let other = store
        .create_account(new_account("acme", request("r1", "b")))
        .await;
    assert!(matches!(other, Err(StoreError::RequestIdReused { .. })));
    let taken = store.create_account(new_account("acme", None)).await;
    assert!(matches!(taken, Err(StoreError::AlreadyExists(_))));

    let name = made.name.clone();
    let stale = store
        .update_account(&name, "x".to_owned(), Some(7), at(2))
        .await;
    assert!(matches!(stale, Err(StoreError::Changed(_))));
    let changed = store
        .update_account(&name, "New".to_owned(), Some(1), at(2))
        .await
        .unwrap();
    assert_eq!(
        (changed.display_name.as_str(), changed.revision),
        ("New", 2)
    );
    assert_eq!(store.account(&name).await.unwrap(), changed);

    for other in ["beta", "gamma"] {
        store
            .create_account(new_account(other, None))
            .await
            .unwrap();
    }
    let first = store.accounts("", 2).await.unwrap();
    assert!(first.more && first.items.len() == 2);
    let rest = store
        .accounts(first.items[1].name.id().as_str(), 2)
        .await
        .unwrap();
    assert!(!rest.more && rest.items.len() == 1);

    let gamma = AccountName::from(id("gamma"));
    store
        .delete_account(&gamma, None, false, at(9))
        .await
        .unwrap();
    assert!(matches!(
        store.account(&gamma).await,
        Err(StoreError::NotFound(_))
    ));
    assert!(
        store.data_key("accounts/gamma").await.is_err(),
        "its key goes with it"
    );
    store
        .create_account(new_account("gamma", None))
        .await
        .expect("the name is free again");
}

pub(super) async fn destinations(store: &impl Store) {
    let name = destination_name("acme", "orders");
    let made = store
        .create_destination(new_destination(&name, request("d1", "a")))
        .await
        .unwrap();
    let again = store
        .create_destination(new_destination(&name, request("d1", "a")))
        .await
        .unwrap();
    assert_eq!(made, again);
    assert_eq!(
        (made.generation, made.revision, made.active_certificate),
        (1, 1, 1)
    );
    let taken = store.create_destination(new_destination(&name, None)).await;
    assert!(matches!(taken, Err(StoreError::AlreadyExists(_))));
    let nowhere = destination_name("nobody", "orders");
    let refused = store
        .create_destination(new_destination(&nowhere, None))
        .await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))));

    let new = config("https://other.example/");
    let changed = store
        .update_destination(&name, new, Some(1), at(5))
        .await
        .unwrap();
    assert_eq!((changed.generation, changed.revision), (2, 2));
    assert_eq!(changed.config.url, "https://other.example/");
    assert_eq!(changed.config.region, Some(id("eu")));
    assert_eq!(
        store.destination_by_key(changed.key).await.unwrap(),
        changed
    );
    let state = DestinationState::Disabled;
    let disabled = store
        .set_destination_state(&name, state, at(6))
        .await
        .unwrap();
    assert_eq!((disabled.state, disabled.generation), (state, 2));
    store
        .set_destination_state(&name, DestinationState::Enabled, at(7))
        .await
        .unwrap();

    let source = store.bundle_source(&name).await.unwrap();
    assert_eq!((source.active.version, source.secrets.len()), (1, 1));
    assert_eq!(store.signing_secret(&name, None).await.unwrap().version, 1);
    assert!(matches!(
        store.signing_secret(&name, Some(9)).await,
        Err(StoreError::NotFound(_))
    ));
    assert_eq!(
        store.client_certificate(&name, 1).await.unwrap(),
        source.active
    );
    assert_eq!(
        store
            .client_certificates(&name, None, 10)
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert_eq!(
        store
            .client_certificates(&name, Some(1), 10)
            .await
            .unwrap()
            .items
            .len(),
        0
    );

    let account = AccountName::from(id("acme"));
    let kept = store.delete_account(&account, None, false, at(9)).await;
    assert!(
        matches!(kept, Err(StoreError::Precondition(_))),
        "it has destinations"
    );
    let gone = destination_name("acme", "gone");
    store
        .create_destination(new_destination(&gone, request("d2", "a")))
        .await
        .unwrap();
    store
        .delete_destination(&gone, None, false, at(9))
        .await
        .unwrap();
    assert!(matches!(
        store.destination(&gone).await,
        Err(StoreError::NotFound(_))
    ));
    let anew = store
        .create_destination(new_destination(&gone, request("d2", "a")))
        .await;
    assert_ne!(anew.unwrap().key, made.key, "handles are not reused");
    assert_eq!(
        store
            .destinations(&account, "", 10)
            .await
            .unwrap()
            .items
            .len(),
        2
    );
}

pub(super) async fn agents(store: &impl Store) {
    let token = JoinToken {
        name: id("token").into(),
        secret_sha256: [1; 32],
        region: Some(id("eu")),
        agent_id: None,
        source_ranges: Vec::new(),
        recovers: false,
        created_at: at(1),
        expires_at: at(100),
        revoked_at: None,
        used: None,
    };
    store.create_join_token(token.clone()).await.unwrap();
    let taken = store.create_join_token(token.clone()).await;
    assert!(matches!(taken, Err(StoreError::AlreadyExists(_))));
    let edge = AgentName::from(id("edge-1"));
    let enrollment = |agent: &AgentName, key: u8| Enrollment {
        token: token.name.clone(),
        used: JoinTokenUse {
            agent: agent.clone(),
            public_key_sha256: [key; 32],
        },
        region: Some(id("eu")),
        identity_not_after: at(50),
        now: at(2),
    };
    let made = store.enroll(enrollment(&edge, 1)).await.unwrap();
    assert_eq!(
        store.enroll(enrollment(&edge, 1)).await.unwrap(),
        made,
        "may be repeated"
    );
    for foreign in [enrollment(&edge, 2), enrollment(&id("edge-2").into(), 1)] {
        let refused = store.enroll(foreign).await;
        assert!(matches!(refused, Err(StoreError::Precondition(_))));
    }
    assert_eq!(
        store.join_token(&token.name).await.unwrap().used,
        Some(enrollment(&edge, 1).used)
    );
    store
        .create_join_token(JoinToken {
            name: id("second").into(),
            ..token.clone()
        })
        .await
        .unwrap();
    let second = Enrollment {
        token: id("second").into(),
        ..enrollment(&edge, 9)
    };
    assert!(matches!(
        store.enroll(second).await,
        Err(StoreError::AlreadyExists(_))
    ));
    assert!(
        store
            .join_token(&id("second").into())
            .await
            .unwrap()
            .used
            .is_none(),
        "a refused enrollment does not use the token up"
    );
    let revoked = store.revoke_join_token(&token.name, at(9)).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(at(9)));
    assert_eq!(store.join_tokens("", 10).await.unwrap().items.len(), 2);

    store
        .agent_seen(&edge, Some("1.2".to_owned()), None, at(10))
        .await
        .unwrap();
    let seen = store.agent(&edge).await.unwrap();
    assert_eq!((seen.version.as_str(), seen.last_seen_at), ("1.2", at(10)));
    assert_eq!(store.agents("", 10).await.unwrap().items, [seen]);
    for draining in [true, false] {
        let changed = store.set_agent_draining(&edge, draining).await.unwrap();
        assert_eq!(changed.draining, draining);
        assert_eq!(store.agent(&edge).await.unwrap(), changed);
    }
    let nobody = store.set_agent_draining(&id("nobody").into(), true).await;
    assert!(matches!(nobody, Err(StoreError::NotFound(_))));
    bundles(store, &edge).await;
}

async fn bundles(store: &impl Store, edge: &AgentName) {
    let destination = destination_name("acme", "orders");
    let word = |generation, status| BundleAcknowledgement {
        agent: edge.clone(),
        destination: destination.clone(),
        generation,
        status,
        reason: String::new(),
        at: at(3),
    };
    store
        .acknowledge_bundle(word(2, BundleStatus::Received))
        .await
        .unwrap();
    assert!(
        store
            .durable_agents(&destination, 2)
            .await
            .unwrap()
            .is_empty()
    );
    store
        .acknowledge_bundle(word(2, BundleStatus::Durable))
        .await
        .unwrap();
    store
        .acknowledge_bundle(word(1, BundleStatus::Refused))
        .await
        .unwrap();
    assert_eq!(
        store.durable_agents(&destination, 2).await.unwrap(),
        std::slice::from_ref(edge)
    );
}

pub(super) async fn signing_secrets(store: &impl Store) {
    let name = destination_name("acme", "secrets");
    let made = store
        .create_destination(new_destination(&name, None))
        .await
        .unwrap();
    let secret = |version| SigningSecret {
        public_key: [8; 32],
        version,
        sealed: Sealed(vec![version as u8]),
        created_at: at(2),
        expires_at: None,
    };
    let taken = store.add_signing_secret(&name, secret(1), at(50)).await;
    assert!(matches!(taken, Err(StoreError::Changed(_))));
    store
        .add_signing_secret(&name, secret(2), at(50))
        .await
        .unwrap();
    let source = store.bundle_source(&name).await.unwrap();
    let versions: Vec<_> = source.secrets.iter().map(|secret| secret.version).collect();
    assert_eq!(versions, [2, 1], "both are used, the newest first");
    assert_eq!(source.destination.generation, made.generation + 1);
    store
        .add_signing_secret(&name, secret(3), at(90))
        .await
        .unwrap();
    store
        .add_signing_secret(&name, secret(4), at(90))
        .await
        .unwrap();
    let crowd = store.add_signing_secret(&name, secret(5), at(90)).await;
    assert!(matches!(crowd, Err(StoreError::Precondition(_))));

    assert!(
        store
            .remove_expired_secrets(at(49))
            .await
            .unwrap()
            .is_empty()
    );
    let changed = store.remove_expired_secrets(at(50)).await.unwrap();
    assert_eq!(
        changed,
        std::slice::from_ref(&name),
        "a later rotation lengthens no grace"
    );
    let source = store.bundle_source(&name).await.unwrap();
    let versions: Vec<_> = source.secrets.iter().map(|secret| secret.version).collect();
    assert_eq!(versions, [4, 3, 2]);
    assert_eq!(source.destination.generation, made.generation + 4);
    store.remove_expired_secrets(at(1000)).await.unwrap();
    assert_eq!(store.signing_secret(&name, None).await.unwrap().version, 4);
    assert!(store.signing_secret(&name, Some(3)).await.is_err());
}
