//! The vault: seals every secret before the store sees it, and opens it again.
//!
//! Three layers: the KEK wraps a data key for each scope (the installation, each account); a scope's
//! data key wraps a key of each secret's own; that key encrypts the secret. Each layer is bound to
//! what it is for, so that blobs can't be swapped. Without its data key an account's secrets are
//! noise, wherever copies of them are.
//!
//! Payloads are many, so each is sealed directly, under a key derived from the account's data key and
//! the delivery's id.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard},
};

use bytes::Bytes;
use countersign_shared::{
    name::{AccountName, AgentName, DeliveryId, DestinationName},
    seal::{KEY_LENGTH, OVERHEAD, RecordKeys, SealError, SealingKey},
    secret::SecretBytes,
    signature::ed25519::SigningKey,
    time::Timestamp,
};
use thiserror::Error;
use tokio::sync::OnceCell;

use crate::{
    kek::{KekError, KekProvider},
    model::{AuthorityOwner, Sealed},
    pkcs11::TokenKeys,
    store::{DataKey, InstallationStore, StoreError},
};

/// Scope of what belongs to no account.
pub const INSTALLATION: &str = "installation";

/// Data keys that are kept in memory at most; beyond that some are dropped, and unwrapped again when they are
/// needed.
const CACHED_SCOPES: usize = 10_000;

/// Format of a sealed secret: its first byte.
const FORMAT: u8 = 1;

/// Why a secret could not be sealed or opened.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The KEK provider did not do it.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The data key could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The KEK's provider has not served for too long.
    #[error(
        "the KEK's provider has not served since {0}, which is longer than kek.max_outage_seconds: nothing is \
         sealed or opened until it does"
    )]
    Closed(Timestamp),
    /// The blob is altered, or another record's.
    #[error("{0}: {1}")]
    Seal(String, SealError),
}

impl VaultError {
    /// Whether the KEK's provider is at fault, which passes.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Kek(error) => error.is_outage(),
            Self::Closed(_) => true,
            Self::Store(_) | Self::Seal(..) => false,
        }
    }
}

/// What a sealed secret belongs to: a blob opens for this record only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// An authority's private key.
    AuthorityKey(&'a AuthorityOwner, u32),
    /// A client certificate's private key.
    ClientKey(&'a DestinationName, u32),
    /// A signing secret.
    SigningSecret(&'a DestinationName, u32),
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthorityKey(owner, generation) => {
                write!(f, "key of authority {owner} generation {generation}")
            }
            Self::ClientKey(destination, version) => {
                write!(f, "key of {destination}/clientCertificates/{version}")
            }
            Self::SigningSecret(destination, version) => {
                write!(f, "{destination}/signingSecrets/{version}")
            }
        }
    }
}

/// Seals and opens. Data keys are unwrapped once and kept in memory, also while the KEK's provider is away.
#[derive(Debug)]
pub struct Vault {
    kek: Arc<dyn KekProvider>,
    /// The one before, while data keys are wrapped by it.
    previous: Option<Arc<dyn KekProvider>>,
    /// A cell is filled by one for all who wait for it.
    scopes: RwLock<HashMap<String, Cell>>,
    /// Since when the KEK's provider has not served, once that is too long.
    closed: RwLock<Option<Timestamp>>,
    /// Told of what does not open.
    alarm: Alarm,
    /// The token in which authorities' keys are made.
    authority_keys: Option<Arc<TokenKeys>>,
}

/// Told of what does not open although its key is right: it was altered, or is another record's.
#[derive(Clone, Default)]
struct Alarm(Arc<OnceLock<Tell>>);

type Tell = Box<dyn Fn(&str) + Send + Sync>;

impl Alarm {
    /// The error for it, when it does not.
    fn seal(&self, what: String, error: SealError) -> VaultError {
        if error == SealError::DoesNotOpen
            && let Some(tell) = self.0.get()
        {
            tell(&what);
        }
        VaultError::Seal(what, error)
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}

type Cell = Arc<OnceCell<Arc<ScopeKey>>>;

impl Vault {
    /// A vault over this KEK.
    pub fn new(kek: Arc<dyn KekProvider>) -> Self {
        Self::replacing(kek, None)
    }

    /// A vault over this KEK, some of whose data keys may still be wrapped by the one before.
    pub fn replacing(kek: Arc<dyn KekProvider>, previous: Option<Arc<dyn KekProvider>>) -> Self {
        Self {
            kek,
            previous,
            scopes: RwLock::default(),
            closed: RwLock::default(),
            alarm: Alarm::default(),
            authority_keys: None,
        }
    }

    /// Authorities' keys are made in this token, and stay there.
    #[must_use]
    pub fn with_authority_keys(self, keys: Option<Arc<TokenKeys>>) -> Self {
        Self {
            authority_keys: keys,
            ..self
        }
    }

    /// The token in which authorities' keys are made, if that is where they are.
    pub fn authority_keys(&self) -> Option<&Arc<TokenKeys>> {
        self.authority_keys.as_ref()
    }

    /// From now on `tell` is told what does not open; the first one counts.
    pub fn on_alteration(&self, tell: impl Fn(&str) + Send + Sync + 'static) {
        // The other one tells already.
        let _ = self.alarm.0.set(Box::new(tell));
    }

    fn ready(&self, key: SealingKey) -> Arc<ScopeKey> {
        Arc::new(ScopeKey {
            payload_keys: RecordKeys::of(&key),
            key,
            alarm: self.alarm.clone(),
            authority_keys: self.authority_keys.clone(),
        })
    }

    /// Whether every KEK in use can still be used.
    ///
    /// # Errors
    /// [`KekError`] of the first that can not.
    pub async fn check(&self) -> Result<(), KekError> {
        self.kek.check().await?;
        match &self.previous {
            Some(previous) => previous.check().await,
            None => Ok(()),
        }
    }

    /// Forgets every data key, and gives out none until [`Vault::reopen`]: the provider has not served since
    /// then.
    pub fn close(&self, since: Timestamp) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = Some(since);
        self.cells_mut().clear();
    }

    /// Gives out data keys again.
    pub fn reopen(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether data keys are given out.
    ///
    /// # Errors
    /// [`VaultError::Closed`].
    pub fn is_open(&self) -> Result<(), VaultError> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        closed.map_or(Ok(()), |since| Err(VaultError::Closed(since)))
    }

    fn cells_mut(&self) -> RwLockWriteGuard<'_, HashMap<String, Cell>> {
        self.scopes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which KEK wraps what is new.
    pub fn kek_id(&self) -> &str {
        self.kek.id()
    }

    async fn unwrap(&self, key: &DataKey) -> Result<SecretBytes, VaultError> {
        let keks = std::iter::once(&self.kek).chain(&self.previous);
        let mut right = keks.filter(|kek| kek.id() == key.kek_id);
        let unknown = || KekError::Unknown(key.scope.clone(), key.kek_id.clone());
        let kek = right.next().ok_or_else(unknown)?;
        match kek.unwrap(&key.wrapped, &key.scope).await {
            Err(KekError::Seal(error)) => {
                Err(self.alarm.seal(format!("data key of {}", key.scope), error))
            }
            unwrapped => Ok(unwrapped?),
        }
    }

    /// The same data key, wrapped by the present KEK.
    ///
    /// # Errors
    /// [`VaultError::Kek`].
    pub async fn rewrapped(&self, key: &DataKey) -> Result<DataKey, VaultError> {
        let raw = self.unwrap(key).await?;
        Ok(DataKey {
            scope: key.scope.clone(),
            wrapped: self.kek.wrap(&raw, &key.scope).await?,
            kek_id: self.kek.id().to_owned(),
        })
    }

    /// Something that the present KEK wraps now, to compare with.
    ///
    /// # Errors
    /// [`VaultError::Kek`].
    pub async fn fresh(&self) -> Result<Vec<u8>, VaultError> {
        let key = SealingKey::generate();
        Ok(self.kek.wrap(key.expose(), INSTALLATION).await?)
    }

    /// Whether a data key is wrapped by the present KEK, by the version of it that has wrapped `fresh`.
    pub fn is_newest(&self, key: &DataKey, fresh: &[u8]) -> bool {
        key.kek_id == self.kek.id() && self.kek.is_of_version(&key.wrapped, fresh)
    }

    /// A new data key for a scope, wrapped for the store. It is used once the store has it.
    ///
    /// # Errors
    /// [`VaultError::Kek`].
    pub async fn new_scope(&self, scope: &str) -> Result<(DataKey, Arc<ScopeKey>), VaultError> {
        self.is_open()?;
        let key = SealingKey::generate();
        let wrapped = self.kek.wrap(key.expose(), scope).await?;
        let data_key = DataKey {
            scope: scope.to_owned(),
            wrapped,
            kek_id: self.kek.id().to_owned(),
        };
        Ok((data_key, self.ready(key)))
    }

    /// The key of a scope that the store has.
    ///
    /// # Errors
    /// [`VaultError`] when the store has none, or it does not unwrap.
    pub async fn scope(
        &self,
        store: &dyn InstallationStore,
        scope: &str,
    ) -> Result<Arc<ScopeKey>, VaultError> {
        self.is_open()?;
        let cell = self.cell(scope);
        if let Some(key) = cell.get() {
            return Ok(Arc::clone(key));
        }
        // Boxed: it is rare, and who calls this is not to carry it along.
        let key = Box::pin(self.fill(&cell, store, scope)).await;
        if key.is_err() {
            // What is not there takes no room.
            let mut scopes = self.cells_mut();
            if scopes.get(scope).is_some_and(|cell| !cell.initialized()) {
                scopes.remove(scope);
            }
        }
        let key = key?;
        self.is_open().map(|()| key)
    }

    async fn fill(
        &self,
        cell: &Cell,
        store: &dyn InstallationStore,
        scope: &str,
    ) -> Result<Arc<ScopeKey>, VaultError> {
        let key = cell.get_or_try_init(async || {
            let data_key = store.data_key(scope).await?;
            let raw = self.unwrap(&data_key).await?;
            let key = SealingKey::from_bytes(raw)
                .map_err(|error| VaultError::Seal(format!("data key of {scope}"), error))?;
            Ok::<_, VaultError>(self.ready(key))
        });
        key.await.cloned()
    }

    /// Where the key of a scope is, or will be.
    fn cell(&self, scope: &str) -> Cell {
        let scopes = self.scopes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = scopes.get(scope) {
            return Arc::clone(cell);
        }
        drop(scopes);
        let mut scopes = self.cells_mut();
        if scopes.len() >= CACHED_SCOPES && !scopes.contains_key(scope) {
            // Any one will do; all at once would be a storm of calls to the provider.
            let any = scopes.keys().next().cloned();
            any.and_then(|any| scopes.remove(&any));
        }
        Arc::clone(scopes.entry(scope.to_owned()).or_default())
    }

    /// The key of an account's scope.
    ///
    /// # Errors
    /// As [`Vault::scope`].
    pub async fn account(
        &self,
        store: &dyn InstallationStore,
        account: &AccountName,
    ) -> Result<Arc<ScopeKey>, VaultError> {
        self.scope(store, &account.to_string()).await
    }

    /// Forgets the key of a scope that is gone.
    pub fn forget(&self, scope: &str) {
        self.cells_mut().remove(scope);
    }
}

/// A scope's data key, ready to use.
#[derive(Debug)]
pub struct ScopeKey {
    key: SealingKey,
    /// Of deliveries, which are many.
    payload_keys: RecordKeys,
    alarm: Alarm,
    authority_keys: Option<Arc<TokenKeys>>,
}

impl ScopeKey {
    /// The token in which authorities' keys are made, if that is where they are.
    pub fn authority_keys(&self) -> Option<&Arc<TokenKeys>> {
        self.authority_keys.as_ref()
    }

    /// Seals a secret under a new key of its own.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when it is larger than AES-GCM takes.
    pub fn seal(&self, secret: &SecretBytes, record: &Record<'_>) -> Result<Sealed, VaultError> {
        let identity = record.to_string();
        let failed = |error| VaultError::Seal(identity.clone(), error);
        let own = SealingKey::generate();
        let wrapped = self.key.seal(own.expose().expose(), identity.as_bytes());
        let content = own.seal(secret.expose(), identity.as_bytes());
        let mut blob = vec![FORMAT];
        blob.extend(wrapped.map_err(failed)?);
        blob.extend(content.map_err(failed)?);
        Ok(Sealed(blob))
    }

    /// Opens what [`ScopeKey::seal`] made for the same record.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when it is altered or another record's.
    pub fn open(&self, sealed: &Sealed, record: &Record<'_>) -> Result<SecretBytes, VaultError> {
        let identity = record.to_string();
        let open = || {
            let (format, rest) = sealed.0.split_first().ok_or(SealError::DoesNotOpen)?;
            let (wrapped, content) = rest
                .split_at_checked(KEY_LENGTH + OVERHEAD)
                .filter(|_| *format == FORMAT)
                .ok_or(SealError::DoesNotOpen)?;
            let own = self.key.open(wrapped, identity.as_bytes())?;
            SealingKey::from_bytes(own)?.open(content, identity.as_bytes())
        };
        open().map_err(|error| self.alarm.seal(identity.clone(), error))
    }

    /// The key that signs the audit log: it follows from the installation's data key.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when no pair follows, which does not happen.
    pub fn audit_key(&self) -> Result<SigningKey, VaultError> {
        let seed = self.key.derive(b"audit log checkpoints");
        let unfit = || VaultError::Seal("audit key".to_owned(), SealError::DoesNotOpen);
        SigningKey::from_seed(seed.expose()).ok_or_else(unfit)
    }

    /// The key that an agent's journal is sealed with, where it is released: it follows from the installation's
    /// data key. `since` tells agents apart that have the same name one after the other.
    pub fn journal_key(&self, agent: &AgentName, since: Timestamp) -> SecretBytes {
        let purpose = format!("journal of {agent} since {}", since.as_unix_micros());
        let key = self.key.derive(purpose.as_bytes());
        SecretBytes::from(key.expose().expose().to_vec())
    }

    /// Seals a delivery's content, which lies in several pieces.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when it is larger than AES-GCM takes.
    pub fn seal_payload(&self, id: DeliveryId, parts: &[&[u8]]) -> Result<Vec<u8>, VaultError> {
        let key = self.payload_keys.key(id.as_bytes());
        key.and_then(|key| key.seal(parts, id.as_bytes()))
            .map_err(|error| VaultError::Seal(format!("payload of {id}"), error))
    }

    /// Opens a delivery's payload.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when it is altered or another delivery's.
    pub fn open_payload(&self, id: DeliveryId, sealed: Vec<u8>) -> Result<Bytes, VaultError> {
        let key = self.payload_keys.key(id.as_bytes());
        key.and_then(|key| key.open_in_place(sealed, id.as_bytes()))
            .map_err(|error| self.alarm.seal(format!("payload of {id}"), error))
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::{name::Id, random};

    use super::*;

    fn key() -> ScopeKey {
        let key = SealingKey::generate();
        ScopeKey {
            payload_keys: RecordKeys::of(&key),
            key,
            alarm: Alarm::default(),
            authority_keys: None,
        }
    }

    #[test]
    fn a_secret_opens_for_its_own_record_in_its_own_scope_only() {
        let (one, other) = (key(), key());
        let account = Id::chosen("acme").unwrap();
        let destination = DestinationName::new(&account, &account);
        let secret = SecretBytes::from(b"private".to_vec());
        let record = Record::SigningSecret(&destination, 1);
        let sealed = one.seal(&secret, &record).unwrap();
        assert_eq!(one.open(&sealed, &record).unwrap(), secret);
        assert!(other.open(&sealed, &record).is_err());
        assert!(
            one.open(&sealed, &Record::SigningSecret(&destination, 2))
                .is_err()
        );
        assert!(
            one.open(&sealed, &Record::ClientKey(&destination, 1))
                .is_err()
        );
        for length in 0..sealed.0.len() {
            let cut = Sealed(sealed.0[..length].to_vec());
            assert!(one.open(&cut, &record).is_err());
        }
    }

    #[test]
    fn a_payload_opens_for_its_own_delivery_only() {
        let key = key();
        let now = Timestamp::from_unix_seconds(1);
        let (a, b) = (random::uuid_v7(now).into(), random::uuid_v7(now).into());
        let sealed = key.seal_payload(a, &[b"bo", b"dy"]).unwrap();
        assert_eq!(key.open_payload(a, sealed.clone()).unwrap(), "body");
        assert!(key.open_payload(b, sealed).is_err());
    }
}
