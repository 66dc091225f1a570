//! The API keys that are valid, all in memory, so that a call costs a hash and no look into the store.
//! There are at most [`MAX_KEYS`].
//! A change is here and in the store before it is answered.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use countersign_shared::{
    name::{ApiKeyName, Id},
    secret::{self, SecretText},
    time::{Clock, Timestamp},
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    api_key::{KeyRequest, Presented, generate},
    attempts::{Attempts, Source},
    principal::Principal,
};
use crate::{
    model::{ApiKey, Page},
    signals::{News, Relay},
    store::{Store, StoreError},
};

/// Most keys that are valid at once.
const MAX_KEYS: usize = 10_000;
/// How often the times of last use are written.
const WRITE_EVERY: Duration = Duration::from_secs(5 * 60);
/// A later use within this time of the one before is not noted.
const COARSE: Duration = Duration::from_secs(60);

/// Why a call is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No key, or not a valid one; which part was wrong is not told.
    Key,
    /// Too many failures from where it comes from: it was not looked at. How long to wait.
    TooManyFailures(Duration),
}

/// A valid key.
#[derive(Debug)]
struct Entry {
    key: ApiKey,
    principal: Arc<Principal>,
    /// Microseconds since 1970, 0 for never.
    last_used: AtomicI64,
    /// The last use is not in the store yet.
    unwritten: AtomicBool,
    /// Where it was last let in from; 0 for nowhere.
    source: AtomicU64,
}

impl Entry {
    fn new(key: ApiKey, calls_per_second: u32) -> Self {
        let last_used = key.last_used_at.map_or(0, Timestamp::as_unix_micros);
        Self {
            principal: Arc::new(Principal::of_key(&key, calls_per_second)),
            last_used: AtomicI64::new(last_used),
            unwritten: AtomicBool::new(false),
            source: AtomicU64::new(0),
            key,
        }
    }

    fn last_used(&self) -> Option<Timestamp> {
        let micros = self.last_used.load(Ordering::Relaxed);
        (micros != 0).then(|| Timestamp::from_unix_micros(micros))
    }

    /// Writes to memory that others read only when there is something new to say.
    fn used(&self, source: Option<Source>, now: Timestamp) {
        if self
            .last_used()
            .is_none_or(|last| now.since(last) >= COARSE)
        {
            self.last_used
                .store(now.as_unix_micros(), Ordering::Relaxed);
            self.unwritten.store(true, Ordering::Relaxed);
        }
        let source = source.map_or(0, Source::as_number);
        if self.source.load(Ordering::Relaxed) != source {
            self.source.store(source, Ordering::Relaxed);
        }
    }
}

/// The keys that are valid.
pub struct ApiKeys {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    calls_per_second: u32,
    attempts: Attempts,
    valid: RwLock<HashMap<Id, Arc<Entry>>>,
    /// Tells other control planes.
    relay: Arc<Relay>,
    /// Held while keys are made and revoked, so that store and memory change in the same order.
    changing: Mutex<()>,
}

impl ApiKeys {
    /// Those of the store. A key that does not say otherwise may make `calls_per_second`; after
    /// `failed_attempts` in a minute a source is refused.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        calls_per_second: u32,
        failed_attempts: u32,
    ) -> Result<Self, StoreError> {
        let valid = store.valid_api_keys(clock.now()).await?.into_iter();
        let valid = valid.map(|key| {
            let id = key.id.clone();
            (id, Arc::new(Entry::new(key, calls_per_second)))
        });
        Ok(Self {
            valid: RwLock::new(valid.collect()),
            store,
            clock,
            calls_per_second,
            attempts: Attempts::new(failed_attempts),
            relay: Arc::default(),
            changing: Mutex::default(),
        })
    }

    /// Tells other control planes of changes.
    #[must_use]
    pub fn relayed(self, relay: Arc<Relay>) -> Self {
        Self { relay, ..self }
    }

    /// Another control plane has changed something: reads what is valid again.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    pub async fn reload(&self) -> Result<(), StoreError> {
        let _changing = self.changing.lock().await;
        let stored = self.store.valid_api_keys(self.clock.now()).await?;
        let mut valid = self.write();
        let mut before = std::mem::take(&mut *valid);
        for key in stored {
            let known = before.remove(&key.id);
            let entry = known.unwrap_or_else(|| {
                let id = key.id.clone();
                tracing::debug!(%id, "an API key was made at another control plane");
                Arc::new(Entry::new(key.clone(), self.calls_per_second))
            });
            valid.insert(key.id, entry);
        }
        for gone in before.into_values() {
            gone.principal.ended.cancel();
        }
        Ok(())
    }

    /// What time it is for those who count calls.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Who presents `authorization`, the value of that header, from `source`.
    ///
    /// Where too many failures came from, only keys that were last let in from there are still looked
    /// at: so one program's wrong key does not shut out its neighbours behind the same address.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn authenticate(
        &self,
        authorization: Option<&str>,
        source: Option<Source>,
    ) -> Result<Arc<Principal>, Refused> {
        let now = self.clock.now();
        // What is not even written as a key is no attempt at one.
        let presented = authorization.and_then(Presented::parse);
        let presented = presented.ok_or(Refused::Key)?;
        let known = self.entry(&presented.id);
        if let Some(source) = source
            && let Err(wait) = self.attempts.check(source, now)
        {
            let familiar =
                |entry: &Arc<Entry>| entry.source.load(Ordering::Relaxed) == source.as_number();
            if !known.as_ref().is_some_and(familiar) {
                return Err(Refused::TooManyFailures(wait));
            }
        }
        let Some(entry) = matching(&presented, known, now) else {
            if let Some(source) = source {
                self.attempts.failed(source, now);
            }
            return Err(Refused::Key);
        };
        entry.used(source, now);
        Ok(Arc::clone(&entry.principal))
    }

    /// Makes a key. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`StoreError`]: `AlreadyExists`; `Precondition` when there are too many.
    pub async fn create(&self, request: KeyRequest) -> Result<(ApiKey, SecretText), StoreError> {
        let _changing = self.changing.lock().await;
        let now = self.clock.now();
        let (key, text) = generate(request, now);
        let created = self.store.create_api_key(key.clone(), MAX_KEYS, now);
        created.await?;
        let entry = Entry::new(key.clone(), self.calls_per_second);
        let mut valid = self.write();
        // Those that have expired make room.
        valid.retain(|_, entry| entry.key.is_valid(now));
        valid.insert(key.id.clone(), Arc::new(entry));
        self.relay.tell(News::Keys);
        Ok((key, text))
    }

    /// Revokes a key: nobody is let in with it from now on.
    ///
    /// # Errors
    /// [`StoreError`]; the key is valid as before then, but its streams have ended.
    pub async fn revoke(&self, name: &ApiKeyName) -> Result<ApiKey, StoreError> {
        let _changing = self.changing.lock().await;
        // Out of memory first: a caller that goes away meanwhile leaves it refused.
        let entry = self.write().remove(name.id());
        if let Some(entry) = &entry {
            entry.principal.ended.cancel();
        }
        let revoked = self.store.revoke_api_key(name, self.clock.now()).await;
        self.relay.tell(News::Keys);
        let Some(entry) = entry else {
            return revoked;
        };
        match revoked {
            Ok(revoked) => Ok(ApiKey {
                last_used_at: revoked.last_used_at.max(entry.last_used()),
                ..revoked
            }),
            Err(error) => {
                let again = Entry::new(entry.key.clone(), self.calls_per_second);
                self.write().insert(name.id().clone(), Arc::new(again));
                Err(error)
            }
        }
    }

    /// One key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, name: &ApiKeyName) -> Result<ApiKey, StoreError> {
        Ok(self.up_to_date(self.store.api_key(name).await?))
    }

    /// Keys with ids after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, after: &str, size: usize) -> Result<Page<ApiKey>, StoreError> {
        let mut page = self.store.api_keys(after, size).await?;
        page.items = page
            .items
            .into_iter()
            .map(|key| self.up_to_date(key))
            .collect();
        Ok(page)
    }

    /// With the last use that is known here, which the store learns later.
    fn up_to_date(&self, key: ApiKey) -> ApiKey {
        let used = self.entry(&key.id).and_then(|entry| entry.last_used());
        ApiKey {
            last_used_at: key.last_used_at.max(used),
            ..key
        }
    }

    /// Entries are each complete, here and in the map that is read.
    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Id, Arc<Entry>>> {
        self.valid.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, id: &Id) -> Option<Arc<Entry>> {
        let valid = self.valid.read().unwrap_or_else(PoisonError::into_inner);
        valid.get(id).cloned()
    }

    /// Writes times of last use every few minutes, and at the end, until `stop`.
    ///
    /// # Errors
    /// None: what can't be written now is written the next time.
    pub async fn write_uses(self: Arc<Self>, stop: CancellationToken) -> Result<(), StoreError> {
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(WRITE_EVERY) => false,
            };
            if let Err(error) = self.write_new_uses().await {
                tracing::warn!(%error, "when API keys were last used was not recorded");
            }
            if stopped {
                return Ok(());
            }
        }
    }

    async fn write_new_uses(&self) -> Result<(), StoreError> {
        let entries: Vec<_> = {
            let valid = self.valid.read().unwrap_or_else(PoisonError::into_inner);
            let new = valid.values();
            let new = new.filter(|entry| entry.unwritten.swap(false, Ordering::Relaxed));
            new.cloned().collect()
        };
        if entries.is_empty() {
            return Ok(());
        }
        let used = entries.iter().filter_map(|entry| {
            let name = ApiKeyName::from(entry.key.id.clone());
            Some((name, entry.last_used()?))
        });
        let written = self.store.note_api_key_use(used.collect()).await;
        if written.is_err() {
            for entry in &entries {
                entry.unwritten.store(true, Ordering::Relaxed);
            }
        }
        written
    }
}

/// `known`, if what was presented is its text and it has not expired. An unknown id costs the same
/// hash and comparison as a known one.
fn matching(
    presented: &Presented<'_>,
    known: Option<Arc<Entry>>,
    now: Timestamp,
) -> Option<Arc<Entry>> {
    let hash = presented.hash()?;
    let expected = known.as_ref().map(|entry| &entry.key.secret_sha256);
    let matches = secret::equal(&hash, expected.unwrap_or(&[0; 32]));
    known.filter(|entry| matches && entry.key.is_valid(now))
}

#[cfg(test)]
mod tests;
