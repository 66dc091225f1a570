//! The audit log's keeper: puts refused calls on record, signs the chain every minute, and walks it when
//! somebody asks whether it is whole.

use std::{sync::Arc, time::Duration};

use countersign_shared::{signature::ed25519::SigningKey, time::Clock};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{Broken, Chain, Refusals, current, export},
    model::{AuditCheckpoint, AuditEntry, AuditFilter, AuditKind, AuditRecord, Page},
    store::{Store, StoreError},
    vault::{INSTALLATION, Vault, VaultError},
};

/// How often the chain is signed, when there is something new.
const SIGN_EVERY: Duration = Duration::from_secs(60);
/// How long refused calls are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// How many records are read at once.
const PAGE: usize = 1000;
/// How many records go out at once: clients take messages of 4 MiB.
const EXPORTED: usize = 250;
/// How often an export that goes on looks for more.
const LOOK: Duration = Duration::from_secs(1);

/// What a walk along the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many records hang together, from the first on.
    pub chain: Chain,
    /// How many signatures were checked and are right.
    pub checkpoints: u64,
    /// The first thing that is wrong: at which record, and what.
    pub broken: Option<(u64, String)>,
}

/// Keeps the audit log.
#[derive(Clone)]
pub struct AuditLog {
    store: Arc<dyn Store>,
    key: Arc<SigningKey>,
    /// Calls that were not let in.
    pub refusals: Arc<Refusals>,
    clock: Arc<dyn Clock>,
}

impl AuditLog {
    /// The log of an installation.
    ///
    /// # Errors
    /// [`VaultError`] when its key can't be derived.
    pub async fn open(
        store: Arc<dyn Store>,
        vault: &Vault,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, VaultError> {
        let scope = vault.scope(store.as_ref(), INSTALLATION).await?;
        let key = Arc::new(scope.audit_key()?);
        Ok(Self {
            store,
            key,
            refusals: Arc::default(),
            clock,
        })
    }

    /// What checkpoints are verified with (RFC 8032).
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.public()
    }

    /// Records after the one of number `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn entries(
        &self,
        filter: AuditFilter,
        after: u64,
        size: usize,
    ) -> Result<Page<AuditEntry>, StoreError> {
        self.store.audit_entries(filter, after, size).await
    }

    /// Signatures over the chain, after the record of number `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoints(
        &self,
        after: u64,
        size: usize,
    ) -> Result<Page<AuditCheckpoint>, StoreError> {
        self.store.audit_checkpoints(after, size).await
    }

    /// Puts on record that the call at work hands out a secret: to be called before it does.
    ///
    /// # Errors
    /// [`StoreError`]: then it must not.
    pub async fn discloses(store: &dyn Store) -> Result<(), StoreError> {
        match current() {
            Some(call) => {
                store
                    .record(vec![call.record(AuditKind::Disclosure, 0)])
                    .await
            }
            None => Ok(()),
        }
    }

    /// Walks the whole chain.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be read.
    pub async fn verify(&self) -> Result<Verified, StoreError> {
        let mut found = Verified {
            chain: Chain::default(),
            checkpoints: 0,
            broken: None,
        };
        let mut signed = self.store.audit_checkpoints(0, PAGE).await?.items;
        signed.reverse();
        loop {
            let after = found.chain.sequence;
            let read = self
                .store
                .audit_entries(AuditFilter::default(), after, PAGE);
            let page = read.await?;
            for entry in &page.items {
                let followed = found.chain.follow(entry);
                if let Err(broken) = followed {
                    found.broken = Some((place(&broken), broken.to_string()));
                    return Ok(found);
                }
                while signed
                    .last()
                    .is_some_and(|it| it.sequence <= entry.sequence)
                {
                    let Some(checkpoint) = signed.pop() else {
                        break;
                    };
                    if let Some(problem) = self.problem(&checkpoint, entry) {
                        found.broken = Some((checkpoint.sequence, problem.to_owned()));
                        return Ok(found);
                    }
                    found.checkpoints += 1;
                    if signed.is_empty() {
                        let after = checkpoint.sequence;
                        signed = self.store.audit_checkpoints(after, PAGE).await?.items;
                        signed.reverse();
                    }
                }
            }
            if !page.more {
                break;
            }
        }
        if let Some(beyond) = signed.last() {
            let (end, sequence) = (found.chain.sequence, beyond.sequence);
            let problem = format!(
                "the log ends with record {end}, but a signature is over record {sequence}"
            );
            found.broken = Some((end + 1, problem));
        }
        Ok(found)
    }

    /// What is wrong with a signature over the chain up to `entry`.
    fn problem(&self, checkpoint: &AuditCheckpoint, entry: &AuditEntry) -> Option<&'static str> {
        let AuditCheckpoint {
            sequence,
            hash,
            signed_at,
            signature,
        } = checkpoint;
        if *sequence != entry.sequence || *hash != entry.hash {
            return Some("what was signed is not what the log holds");
        }
        let message = AuditCheckpoint::message(*sequence, hash, *signed_at);
        // Ed25519 is deterministic (RFC 8032 section 5.1.6).
        let ours = self.key.sign(&message);
        (ours.as_ref() != Some(signature)).then_some("the signature is not this installation's")
    }

    /// The record that an export goes on after; `None` when the log does not reach so far.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn entry(&self, sequence: u64) -> Result<Option<AuditEntry>, StoreError> {
        let before = sequence.saturating_sub(1);
        let found = self.entries(AuditFilter::default(), before, 1).await?;
        Ok(found.items.into_iter().find(|it| it.sequence == sequence))
    }

    /// Tells the log as the lines of an export, after the record `last`, a page at a time; with `follow`, it
    /// goes on with what is added. Ends when nobody listens any more.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be read.
    pub async fn export(
        &self,
        last: Option<AuditEntry>,
        follow: bool,
        tell: mpsc::Sender<Vec<String>>,
    ) -> Result<(), StoreError> {
        let mut lines: Vec<_> = last.iter().map(export::continues_line).collect();
        let mut after = last.map_or(0, |last| last.sequence);
        // A signature over the record before the first is a link to what the reader has.
        let mut signed = after.saturating_sub(1);
        loop {
            let page = self
                .entries(AuditFilter::default(), after, EXPORTED)
                .await?;
            lines.extend(page.items.iter().map(export::record_line));
            after = page.items.last().map_or(after, |last| last.sequence);
            let checkpoints = self.checkpoints(signed, PAGE).await?.items;
            for checkpoint in checkpoints.iter().filter(|it| it.sequence <= after) {
                lines.push(export::checkpoint_line(checkpoint, self.public_key()));
                signed = checkpoint.sequence;
            }
            let told = std::mem::take(&mut lines);
            if !told.is_empty() && tell.send(told).await.is_err() {
                return Ok(());
            }
            if page.more {
                continue;
            }
            if !follow {
                return Ok(());
            }
            tokio::select! {
                () = tell.closed() => return Ok(()),
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Signs the chain as it is, if it has grown since it was signed last.
    async fn sign(&self) -> Result<(), StoreError> {
        let Some(last) = self.store.last_audit_entry().await? else {
            return Ok(());
        };
        let before = last.sequence.saturating_sub(1);
        if !self
            .store
            .audit_checkpoints(before, 1)
            .await?
            .items
            .is_empty()
        {
            return Ok(());
        }
        let signed_at = self.clock.now();
        let message = AuditCheckpoint::message(last.sequence, &last.hash, signed_at);
        let Some(signature) = self.key.sign(&message) else {
            return Ok(());
        };
        let checkpoint = AuditCheckpoint {
            sequence: last.sequence,
            hash: last.hash,
            signed_at,
            signature,
        };
        self.store.add_audit_checkpoint(checkpoint).await
    }

    /// Puts refused calls on record. What could not be is kept for the next time, up to a bound.
    async fn record_refusals(&self, waiting: &mut Vec<AuditRecord>) {
        waiting.extend(self.refusals.take());
        if waiting.is_empty() {
            return;
        }
        match self.store.record(waiting.clone()).await {
            Ok(()) => waiting.clear(),
            Err(error) => {
                tracing::warn!(%error, "refused calls are not on record yet");
                waiting.truncate(PAGE);
            }
        }
    }

    /// Runs until `shutdown`; then what is there is put on record and signed.
    ///
    /// # Errors
    /// None: a store that fails is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut waiting = Vec::new();
        let mut ticks = interval(SIGN_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let signing = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => true,
                () = self.refusals.wait() => {
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = sleep(GATHER) => false,
                    }
                }
            };
            self.record_refusals(&mut waiting).await;
            if signing {
                self.sign_or_warn().await;
            }
        }
        self.record_refusals(&mut waiting).await;
        self.sign_or_warn().await;
        Ok(())
    }

    async fn sign_or_warn(&self) {
        if let Err(error) = self.sign().await {
            tracing::warn!(%error, "the audit log could not be signed");
        }
    }
}

fn place(broken: &Broken) -> u64 {
    match broken {
        Broken::Missing { expected, .. } => *expected,
        Broken::Altered(sequence) | Broken::Unreadable(sequence) => *sequence,
    }
}
