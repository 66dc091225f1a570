//! Client certificates by trust model: which authority signs, under which names, for how long. The
//! shared authority is made when it is first needed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countersign_shared::{
    name::DestinationName,
    time::{Clock, Timestamp},
};

use crate::{
    ca::{self, CaError, ClientNames, NewClient, NewGeneration, SigningAuthority},
    model::{
        AuthorityOwner, AuthorityState, CertificateRequest, ClientCertificate,
        ClientCertificateState, DestinationConfig, TrustModel,
    },
    store::{Store, StoreError},
    vault::{INSTALLATION, Vault},
};

/// Issues client certificates.
#[derive(Clone)]
pub struct Issuing {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Seals keys.
    pub vault: Arc<Vault>,
    /// Vouches for authorities.
    pub root: Arc<SigningAuthority>,
    /// Host part of `spiffe://` URIs.
    pub trust_domain: Arc<str>,
    /// What the DNS names of the trust model SHARED end with.
    pub delivery_domain: Arc<str>,
    /// How long a client certificate is valid.
    pub life: Duration,
    /// Authorities that are open.
    pub opened: Arc<Opened>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Authorities that signed last, kept open: opening one costs as much as signing with it. Whether one
/// still signs is for the store to say when it gets the certificate; if not, what is kept is forgotten.
#[derive(Debug, Default)]
pub struct Opened(Mutex<HashMap<AuthorityOwner, Arc<Signer>>>);

/// An authority, and whether its cross certificate is presented.
#[derive(Debug)]
struct Signer {
    authority: SigningAuthority,
    with_cross: bool,
}

/// Authorities that are kept open at most; beyond that all are forgotten.
const KEPT_OPEN: usize = 1000;

impl Opened {
    fn get(&self, owner: &AuthorityOwner) -> Option<Arc<Signer>> {
        self.lock().get(owner).map(Arc::clone)
    }

    fn keep(&self, signer: &Arc<Signer>) {
        let mut kept = self.lock();
        if kept.len() >= KEPT_OPEN {
            kept.clear();
        }
        let owner = signer.authority.authority.owner.clone();
        kept.insert(owner, Arc::clone(signer));
    }

    /// What is kept is out of date.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Entries are whole or not there.
    fn lock(&self) -> MutexGuard<'_, HashMap<AuthorityOwner, Arc<Signer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Issuing {
    /// A certificate for a destination, from the authority that its trust model asks for; `None` when
    /// a receiver's own CA has to sign it.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn issue(
        &self,
        name: &DestinationName,
        config: &DestinationConfig,
        version: u32,
        state: ClientCertificateState,
    ) -> Result<Option<ClientCertificate>, CaError> {
        let now = self.clock.now();
        let owner = match config.trust_model {
            TrustModel::Customer => return Ok(None),
            TrustModel::Shared => AuthorityOwner::Shared,
            TrustModel::Dedicated => AuthorityOwner::Account(name.account_name()),
        };
        let signer = match self.opened.get(&owner) {
            Some(signer) => signer,
            None => self.open(owner, now).await?,
        };
        let names = self.names(name, config.trust_model);
        let store = self.store.as_ref();
        let scope = self.vault.account(store, &name.account_name()).await?;
        let new = NewClient {
            destination: name,
            version,
            names: &names,
            key_algorithm: config.key_algorithm,
            life: self.life,
            state,
            with_cross: signer.with_cross,
        };
        let authority = &signer.authority;
        let issued = ca::issue_client(&new, authority, &scope, store, now).await?;
        Ok(Some(issued))
    }

    async fn open(&self, owner: AuthorityOwner, now: Timestamp) -> Result<Arc<Signer>, CaError> {
        let authority = match &owner {
            AuthorityOwner::Shared => self.shared(now).await?,
            _ => {
                let active = self.active(&owner).await?;
                active.ok_or(CaError::NoAuthority(owner))?
            }
        };
        let with_cross = self.cross_helps(&authority).await?;
        let signer = Arc::new(Signer {
            authority,
            with_cross,
        });
        self.opened.keep(&signer);
        Ok(signer)
    }

    /// A key and a request for a receiver's own CA.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn request(
        &self,
        name: &DestinationName,
        config: &DestinationConfig,
        version: u32,
    ) -> Result<CertificateRequest, CaError> {
        let store = self.store.as_ref();
        let scope = self.vault.account(store, &name.account_name()).await?;
        let names = self.names(name, TrustModel::Customer);
        let algorithm = config.key_algorithm;
        let made = ca::new_request(name, version, &names, algorithm, &scope).await?;
        Ok(CertificateRequest {
            version,
            request: made.der,
            key_algorithm: algorithm,
            sealed_key: made.sealed_key,
            created_at: self.clock.now(),
        })
    }

    /// The names in a destination's client certificate.
    pub fn names(&self, name: &DestinationName, trust_model: TrustModel) -> ClientNames {
        ClientNames::of(trust_model, &self.trust_domain, &self.delivery_domain, name)
    }

    async fn active(&self, owner: &AuthorityOwner) -> Result<Option<SigningAuthority>, CaError> {
        SigningAuthority::active(owner, self.store.as_ref(), &self.vault).await
    }

    /// Makes the shared authority if there is none yet: receivers install its trust anchor before the
    /// first destination has a certificate of it.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn ensure_shared(&self) -> Result<(), CaError> {
        self.shared(self.clock.now()).await?;
        Ok(())
    }

    /// The shared authority, made if there is none yet.
    async fn shared(&self, now: Timestamp) -> Result<SigningAuthority, CaError> {
        let owner = AuthorityOwner::Shared;
        if let Some(active) = self.active(&owner).await? {
            return Ok(active);
        }
        let store = self.store.as_ref();
        if store.authorities(&owner).await?.is_empty() {
            let scope = self.vault.scope(store, INSTALLATION).await?;
            let first = NewGeneration::FIRST;
            let made = ca::new_shared_authority(first, &self.root, &scope, store, now).await?;
            let changed = store
                .change_authorities(&owner, Some(made.clone()), Vec::new(), now)
                .await;
            ca::forget_unused_key(&made, store, &self.vault, changed.as_ref().err()).await;
            match changed {
                // Somebody else was faster: theirs is as good.
                Ok(()) | Err(StoreError::Changed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.active(&owner)
            .await?
            .ok_or(CaError::NoAuthority(owner))
    }

    /// Whether receivers may still trust only the generation before: the one that signed when this one
    /// was made, however many were given up in between.
    async fn cross_helps(&self, authority: &SigningAuthority) -> Result<bool, CaError> {
        let signer = &authority.authority;
        if signer.cross.is_none() {
            return Ok(false);
        }
        let all = self.store.authorities(&signer.owner).await?;
        let mut older = all.iter().filter(|it| it.generation < signer.generation);
        Ok(older.any(|before| {
            matches!(
                before.state,
                AuthorityState::Active | AuthorityState::Superseded | AuthorityState::Retiring
            )
        }))
    }
}
