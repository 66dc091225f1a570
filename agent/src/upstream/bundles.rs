//! Bundles as they come: verified against their hash, made ready, installed; and written to disk as
//! they came. One that is of no use is refused with the reason, and the one in use stays.

use std::sync::Arc;

use bytes::Bytes;
use countersign_proto::v1;
use countersign_shared::{
    digest::sha256,
    name::DestinationName,
    secret::{self, SecretBytes},
    wire::{self, WireError},
};
use prost::Message as _;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    deliver::{Clients, Lanes, PrepareError, Prepared},
    journal::{Durable, Journal, JournalError},
};

/// Why a bundle is refused; the control plane gets this text.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Refusal {
    #[error("content_sha256 is not the hash of the content")]
    Hash,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("generation {0} is in use, which is newer")]
    Older(u64),
}

/// Takes bundles in.
#[derive(Debug, Clone)]
pub struct BundleIntake {
    lanes: Lanes,
    clients: Arc<Clients>,
    journal: Journal,
}

impl BundleIntake {
    /// Into `lanes`, with clients from `clients`.
    pub fn new(lanes: Lanes, clients: Arc<Clients>, journal: Journal) -> Self {
        Self {
            lanes,
            clients,
            journal,
        }
    }

    /// Installs what the journal held. What is of no use any more is left out: the control plane
    /// sees that it is missing and sends it again.
    pub fn restore(&self, bundles: &[SecretBytes]) {
        for encoded in bundles {
            let Ok(message) = v1::Bundle::decode(encoded.expose()) else {
                tracing::warn!("a bundle in the journal does not decode; waiting for a new one");
                continue;
            };
            let destination = message.destination.clone();
            match self.install(message) {
                Ok(bundle) => {
                    tracing::debug!(
                        destination,
                        generation = bundle.generation,
                        "bundle restored"
                    );
                }
                Err(error) => {
                    tracing::warn!(destination, %error, "a bundle in the journal is of no use; waiting for a new one");
                }
            }
        }
    }

    /// Verifies a bundle and uses it from the next attempt on.
    pub(super) fn install(&self, message: v1::Bundle) -> Result<Arc<Prepared>, Refusal> {
        if !secret::equal(&content_sha256(&message), &message.content_sha256) {
            return Err(Refusal::Hash);
        }
        let bundle = wire::bundle_from_wire(message)?;
        match self.lanes.bundle(&bundle.destination) {
            Some(held) if held.generation > bundle.generation => {
                return Err(Refusal::Older(held.generation));
            }
            // The same again: what it has proved stays proved.
            Some(held) if held.content_sha256 == bundle.content_sha256 => return Ok(held),
            _ => {}
        }
        let prepared = Arc::new(Prepared::new(bundle, &self.clients)?);
        self.lanes.install(Arc::clone(&prepared));
        Ok(prepared)
    }

    /// Writes an installed bundle to disk.
    pub(super) async fn persist(
        &self,
        bundle: &Prepared,
        encoded: &[u8],
    ) -> Result<Durable, JournalError> {
        self.journal.put_bundle(&bundle.destination, encoded).await
    }

    /// Forgets a destination.
    pub(super) async fn remove(&self, destination: &DestinationName) -> Result<(), JournalError> {
        self.lanes.remove(destination);
        // Whether it is gone from the disk matters only after a restart; then it is removed again.
        self.journal.remove_bundle(destination).await.map(drop)
    }
}

/// SHA-256 over the encoding of `bundle` without its hash.
fn content_sha256(bundle: &v1::Bundle) -> [u8; 32] {
    let mut bare = bundle.clone();
    bare.content_sha256 = Bytes::new();
    sha256(&Zeroizing::new(bare.encode_to_vec()))
}
