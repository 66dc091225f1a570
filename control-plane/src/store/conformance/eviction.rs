//! An agent that is taken out while it is given work.

use countersign_shared::name::AgentName;

use super::{
    at,
    delivery::{fresh, lease, new},
    id,
};
use crate::{
    model::{Enrollment, JoinToken, JoinTokenUse},
    store::Store,
};

/// How often it is tried which of the two is first.
const TRIES: u8 = 20;

/// An agent with a token of its own.
async fn enrolled(store: &impl Store, text: &str) -> AgentName {
    let token = JoinToken {
        name: id(text).into(),
        secret_sha256: [1; 32],
        region: None,
        agent_id: None,
        source_ranges: Vec::new(),
        recovers: false,
        created_at: at(1),
        expires_at: at(100),
        revoked_at: None,
        used: None,
    };
    let agent = AgentName::from(id(text));
    let enrollment = Enrollment {
        token: token.name.clone(),
        used: JoinTokenUse {
            agent: agent.clone(),
            public_key_sha256: [1; 32],
        },
        region: None,
        identity_not_after: at(50),
        now: at(2),
    };
    store.create_join_token(token).await.unwrap();
    store.enroll(enrollment).await.unwrap().name
}

/// Whichever is first, the lease or the eviction: no lease is left, and what was leased is due for others.
pub(super) async fn takes_every_lease_back(store: &impl Store) {
    let (name, key) = fresh(store, "evicting").await;
    store.submit(new(&name, 1, None)).await.unwrap();
    let other = enrolled(store, "stays").await;
    for n in 0..TRIES {
        let agent = enrolled(store, &format!("leaves-{n}")).await;
        let (_, out) = tokio::join!(lease(store, key, &agent, 1, 100), async {
            match n % 2 {
                0 => store.evict_agent(&agent, at(100)).await.map(|_| ()),
                _ => store.suspend_agent(&agent, at(100)).await.map(|_| ()),
            }
        });
        out.unwrap();
        assert_eq!(store.leases_of(&agent).await.unwrap(), 0);
        assert_eq!(lease(store, key, &agent, 1, 100).await.len(), 0);
        assert!(store.due_of(key).await.unwrap() <= Some(at(100)));
    }
    assert_eq!(lease(store, key, &other, 1, 100).await.len(), 1);
    store
        .delete_destination(&name, None, true, at(9))
        .await
        .unwrap();
}
