//! Revocation lists: each generation of a delivery authority has one from its birth on; it is signed
//! anew after every revocation and every day, so that it never lapses.
//!
//! Whoever revokes calls [`RevocationLists::sign_now`], so that the answer means that the list says it.
//! If that fails, or the process ends in between, the list is still due, and the background task signs
//! it.

use std::{sync::Arc, time::Duration};

use countersign_shared::{
    random,
    time::{Clock, Timestamp},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    ca::{self, CRL_LIFE, CaError, SigningAuthority},
    model::{AuthorityOwner, Crl},
    signals::Poke,
    store::{Store, StoreError},
    vault::Vault,
};

/// How often what is due is looked for; a poke comes sooner.
const LOOK: Duration = Duration::from_secs(60);
/// A list is signed anew after this time: six days before it lapses.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Lists are spread over this much of it, so that not all of them are due at once.
const SPREAD: Duration = Duration::from_secs(3600);
/// How much longer than it took to sign what was due the next look waits.
const REST: u32 = 4;
/// How many generations are looked up at once.
const PAGE: usize = 500;
/// How often a list is made again because another was stored meanwhile.
const TRIES: u32 = 5;

/// Signs revocation lists.
#[derive(Clone)]
pub struct RevocationLists {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Opens authorities' keys.
    pub vault: Arc<Vault>,
    /// Wakes the background task.
    pub due: Arc<Poke>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl RevocationLists {
    /// Signs and stores the list of one generation, with all that is recorded by now. When that fails,
    /// the background task tries again.
    ///
    /// # Errors
    /// [`CaError`]; through it [`StoreError::NotFound`] without such a generation.
    pub async fn sign_now(&self, owner: &AuthorityOwner, generation: u32) -> Result<Crl, CaError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.sign(owner, generation).await {
                // Another list came first: its number is taken, and it may not cover what ours does.
                Err(CaError::Store(StoreError::Changed(_))) if tries < TRIES => {}
                Err(error) => {
                    self.due.poke();
                    return Err(error);
                }
                Ok(crl) => return Ok(crl),
            }
        }
    }

    async fn sign(&self, owner: &AuthorityOwner, generation: u32) -> Result<Crl, CaError> {
        let store = self.store.as_ref();
        let authority = SigningAuthority::generation(owner, generation, store, &self.vault).await?;
        let authority = authority.ok_or_else(|| {
            let name = format!("generation {generation} of the authority of {owner}");
            StoreError::NotFound(name)
        })?;
        let now = self.clock.now();
        let last = store.crl(owner, generation).await?;
        let number = last.map_or(1, |last| last.number + 1);
        // What ended longer ago is on no list any more.
        let revoked = store
            .revocations(owner, generation, now.minus(CRL_LIFE))
            .await?;
        let crl = ca::sign_crl(&authority, number, &revoked.revocations, now, CRL_LIFE)?;
        store
            .put_crl(crl.clone(), revoked.last, renewal(now))
            .await?;
        Ok(crl)
    }

    /// Signs what is due, now and then and when poked, until `shutdown`.
    ///
    /// # Errors
    /// None for now: what fails is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = look.tick() => {}
                () = self.due.wait() => {}
            }
            let started = Instant::now();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                signed = self.sign_due() => if let Err(error) = signed {
                    tracing::warn!(%error, "revocation lists not looked through; trying again");
                }
            }
            // A rotation of many destinations revokes all the time, and long lists take long to sign.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(started.elapsed() * REST) => {}
            }
        }
    }

    /// Signs every list that is due. One that fails keeps no other waiting.
    async fn sign_due(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut after = None;
        loop {
            let due = self.store.crls_due(now, after, PAGE).await?;
            for (owner, generation) in &due {
                match self.sign(owner, *generation).await {
                    Ok(crl) => {
                        tracing::debug!(%owner, generation, number = crl.number, "revocation list");
                    }
                    // Somebody else has just signed it; if that does not cover all, it is due again.
                    Err(CaError::Store(StoreError::Changed(_))) => {}
                    Err(error) => {
                        let last = self.store.crl(owner, *generation).await;
                        let lapses = last.ok().flatten().map(|last| last.next_update.to_string());
                        tracing::warn!(%owner, generation, lapses, %error,
                                       "revocation list not signed; trying again");
                    }
                }
            }
            match due.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }
}

/// When a list that is signed now is signed anew.
fn renewal(now: Timestamp) -> Timestamp {
    now.plus(RENEW_AFTER).minus(random::full_jitter(SPREAD))
}

#[cfg(test)]
mod tests;
