//! Destinations: made whole (first client certificate, first signing secret), changed with everybody
//! who must know being told; and what their receivers install.

mod receiver_configuration;

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    name::{AccountName, DestinationName, Id},
    secret::SecretText,
    signature::{self, SigningKeys},
    time::{Clock, Timestamp},
};

use tokio_util::sync::CancellationToken;

use crate::{
    auditing::AuditLog,
    ca::CaError,
    deliveries::Backlog,
    issuing::Issuing,
    model::{
        ClientCertificateState, Destination, DestinationConfig, DestinationState, RequestKey,
        SigningSecret,
    },
    signals::{Changes, DeadLetters, Holds, Poke, Wake},
    store::{NewDestination, Store, StoreError},
    vault::{Record, ScopeKey, Vault},
};

pub use receiver_configuration::{
    ReceiverConfiguration, ReceiverConfigurationError, ServerKind, receiver_configuration,
};

/// When the rotation of a new destination is looked at first, at the latest.
const FIRST_LOOK: Duration = Duration::from_secs(24 * 3600);
/// How often expired secrets are looked for.
const EXPIRY_LOOK: Duration = Duration::from_secs(10);

/// Makes and changes destinations.
#[derive(Clone)]
pub struct Destinations {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Seals keys and secrets.
    pub vault: Arc<Vault>,
    /// Told when deliveries may go out.
    pub wake: Arc<Wake>,
    /// Told when a bundle changes.
    pub changes: Arc<Changes>,
    /// Told when what holds deliveries may be gone.
    pub holds: Arc<Holds>,
    /// Told which destinations are gone.
    pub backlog: Arc<Backlog>,
    /// Makes first certificates.
    pub issuing: Issuing,
    /// Told when a destination's certificates are to be looked at.
    pub rotations: Arc<Poke>,
    /// Told when dead letters may hold ordering keys no longer.
    pub dead_letters: Arc<DeadLetters>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Destinations {
    /// Makes a destination with its first client certificate and signing secret.
    ///
    /// # Errors
    /// [`CaError`]; through it [`StoreError::NotFound`] without the account and
    /// [`StoreError::AlreadyExists`] when the name is taken.
    pub async fn create(
        &self,
        account: &AccountName,
        id: &Id,
        config: DestinationConfig,
        request: Option<RequestKey>,
    ) -> Result<Destination, CaError> {
        self.store.account(account).await?;
        let name = DestinationName::new(account.id(), id);
        if request.is_none() && self.store.destination(&name).await.is_ok() {
            return Err(StoreError::AlreadyExists(name.to_string()).into());
        }
        match self.make(&name, &config, &request).await {
            // The authority's next generation has just begun to sign.
            Err(CaError::Store(StoreError::Changed(_))) => {
                self.issuing.opened.forget();
                self.make(&name, &config, &request).await
            }
            made => made,
        }
    }

    async fn make(
        &self,
        name: &DestinationName,
        config: &DestinationConfig,
        request: &Option<RequestKey>,
    ) -> Result<Destination, CaError> {
        let now = self.clock.now();
        let account = &name.account_name();
        let scope = self.vault.account(self.store.as_ref(), account).await?;
        let first = ClientCertificateState::Active;
        let mut certificate = self.issuing.issue(name, config, 1, first).await?;
        let mut look_at = now;
        if let Some(certificate) = &mut certificate {
            certificate.activated_at = Some(now);
            // There is nothing to do for a while.
            look_at = now.plus((self.issuing.life / 4).min(FIRST_LOOK));
        }
        let secret = new_secret(name, 1, &scope, now)?;
        let new = NewDestination {
            name: name.clone(),
            config: config.clone(),
            certificate,
            secret,
            created_at: now,
            look_at,
            request: request.clone(),
        };
        let made = self.store.create_destination(new).await?;
        if look_at <= now {
            self.rotations.poke();
        }
        Ok(made)
    }

    /// Replaces what an operator decided.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn update(
        &self,
        name: &DestinationName,
        config: DestinationConfig,
        revision: Option<u64>,
    ) -> Result<Destination, StoreError> {
        let now = self.clock.now();
        let changed = self
            .store
            .update_destination(name, config, revision, now)
            .await?;
        self.changes.changed(name.clone());
        self.rotations.poke();
        self.dead_letters.changed(changed.key);
        // A new region or limit can let waiting deliveries go, and a new URL or trust held ones.
        self.wake.due(changed.key, now);
        self.holds.release(changed.key);
        Ok(changed)
    }

    /// Enables or disables.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_state(
        &self,
        name: &DestinationName,
        state: DestinationState,
    ) -> Result<Destination, StoreError> {
        let now = self.clock.now();
        let changed = self.store.set_destination_state(name, state, now).await?;
        self.wake.due(changed.key, now);
        if state == DestinationState::Enabled {
            self.holds.release(changed.key);
        }
        Ok(changed)
    }

    /// Removes a destination; agents forget its bundle.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(
        &self,
        name: &DestinationName,
        revision: Option<u64>,
        force: bool,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.store
            .delete_destination(name, revision, force, now)
            .await?;
        self.backlog.forget(name);
        self.changes.changed(name.clone());
        Ok(())
    }

    /// Makes a new signing secret; the older ones are used until the grace period is over. Answers with
    /// its version and that time.
    ///
    /// # Errors
    /// [`CaError`]; through it [`StoreError::NotFound`] and [`StoreError::Precondition`].
    pub async fn rotate_secret(
        &self,
        name: &DestinationName,
        grace: Duration,
    ) -> Result<(u32, Timestamp), CaError> {
        let newest = self.store.signing_secret(name, None).await?;
        let scope = name.account_text();
        let scope = self.vault.scope(self.store.as_ref(), scope).await?;
        let now = self.clock.now();
        let secret = new_secret(name, newest.version + 1, &scope, now)?;
        let (version, older_expire_at) = (secret.version, now.plus(grace));
        self.store
            .add_signing_secret(name, secret, older_expire_at)
            .await?;
        self.changes.changed(name.clone());
        Ok((version, older_expire_at))
    }

    /// Removes signing secrets whose grace period is over, every now and then until `shutdown`.
    ///
    /// # Errors
    /// None for now: a store that fails is tried again.
    pub async fn remove_expired_secrets(
        self,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut every = tokio::time::interval(EXPIRY_LOOK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = every.tick() => {}
            }
            match self.store.remove_expired_secrets(self.clock.now()).await {
                Ok(changed) => changed
                    .into_iter()
                    .for_each(|name| self.changes.changed(name)),
                Err(error) => tracing::warn!(%error, "expired secrets not removed; trying again"),
            }
        }
    }

    /// The text of a signing secret; `None`: the newest.
    ///
    /// # Errors
    /// [`CaError`]; through it [`StoreError::NotFound`].
    pub async fn reveal_secret(
        &self,
        name: &DestinationName,
        version: Option<u32>,
    ) -> Result<(SigningSecret, SecretText), CaError> {
        let secret = self.store.signing_secret(name, version).await?;
        let scope = name.account_text();
        let scope = self.vault.scope(self.store.as_ref(), scope).await?;
        let raw = scope.open(&secret.sealed, &Record::SigningSecret(name, secret.version))?;
        let keys = SigningKeys::from_bytes(&raw).ok_or_else(|| {
            let version = secret.version;
            StoreError::Corrupt(format!(
                "{name}/signingSecrets/{version} has another length"
            ))
        })?;
        AuditLog::discloses(self.store.as_ref()).await?;
        Ok((secret, signature::secret_to_text(&keys.secret)))
    }
}

fn new_secret(
    name: &DestinationName,
    version: u32,
    scope: &ScopeKey,
    now: Timestamp,
) -> Result<SigningSecret, CaError> {
    let (keys, public_key) = SigningKeys::generate();
    Ok(SigningSecret {
        version,
        sealed: scope.seal(&keys.to_bytes(), &Record::SigningSecret(name, version))?,
        public_key,
        created_at: now,
        expires_at: None,
    })
}
