//! Deliveries: one attempt is sign → connect → send → classify, over pooled connections that each
//! know their handshake.
//!
//! Downwards: `lanes` queue the jobs of each destination and run its attempts; `attempt` is one of
//! them, from `sign` to `classify`, with the certificates that `choice` decides on; `probe` asks a
//! receiver what it thinks of one; both send by `exchange`. `alone` says when a failed attempt is
//! made again while there is no control plane that could. `prepared` is a bundle ready for use: the
//! `target` of its requests, and each `credential` with its `client` from the cache in `clients`. A
//! client sends over a `connection` that waits in its `pool`, or has its `connector` open another:
//! that dials, shakes hands and records both in a `handshake`, with the help of `verifier`,
//! `resolver`, `sessions` and `stream`. `standing` is whether a certificate may be used at all; when
//! it is revoked, the `cord` of each of its connections is pulled. `dial` judges every address that
//! `lookup` finds before it connects to it, directly or by a `tunnel`.

mod alert;
mod alone;
mod attempt;
mod choice;
mod classify;
mod client;
mod clients;
mod closed;
mod connection;
mod connector;
mod cord;
mod credential;
mod detail;
mod dial;
mod distinguished_name;
mod exchange;
mod facts;
mod handshake;
mod in_hand;
mod lane;
mod lanes;
mod lookup;
mod pool;
mod prepare_error;
mod prepared;
mod probe;
mod progress;
mod receipts;
mod resolver;
mod response;
mod retry_after;
mod sessions;
mod sign;
mod standing;
mod stream;
mod target;
mod tunnel;
mod verifier;

pub use self::{
    clients::{Clients, Stopped},
    dial::Dialler,
    lanes::{Activation, Lanes, Parts},
    lookup::{Lookup, Resolve, SystemResolver},
    prepare_error::{CredentialError, PrepareError},
    prepared::Prepared,
    probe::Probes,
    receipts::Receipts,
    retry_after::parse as parse_retry_after,
};
