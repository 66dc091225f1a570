//! Accepting a delivery: checked, sealed, durable, and only then answered.

use std::sync::Arc;

use bytes::Bytes;
use countersign_shared::{
    digest::sha256,
    headers::Headers,
    name::{DeliveryId, DestinationName},
    random,
    time::Clock,
};
use thiserror::Error;

use super::{Backlog, Full, Place, content};
use crate::{
    metrics::Metrics,
    model::{Delivery, NewDelivery, RequestKey},
    signals::Wake,
    store::{Store, StoreError},
    vault::{Vault, VaultError},
};

/// What a sender hands in. Texts are within their limits already.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Where it goes.
    pub destination: DestinationName,
    /// The payload, byte for byte.
    pub payload: Bytes,
    /// Headers of the sender's own.
    pub headers: Headers,
    /// Media type.
    pub content_type: String,
    /// What kind of event.
    pub event_type: String,
    /// Deliveries of the destination with the same key go one after the other; empty: it has none.
    pub ordering_key: String,
    /// Makes the call idempotent; empty: it is not.
    pub request_id: String,
}

/// Why a delivery was not accepted.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The payload can't be sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// There is no room for it.
    #[error(transparent)]
    Full(#[from] Full),
    /// The payload is too large.
    #[error("payload has {size} bytes; this installation takes at most {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The most that is taken.
        limit: usize,
    },
}

/// Accepts deliveries.
#[derive(Clone)]
pub struct Submit {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Seals payloads.
    pub vault: Arc<Vault>,
    /// Has room for deliveries, or not.
    pub backlog: Arc<Backlog>,
    /// Told when a delivery is due.
    pub wake: Arc<Wake>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Metrics,
    /// Largest payload in bytes.
    pub max_payload: usize,
}

/// What is in the way of a submission, or its place in the backlog while the store has it.
type Entered = Result<(Place, DeliveryId), SubmitError>;

impl Submit {
    /// Accepts one delivery. When this answers, it is on disk.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was stored then.
    pub async fn submit(&self, submission: Submission) -> Result<Delivery, SubmitError> {
        let answer = self.submit_all(vec![submission]).await.pop();
        answer.unwrap_or_else(|| Err(unanswered().into()))
    }

    /// Accepts deliveries under one commit, each by itself: those that are accepted are on disk when
    /// this answers. The answers are in the order of the submissions.
    pub async fn submit_all(
        &self,
        submissions: Vec<Submission>,
    ) -> Vec<Result<Delivery, SubmitError>> {
        let mut entered: Vec<Entered> = Vec::with_capacity(submissions.len());
        let mut ready = Vec::with_capacity(submissions.len());
        for submission in submissions {
            entered.push(self.enter(submission).await.map(|(mut place, new)| {
                place.on_its_way();
                let id = new.id;
                ready.push(new);
                (place, id)
            }));
        }
        let stored = match ready.is_empty() {
            true => Ok(Vec::new()),
            false => self.store.submit_all(ready).await,
        };
        let mut stored = stored.map(Vec::into_iter);
        let answers = entered.into_iter().map(|entered| {
            let (place, id) = entered?;
            let answer = match &mut stored {
                Ok(answers) => answers.next().unwrap_or_else(|| Err(unanswered())),
                Err(error) => Err(error.clone()),
            };
            conclude(place, id, answer)
        });
        answers.inspect(|answer| self.tell(answer)).collect()
    }

    fn tell(&self, answer: &Result<Delivery, SubmitError>) {
        match answer {
            Ok(delivery) => {
                self.metrics.accepted.inc();
                if let Some(at) = delivery.due_at {
                    self.wake.due_anywhere(delivery.destination_key, at);
                }
            }
            Err(_) => {
                self.metrics.refused.inc();
            }
        }
    }

    /// Finds room for a submission and seals it.
    async fn enter(&self, submission: Submission) -> Result<(Place, NewDelivery), SubmitError> {
        let size = submission.payload.len();
        let too_large = SubmitError::TooLarge {
            size,
            limit: self.max_payload,
        };
        let payload_size = match u32::try_from(size) {
            Ok(payload_size) if size <= self.max_payload => payload_size,
            _ => return Err(too_large),
        };
        let place = self.backlog.enter(&submission.destination, payload_size)?;
        let now = self.clock.now();
        let id = DeliveryId::from(random::uuid_v7(now));
        let scope = submission.destination.account_text();
        let scope = match self.vault.scope(self.store.as_ref(), scope).await {
            Ok(scope) => scope,
            // Without a data key there is no account, so there is no such destination.
            Err(VaultError::Store(StoreError::NotFound(_))) => {
                return Err(StoreError::NotFound(submission.destination.to_string()).into());
            }
            Err(error) => return Err(error.into()),
        };
        let head = content::head(&submission.headers);
        let new = NewDelivery {
            id,
            sealed_payload: scope.seal_payload(id, &[&head, &submission.payload])?,
            payload_size,
            request: request_key(&submission, &head),
            destination: submission.destination,
            content_type: submission.content_type,
            event_type: submission.event_type,
            ordering_key: Some(submission.ordering_key).filter(|key| !key.is_empty()),
            accepted_at: now,
        };
        Ok((place, new))
    }
}

fn conclude(
    place: Place,
    id: DeliveryId,
    answer: Result<Delivery, StoreError>,
) -> Result<Delivery, SubmitError> {
    match answer {
        Ok(delivery) if delivery.id == id => {
            place.taken(delivery.destination_key);
            Ok(delivery)
        }
        // The first delivery of a repeated request is counted already.
        answer => {
            place.refused();
            Ok(answer?)
        }
    }
}

fn unanswered() -> StoreError {
    StoreError::Corrupt("no answer to a submission".to_owned())
}

fn request_key(submission: &Submission, head: &[u8]) -> Option<RequestKey> {
    if submission.request_id.is_empty() {
        return None;
    }
    // The headers have one form only. Lengths in front, so that two different submissions never hash
    // alike.
    let mut hashed = Vec::with_capacity(512);
    let parts = [
        submission.destination.as_str().as_bytes(),
        submission.content_type.as_bytes(),
        submission.event_type.as_bytes(),
        head,
        submission.ordering_key.as_bytes(),
        &sha256(&submission.payload),
    ];
    for part in parts {
        hashed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        hashed.extend_from_slice(part);
    }
    let scope = format!("SubmitDelivery {}", submission.destination.account_text());
    Some(RequestKey::new(
        scope,
        submission.request_id.clone(),
        &hashed,
    ))
}
