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
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use countersign_shared::{
    name::{AccountName, DeliveryId, DestinationName},
    seal::{KEY_LENGTH, OVERHEAD, SealError, SealingKey},
    secret::SecretBytes,
    signature::ed25519::SigningKey,
};
use thiserror::Error;

use crate::{
    kek::{KekError, KekProvider},
    model::{AuthorityOwner, Sealed},
    store::{DataKey, InstallationStore, StoreError},
};

/// Scope of what belongs to no account.
pub const INSTALLATION: &str = "installation";

/// Data keys that are kept in memory at most; beyond that all are dropped and fetched again.
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
    /// The blob is altered, or another record's.
    #[error("{0}: {1}")]
    Seal(String, SealError),
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

/// Seals and opens. Data keys are unwrapped once and kept in memory.
#[derive(Debug)]
pub struct Vault {
    kek: Arc<dyn KekProvider>,
    /// The one before, while data keys are wrapped by it.
    previous: Option<Arc<dyn KekProvider>>,
    scopes: RwLock<HashMap<String, Arc<ScopeKey>>>,
}

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
        }
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
        Ok(kek.unwrap(&key.wrapped, &key.scope).await?)
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

    /// A new data key for a scope, wrapped for the store. It is used once the store has it.
    ///
    /// # Errors
    /// [`VaultError::Kek`].
    pub async fn new_scope(&self, scope: &str) -> Result<(DataKey, Arc<ScopeKey>), VaultError> {
        let key = SealingKey::generate();
        let wrapped = self.kek.wrap(key.expose(), scope).await?;
        let data_key = DataKey {
            scope: scope.to_owned(),
            wrapped,
            kek_id: self.kek.id().to_owned(),
        };
        Ok((data_key, Arc::new(ScopeKey(key))))
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
        let cached = self
            .scopes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(scope)
            .cloned();
        if let Some(key) = cached {
            return Ok(key);
        }
        let data_key = store.data_key(scope).await?;
        let raw = self.unwrap(&data_key).await?;
        let key = SealingKey::from_bytes(raw)
            .map_err(|error| VaultError::Seal(format!("data key of {scope}"), error))?;
        let key = Arc::new(ScopeKey(key));
        let mut scopes = self.scopes.write().unwrap_or_else(PoisonError::into_inner);
        if scopes.len() >= CACHED_SCOPES {
            scopes.clear();
        }
        scopes.insert(scope.to_owned(), Arc::clone(&key));
        Ok(key)
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
        let mut scopes = self.scopes.write().unwrap_or_else(PoisonError::into_inner);
        scopes.remove(scope);
    }
}

/// A scope's data key, ready to use.
#[derive(Debug)]
pub struct ScopeKey(SealingKey);

impl ScopeKey {
    /// Seals a secret under a new key of its own.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when it is larger than AES-GCM takes.
    pub fn seal(&self, secret: &SecretBytes, record: &Record<'_>) -> Result<Sealed, VaultError> {
        let identity = record.to_string();
        let failed = |error| VaultError::Seal(identity.clone(), error);
        let own = SealingKey::generate();
        let wrapped = self.0.seal(own.expose().expose(), identity.as_bytes());
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
            let own = self.0.open(wrapped, identity.as_bytes())?;
            SealingKey::from_bytes(own)?.open(content, identity.as_bytes())
        };
        open().map_err(|error| VaultError::Seal(identity.clone(), error))
    }

    /// The key that signs the audit log: it follows from the installation's data key.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when no pair follows, which does not happen.
    pub fn audit_key(&self) -> Result<SigningKey, VaultError> {
        let seed = self.0.derive(b"audit log checkpoints");
        let unfit = || VaultError::Seal("audit key".to_owned(), SealError::DoesNotOpen);
        SigningKey::from_seed(seed.expose()).ok_or_else(unfit)
    }

    /// Seals a delivery's content, which lies in several pieces.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when it is larger than AES-GCM takes.
    pub fn seal_payload(&self, id: DeliveryId, parts: &[&[u8]]) -> Result<Vec<u8>, VaultError> {
        self.0
            .derive(id.as_bytes())
            .seal_parts(parts, id.as_bytes())
            .map_err(|error| VaultError::Seal(format!("payload of {id}"), error))
    }

    /// Opens a delivery's payload.
    ///
    /// # Errors
    /// [`VaultError::Seal`] when it is altered or another delivery's.
    pub fn open_payload(&self, id: DeliveryId, sealed: Vec<u8>) -> Result<Bytes, VaultError> {
        self.0
            .derive(id.as_bytes())
            .open_in_place(sealed, id.as_bytes())
            .map_err(|error| VaultError::Seal(format!("payload of {id}"), error))
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::{name::Id, random, time::Timestamp};

    use super::*;

    fn key() -> ScopeKey {
        ScopeKey(SealingKey::generate())
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
