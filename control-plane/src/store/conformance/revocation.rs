//! Revocations, and the lists of them.

use countersign_shared::name::AccountName;

use super::{at, id, new_account};
use crate::{
    model::{AuthorityOwner, Crl, Revocation, RevocationReason},
    store::{Generation, Store, StoreError},
};

fn owner() -> AuthorityOwner {
    AuthorityOwner::Account(AccountName::from(id("revoker")))
}

fn revocation(serial: &str, not_after: i64) -> Revocation {
    Revocation {
        serial: serial.to_owned(),
        revoked_at: at(10),
        reason: RevocationReason::KeyCompromise,
        not_after: at(not_after),
    }
}

fn crl(number: u64) -> Crl {
    Crl {
        owner: owner(),
        generation: 1,
        number,
        this_update: at(1),
        next_update: at(9),
        der: vec![u8::try_from(number).unwrap(); 3],
    }
}

/// Whether the list is due at `seconds`.
async fn is_due(store: &impl Store, seconds: i64) -> bool {
    // More generations than a page, so that the pages' order shows.
    let mut after = None;
    let mut found: Vec<Generation> = Vec::new();
    loop {
        let page = store.crls_due(at(seconds), after, 2).await.unwrap();
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.clone());
        found.extend(page);
    }
    found.iter().filter(|it| **it == (owner(), 1)).count() == 1
}

pub(super) async fn lists(store: &impl Store) {
    let mut new = new_account("revoker", None);
    new.authority.not_after = at(1000);
    store.create_account(new).await.unwrap();
    let owner = owner();
    assert_eq!(store.crl(&owner, 1).await.unwrap(), None);
    assert!(is_due(store, 5).await, "from its birth on");
    assert!(!is_due(store, 1000).await, "not when it has ended");

    store.put_crl(crl(1), 0, at(100)).await.unwrap();
    assert_eq!(store.crl(&owner, 1).await.unwrap(), Some(crl(1)));
    assert!(!is_due(store, 99).await);
    assert!(is_due(store, 100).await);
    for not_greater in [crl(1), crl(0)] {
        let refused = store.put_crl(not_greater, 0, at(200)).await;
        assert!(
            matches!(refused, Err(StoreError::Changed(_))),
            "{refused:?}"
        );
    }
    assert_eq!(store.crl(&owner, 1).await.unwrap(), Some(crl(1)));
    let unknown = Crl {
        generation: 7,
        ..crl(1)
    };
    let refused = store.put_crl(unknown, 0, at(200)).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound(_))),
        "{refused:?}"
    );

    let (first, second) = (revocation("0a", 500), revocation("0b", 20));
    store.revoke(&owner, 1, vec![first.clone()]).await.unwrap();
    assert!(is_due(store, 5).await, "a revocation makes it due");
    let seen = store.revocations(&owner, 1, at(0)).await.unwrap();
    assert_eq!(seen.revocations, std::slice::from_ref(&first));
    // One that comes while the list is being signed.
    store.revoke(&owner, 1, vec![second.clone()]).await.unwrap();
    store.put_crl(crl(2), seen.last, at(200)).await.unwrap();
    assert!(is_due(store, 5).await, "it does not cover the second");
    let seen = store.revocations(&owner, 1, at(0)).await.unwrap();
    assert_eq!(seen.revocations, [first.clone(), second]);
    store.put_crl(crl(3), seen.last, at(200)).await.unwrap();
    assert!(!is_due(store, 199).await);
    let mut again = first.clone();
    again.revoked_at = at(11);
    store.revoke(&owner, 1, vec![again]).await.unwrap();
    assert!(!is_due(store, 199).await, "it is on the list already");
    let lasting = store.revocations(&owner, 1, at(20)).await.unwrap();
    assert_eq!(lasting.revocations, [first], "the other has ended");
    assert_eq!(lasting.last, seen.last);
    let other = store.revocations(&owner, 2, at(0)).await.unwrap();
    assert_eq!((other.revocations.len(), other.last), (0, 0));

    assert_eq!(store.crls(&owner).await.unwrap(), [crl(3)]);
    let root = AuthorityOwner::Root;
    assert!(store.crls(&root).await.unwrap().is_empty());
    // It goes with its account, and another of the name starts anew.
    let name = AccountName::from(id("revoker"));
    store
        .delete_account(&name, None, true, at(9))
        .await
        .unwrap();
    assert_eq!(store.crl(&owner, 1).await.unwrap(), None);
    assert!(!is_due(store, 5).await);
    let left = store.revocations(&owner, 1, at(0)).await.unwrap();
    assert_eq!(left.revocations, []);
}
