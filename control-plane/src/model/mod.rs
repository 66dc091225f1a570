//! What the control plane thinks in: accounts, destinations, authorities, deliveries, agents, keys.
//! Plain data; every rule about it lives on a floor above.

mod access;
mod agent;
mod alert;
mod audit;
mod certificate;
mod delivery;
mod kek;
mod policy;
mod rotation;
mod tenant;
mod token;

pub use access::{ApiKey, ApiKeyHash, ClientIdentity, ClientRule, Role, Scope};
pub use agent::{
    Agent, BundleAcknowledgement, BundleStatus, Enrollment, JoinToken, JoinTokenUse,
    PresentedIdentity, Renewal,
};
pub use alert::{Alert, AlertCause, AlertSeverity, Evidence, Expiring, Finding, Shown};
pub use audit::{AuditCheckpoint, AuditEntry, AuditFilter, AuditKind, AuditRecord, ResourceChange};
pub use certificate::{
    Authority, AuthorityOwner, AuthorityState, ClientCertificate, ClientCertificateState, Crl,
    KeyAlgorithm, Revocation, RevocationReason, Sealed, Serial,
};
pub use delivery::{
    Attempt, Cancelled, DeadLetter, Decide, Delivery, DeliveryFilter, DeliveryState, Due,
    Followers, Grant, LeaseFacts, Leased, Load, NewDelivery, Next, ReplayFilter, Retried,
    SealedJob, Settled, Settlement, Snapshot,
};
pub use kek::{AwsName, KekSource, TransitKey, TransitLogin};
pub use policy::{
    Backoff, DEADLINE, DeliveryPolicy, FACTOR, MAX_OFFLINE, MAX_RATE, MAX_RETRIES, RetryPolicy,
    SCHEDULE, WAIT, Waits,
};
pub use rotation::{
    CertificateRequest, DestinationTrust, GenerationUse, HeldUp, ProbeNote, Refusal, Rotation,
    RotationChange, RotationStep, RotationView, Stop, TrustState,
};
pub use tenant::{
    Account, Destination, DestinationConfig, DestinationKey, DestinationState, OrderingFailure,
    SignatureSchemes, SigningSecret, TrustModel,
};
pub use token::{RootImport, TokenKey, TokenPlace};

use countersign_shared::digest::sha256;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// There are more after these.
    pub more: bool,
}

impl<T> Page<T> {
    /// From a query that asked for one item more than `size`.
    pub fn cut(mut items: Vec<T>, size: usize) -> Self {
        let more = items.len() > size;
        items.truncate(size);
        Self { items, more }
    }
}

/// Makes a create idempotent: what was created under it before is the answer again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// What kind of request, and where: `CreateDestination accounts/acme`.
    pub scope: String,
    /// Chosen by the client, at most 100 characters.
    pub request_id: String,
    /// SHA-256 of what was asked for.
    pub content_sha256: [u8; 32],
}

impl RequestKey {
    /// Of a request's scope, id and content.
    pub fn new(scope: String, request_id: String, content: &[u8]) -> Self {
        Self {
            scope,
            request_id,
            content_sha256: sha256(content),
        }
    }
}
