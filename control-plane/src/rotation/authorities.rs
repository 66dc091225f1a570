//! What operators do to authorities: begin a rotation, carry it on, give it up, revoke a generation.

use std::sync::Arc;

use countersign_shared::{name::DestinationName, time::Clock};
use thiserror::Error;

use super::{
    agents::Agents,
    authority::{self, Blocked, Phase},
};
use crate::{
    ca::{self, CaError, ImportedAuthority, NewGeneration, SigningAuthority},
    crl::RevocationLists,
    issuing::Opened,
    model::{
        Authority, AuthorityOwner, AuthorityState, DestinationTrust, GenerationUse, Page,
        TrustModel, TrustState,
    },
    signals::{Changes, Poke},
    store::{Store, StoreError},
    vault::{INSTALLATION, Vault, VaultError},
};

/// How many destinations are counted in one query.
const PAGE: usize = 1000;

/// Why nothing was done.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new generation could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A key can't be sealed or opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The shared authority is never an imported one.
    #[error("only an account's authority can be imported: the shared one signs for all accounts")]
    Import,
    /// The rotation can't go on yet.
    #[error(transparent)]
    Blocked(#[from] Blocked),
}

/// Where an authority's rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityRotation {
    /// Which phase.
    pub phase: Phase,
    /// Every generation.
    pub generations: Vec<(Authority, GenerationUse)>,
    /// How many destinations stand how towards the generation that issues.
    pub trust: Vec<(TrustState, u64)>,
}

/// Rotates and revokes authorities.
#[derive(Clone)]
pub struct Authorities {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Seals keys.
    pub vault: Arc<Vault>,
    /// Vouches for authorities.
    pub root: Arc<SigningAuthority>,
    /// Told what must not be used any more.
    pub agents: Arc<dyn Agents>,
    /// Told when bundles change.
    pub changes: Arc<Changes>,
    /// Told when destinations are to be looked at.
    pub poke: Arc<Poke>,
    /// Signs revocation lists.
    pub lists: RevocationLists,
    /// Authorities that are kept open.
    pub opened: Arc<Opened>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Authorities {
    /// Makes the next generation, or takes in an existing authority as it, which only an account's can be. In an
    /// emergency it is not signed by the one before and signs at once.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub async fn rotate(
        &self,
        owner: &AuthorityOwner,
        imported: Option<ImportedAuthority>,
        emergency: bool,
    ) -> Result<AuthorityRotation, AuthorityError> {
        let known = self.generations(owner).await?;
        let (number, state, changes) = authority::begin(&states(&known), emergency)?;
        let store = self.store.as_ref();
        let active = authority::newest(&states(&known), AuthorityState::Active);
        let previous = match active {
            Some(active) if !emergency => {
                SigningAuthority::generation(owner, active, store, &self.vault).await?
            }
            _ => None,
        };
        let new = NewGeneration {
            number,
            state,
            previous: previous.as_ref(),
        };
        let made = self.make(owner, imported, new).await?;
        let now = self.clock.now();
        let changed = store
            .change_authorities(owner, Some(made.clone()), changes, now)
            .await;
        ca::forget_unused_key(&made, store, &self.vault, changed.as_ref().err()).await;
        changed?;
        tracing::warn!(authority = %owner, generation = number, emergency, "a new generation of the authority was made");
        self.changed();
        self.rotation(owner).await
    }

    async fn make(
        &self,
        owner: &AuthorityOwner,
        imported: Option<ImportedAuthority>,
        new: NewGeneration<'_>,
    ) -> Result<Authority, AuthorityError> {
        let (store, now) = (self.store.as_ref(), self.clock.now());
        Ok(match (owner, imported) {
            (AuthorityOwner::Account(account), Some(imported)) => {
                let scope = self.vault.account(store, account).await?;
                ca::import_account_authority(account, new, imported, &scope, store, now).await?
            }
            (AuthorityOwner::Account(account), None) => {
                let scope = self.vault.account(store, account).await?;
                ca::new_account_authority(account, new, &self.root, &scope, store, now).await?
            }
            (_, Some(_)) => return Err(AuthorityError::Import),
            (_, None) => {
                let scope = self.vault.scope(store, INSTALLATION).await?;
                ca::new_shared_authority(new, &self.root, &scope, store, now).await?
            }
        })
    }

    /// Goes to the next phase, if the evidence for it is there.
    ///
    /// # Errors
    /// [`AuthorityError::Blocked`] with what is missing.
    pub async fn advance(
        &self,
        owner: &AuthorityOwner,
    ) -> Result<AuthorityRotation, AuthorityError> {
        let rotation = self.rotation(owner).await?;
        let states = states_of(&rotation);
        let goes = |(authority, _): &&(Authority, GenerationUse)| {
            authority.state == AuthorityState::Superseded
        };
        let mut used = GenerationUse::default();
        for (_, of_one) in rotation.generations.iter().filter(goes) {
            used.active += of_one.active;
            used.standby += of_one.standby;
        }
        let waiting = rotation.trust.iter().filter(|(state, _)| !state.settles());
        let waiting = waiting.map(|(_, count)| count).sum();
        let changes = authority::advance(&states, used, waiting)?;
        self.write(owner, changes).await?;
        self.rotation(owner).await
    }

    /// Gives a rotation up.
    ///
    /// # Errors
    /// [`AuthorityError::Blocked`] when it is too late.
    pub async fn abort(&self, owner: &AuthorityOwner) -> Result<AuthorityRotation, AuthorityError> {
        let known = self.generations(owner).await?;
        let changes = authority::abort(&states(&known))?;
        self.write(owner, changes).await?;
        self.rotation(owner).await
    }

    async fn write(
        &self,
        owner: &AuthorityOwner,
        changes: Vec<crate::store::AuthorityChange>,
    ) -> Result<(), StoreError> {
        for change in &changes {
            tracing::info!(authority = %owner, generation = change.generation, from = ?change.from, to = ?change.to, "the authority's rotation goes on");
        }
        let now = self.clock.now();
        self.store
            .change_authorities(owner, None, changes, now)
            .await?;
        self.changed();
        Ok(())
    }

    /// Revokes a generation and all that it signed. If it was the one that signs, a new one takes its
    /// place at once, without its help.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub async fn revoke(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
    ) -> Result<(AuthorityRotation, Vec<DestinationName>), AuthorityError> {
        let known = self.generations(owner).await?;
        let mut found = known.iter();
        let found = found.find(|it| it.generation == generation);
        if found.is_some_and(|it| it.state == AuthorityState::Active) {
            self.rotate(owner, None, true).await?;
        }
        let now = self.clock.now();
        let names = self.store.revoke_authority(owner, generation, now).await?;
        let count = names.len();
        tracing::warn!(authority = %owner, generation, destinations = count, "authority revoked");
        for name in &names {
            let stops = self.store.stops(name).await?;
            let open = stops.into_iter().filter(|it| it.acknowledged_at.is_none());
            let serials: Vec<String> = open.map(|stop| stop.serial).collect();
            self.agents.revoke(name, &serials).await;
            self.changes.changed(name.clone());
        }
        self.changed();
        Ok((self.rotation(owner).await?, names))
    }

    /// Where the rotation is.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub async fn rotation(
        &self,
        owner: &AuthorityOwner,
    ) -> Result<AuthorityRotation, AuthorityError> {
        let known = self.generations(owner).await?;
        let phase = authority::phase(&states(&known));
        let active = authority::newest(&states(&known), AuthorityState::Active);
        let trust = match (phase, active) {
            (Phase::Issuing | Phase::Retiring, Some(active)) => {
                self.count_trust(owner, active).await?
            }
            _ => Vec::new(),
        };
        let mut generations = Vec::with_capacity(known.len());
        for generation in known {
            let used = self
                .store
                .generation_use(owner, generation.generation)
                .await?;
            generations.push((generation, used));
        }
        Ok(AuthorityRotation {
            phase,
            generations,
            trust,
        })
    }

    async fn count_trust(
        &self,
        owner: &AuthorityOwner,
        generation: u32,
    ) -> Result<Vec<(TrustState, u64)>, StoreError> {
        let states = [
            TrustState::Unknown,
            TrustState::ProbedOk,
            TrustState::ProbedRefused,
            TrustState::Acknowledged,
            TrustState::Exempt,
        ];
        let mut counts = states.map(|state| (state, 0));
        let mut after = None;
        loop {
            let page = self
                .store
                .destination_trust(owner, generation, after.as_ref(), PAGE)
                .await?;
            for item in &page.items {
                let mut places = counts.iter_mut();
                if let Some((_, count)) = places.find(|(state, _)| *state == item.state) {
                    *count += 1;
                }
            }
            match page.items.last() {
                Some(last) if page.more => after = Some(last.destination.clone()),
                _ => return Ok(counts.to_vec()),
            }
        }
    }

    /// How each destination stands towards the generation that issues.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub async fn trust(
        &self,
        owner: &AuthorityOwner,
        after: Option<&DestinationName>,
        size: usize,
    ) -> Result<Page<DestinationTrust>, AuthorityError> {
        let known = self.generations(owner).await?;
        let active = authority::newest(&states(&known), AuthorityState::Active);
        let active = active.ok_or(Blocked::NoneActive)?;
        Ok(self
            .store
            .destination_trust(owner, active, after, size)
            .await?)
    }

    /// Says how a destination stands towards the generation that issues.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub async fn set_trust(
        &self,
        name: &DestinationName,
        state: TrustState,
    ) -> Result<(), AuthorityError> {
        let found = self.store.destination(name).await?;
        let owner = match found.config.trust_model {
            TrustModel::Dedicated => AuthorityOwner::Account(name.account_name()),
            TrustModel::Shared => AuthorityOwner::Shared,
            TrustModel::Customer => return Err(Blocked::NoneActive.into()),
        };
        let known = self.generations(&owner).await?;
        let active = authority::newest(&states(&known), AuthorityState::Active);
        let active = active.ok_or(Blocked::NoneActive)?;
        let now = self.clock.now();
        self.store.set_trust(name, active, state, now).await?;
        Ok(())
    }

    async fn generations(&self, owner: &AuthorityOwner) -> Result<Vec<Authority>, AuthorityError> {
        let known = self.store.authorities(owner).await?;
        if known.is_empty() {
            return Err(StoreError::NotFound(format!("the authority of {owner}")).into());
        }
        Ok(known)
    }

    fn changed(&self) {
        self.opened.forget();
        self.lists.due.poke();
        self.poke.poke();
    }
}

fn states(known: &[Authority]) -> Vec<(u32, AuthorityState)> {
    known.iter().map(|it| (it.generation, it.state)).collect()
}

fn states_of(rotation: &AuthorityRotation) -> Vec<(u32, AuthorityState)> {
    let known = rotation.generations.iter();
    known.map(|(it, _)| (it.generation, it.state)).collect()
}
