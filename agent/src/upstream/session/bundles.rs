//! A session's bundles: taken in, written to disk, removed, and what became of each said.

use std::{collections::VecDeque, future::pending};

use countersign_proto::v1::{
    self, BundleAcknowledgement, BundleStatus, connect_request::Message as Out,
};
use countersign_shared::{name::DestinationName, wire};
use prost::Message as _;
use zeroize::Zeroizing;

use super::Session;
use crate::journal::{Durable, JournalError};

/// A bundle that is on its way to disk.
pub(super) struct ToDisk {
    durable: Durable,
    destination: DestinationName,
    generation: u64,
}

impl Session<'_> {
    pub(super) async fn take_bundle(&mut self, message: v1::Bundle) {
        let (name, generation) = (message.destination.clone(), message.generation);
        let message = match wire::open_bundle(message, self.key) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(destination = name, generation, %error, "the secrets of a bundle do not open");
                let reason = format!("sealed_secrets {error}");
                return self.say(name, generation, BundleStatus::Refused, &reason);
            }
        };
        // Whole, so that what is restored has the same hash.
        let encoded = Zeroizing::new(message.encode_to_vec());
        let bundle = match self.parts.bundles.install(message) {
            Ok(bundle) => bundle,
            Err(error) => {
                tracing::warn!(destination = name, generation, %error, "bundle refused");
                let reason = error.to_string();
                return self.say(name, generation, BundleStatus::Refused, &reason);
            }
        };
        let (destination, generation) = (bundle.destination.clone(), bundle.generation);
        tracing::info!(%destination, generation, "bundle accepted");
        self.acknowledge(&destination, generation, BundleStatus::Received, "");
        match self.parts.bundles.persist(&bundle, &encoded).await {
            Ok(durable) => self.to_disk.push_back(ToDisk {
                durable,
                destination,
                generation,
            }),
            Err(error) => tracing::warn!(%destination, %error, "the bundle is not on disk"),
        }
    }

    pub(super) fn stored(&mut self, result: Result<(), JournalError>) {
        let Some(stored) = self.to_disk.pop_front() else {
            return;
        };
        let (destination, generation) = (stored.destination, stored.generation);
        match result {
            Ok(()) => self.acknowledge(&destination, generation, BundleStatus::Durable, ""),
            Err(error) => tracing::warn!(%destination, %error, "the bundle is not on disk"),
        }
    }

    pub(super) async fn remove_bundle(&mut self, destination: &str) {
        let Ok(destination) = destination.parse::<DestinationName>() else {
            return tracing::warn!("the removal of a bundle without a name was ignored");
        };
        tracing::info!(%destination, "bundle removed");
        if let Err(error) = self.parts.bundles.remove(&destination).await {
            tracing::warn!(%destination, %error, "the bundle is still on disk");
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        destination: &DestinationName,
        generation: u64,
        status: BundleStatus,
        reason: &str,
    ) {
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        self.say(destination.to_string(), generation, status, reason);
    }

    fn say(&mut self, destination: String, generation: i64, status: BundleStatus, reason: &str) {
        let acknowledgement = BundleAcknowledgement {
            destination,
            generation,
            status: status.into(),
            reason: reason.to_owned(),
        };
        self.queue
            .push_back(Out::BundleAcknowledgement(acknowledgement));
    }
}

/// Waits for the oldest bundle on its way to disk; the journal keeps the order.
pub(super) async fn on_disk(waiting: &mut VecDeque<ToDisk>) -> Result<(), JournalError> {
    match waiting.front_mut() {
        Some(first) => (&mut first.durable)
            .await
            .unwrap_or(Err(JournalError::Closed)),
        None => pending().await,
    }
}
