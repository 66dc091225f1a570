//! Signs receipts with the agent's identity, each in the chain of its destination.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use countersign_shared::{
    digest::{hex, sha256},
    job::LeasedJob,
    name::DestinationName,
    outcome::Outcome,
    receipt::{Chain, Receipt, sealed, to_sign},
};
use url::Url;

use crate::identity::Identity;

/// Signs receipts. A start begins new chains.
pub struct Receipts {
    identity: Arc<ArcSwap<Identity>>,
    chains: Mutex<HashMap<DestinationName, Chain>>,
}

impl fmt::Debug for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipts")
    }
}

impl Receipts {
    /// By this identity, whichever it is then.
    pub fn new(identity: Arc<ArcSwap<Identity>>) -> Self {
        Self {
            identity,
            chains: Mutex::default(),
        }
    }

    /// The receipt of an attempt at `url`; `None` when the identity does not sign, which is logged.
    pub(super) fn sign(&self, job: &LeasedJob, url: &Url, outcome: &Outcome) -> Option<Box<str>> {
        let identity = self.identity.load_full();
        let receipt = receipt(&identity, job, url, outcome);
        // Held while it is signed: the next one names this one.
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = chains.entry(job.destination.clone()).or_default();
        let leaf = identity.chain.first()?;
        let signed = to_sign(&chain.place(receipt), leaf);
        let signature = match identity.sign_receipt(signed.as_bytes()) {
            Ok(signature) => signature,
            Err(error) => {
                tracing::error!(%error, "a receipt was not signed");
                return None;
            }
        };
        let text = sealed(&signed, &signature)?;
        chain.went_on(&text);
        Some(text.into())
    }
}

fn receipt(identity: &Identity, job: &LeasedJob, url: &Url, outcome: &Outcome) -> Receipt {
    let mut url = url.clone();
    // What follows the path may be a secret.
    url.set_query(None);
    let record = outcome.handshake.as_ref();
    let presented = record.and_then(|record| record.presented.as_ref());
    Receipt {
        agent: identity.agent.to_string(),
        destination: job.destination.to_string(),
        url: url.to_string(),
        delivery: job.lease.delivery.to_string(),
        attempt: job.attempt_number,
        started_at: outcome.started_at.to_string(),
        class: outcome.class.as_str().to_owned(),
        http_status: outcome.http_status,
        payload_sha256: hex(&sha256(&job.payload)),
        client_certificate_serial: presented.map(|it| it.serial.clone()),
        chain: String::new(),
        sequence: 0,
        previous_sha256: String::new(),
    }
}
