//! Accounts: a tenant, its data key and its certificate authority, made together.

use std::sync::Arc;

use countersign_shared::{name::AccountName, time::Clock};

use crate::{
    ca::{self, CaError, NewGeneration, SigningAuthority},
    crl::RevocationLists,
    deliveries::Backlog,
    model::{Account, AuthorityOwner, RequestKey},
    store::{NewAccount, Store, StoreError},
    vault::Vault,
};

/// Makes and removes accounts.
#[derive(Clone)]
pub struct Accounts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Seals the authority's key.
    pub vault: Arc<Vault>,
    /// Vouches for accounts' authorities.
    pub root: Arc<SigningAuthority>,
    /// Signs the authority's first revocation list.
    pub lists: RevocationLists,
    /// Told which accounts are gone.
    pub backlog: Arc<Backlog>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Accounts {
    /// Makes an account with the first generation of its authority.
    ///
    /// # Errors
    /// [`CaError`]; through it [`StoreError::AlreadyExists`] when the name is taken.
    pub async fn create(
        &self,
        name: AccountName,
        display_name: String,
        request: Option<RequestKey>,
    ) -> Result<Account, CaError> {
        // Most refusals are found out before anything is signed; the store has the last word.
        if request.is_none() && self.store.account(&name).await.is_ok() {
            return Err(StoreError::AlreadyExists(name.to_string()).into());
        }
        let now = self.clock.now();
        let (data_key, scope) = self.vault.new_scope(&name.to_string()).await?;
        let store = self.store.as_ref();
        let first = NewGeneration::FIRST;
        let authority =
            ca::new_account_authority(&name, first, &self.root, &scope, store, now).await?;
        let account = Account {
            name,
            display_name,
            created_at: now,
            updated_at: now,
            revision: 1,
        };
        let new = NewAccount {
            account,
            data_key,
            authority,
            request,
        };
        let authority = new.authority.clone();
        let made = self.store.create_account(new).await;
        ca::forget_unused_key(&authority, store, &self.vault, made.as_ref().err()).await;
        let made = made?;
        let owner = AuthorityOwner::Account(made.name.clone());
        // It is due all the same, so a failure costs no more than a moment without it.
        if let Err(error) = self.lists.sign_now(&owner, 1).await {
            tracing::warn!(%owner, %error, "first revocation list not signed; trying again");
        }
        Ok(made)
    }

    /// Removes an account. Its data key goes with it, so nothing of it can be opened any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(
        &self,
        name: &AccountName,
        revision: Option<u64>,
        force: bool,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let owner = AuthorityOwner::Account(name.clone());
        let generations = self.store.authorities(&owner).await?;
        self.store
            .delete_account(name, revision, force, now)
            .await?;
        for generation in &generations {
            ca::forget_key(generation, &self.vault).await;
        }
        self.vault.forget(&name.to_string());
        self.backlog.forget_account(name);
        Ok(())
    }
}
