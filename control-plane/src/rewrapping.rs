//! Replacing the KEK: every data key that is wrapped by the one before is wrapped anew, one after the other,
//! while everything else goes on. Each says by which KEK it is wrapped, so that this can be interrupted at
//! any point and goes on at the next start; the installation's KEK is the new one when none is left.
//!
//! When the KEK stays, but was rotated where it is, an operator has all of them wrapped by its newest version.

use std::{sync::Arc, time::Duration};

use countersign_shared::random;
use thiserror::Error;
use tokio::{sync::mpsc::Sender, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    store::{Store, StoreError},
    vault::{Vault, VaultError},
};

/// How many are looked at between two lines of progress.
const PAGE: usize = 100;
/// How long to wait after a failure.
const BACK_OFF: Duration = Duration::from_secs(5);

/// Why it does not go on now.
#[derive(Debug, Error)]
pub enum RewrapError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The KEK's provider did not serve, or a data key does not unwrap.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Wrapped anew.
    pub rewrapped: u64,
    /// Of the newest version already.
    pub current: u64,
    /// How many there were at the beginning.
    pub total: u64,
}

/// Wraps data keys anew.
#[derive(Clone)]
pub struct Rewrapping {
    /// Where they are.
    pub store: Arc<dyn Store>,
    /// Knows both KEKs.
    pub vault: Arc<Vault>,
}

impl Rewrapping {
    /// Runs until all are wrapped by the present KEK, or `shutdown`.
    ///
    /// # Errors
    /// None: what fails is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        while !shutdown.is_cancelled() {
            let done = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                done = self.all() => done,
            };
            match done {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "data keys are not all wrapped anew yet; trying again");
                    sleep(random::full_jitter(BACK_OFF)).await;
                }
            }
        }
        Ok(())
    }

    /// Has every data key wrapped by the newest version of the KEK; tells after each page how far it is, and
    /// stops when nobody wants to know.
    ///
    /// # Errors
    /// [`RewrapError`]; what is done is done.
    pub async fn anew(&self, tell: Sender<Progress>) -> Result<(), RewrapError> {
        let counts = self.store.data_key_counts().await?;
        let mut progress = Progress {
            total: counts.iter().map(|(_, count)| count).sum(),
            ..Progress::default()
        };
        let fresh = self.vault.fresh().await?;
        let mut after = String::new();
        loop {
            let page = self.store.data_keys(&after, PAGE).await?;
            for old in page.items {
                after.clone_from(&old.scope);
                if self.vault.is_newest(&old, &fresh) {
                    progress.current += 1;
                    continue;
                }
                let new = self.vault.rewrapped(&old).await?;
                self.store.replace_data_key(old, new).await?;
                progress.rewrapped += 1;
            }
            if tell.send(progress).await.is_err() || !page.more {
                return Ok(());
            }
        }
    }

    async fn all(&self) -> Result<(), RewrapError> {
        let kek = self.vault.kek_id();
        let mut rewrapped = 0_usize;
        loop {
            let others = self.store.data_keys_of_other_keks(kek, PAGE).await?;
            if others.items.is_empty() {
                break;
            }
            for old in others.items {
                let new = self.vault.rewrapped(&old).await?;
                // One that was deleted meanwhile needs none.
                self.store.replace_data_key(old, new).await?;
                rewrapped += 1;
            }
            tracing::info!(
                rewrapped,
                more = others.more,
                "data keys are wrapped by the new KEK"
            );
        }
        self.store.set_kek(kek).await?;
        if rewrapped > 0 {
            tracing::info!(
                rewrapped,
                kek,
                "every data key is wrapped by the new KEK: take kek.previous out of the configuration, and \
                 keep the old KEK for as long as you keep backups that need it"
            );
        }
        Ok(())
    }
}
