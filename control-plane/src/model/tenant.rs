//! Accounts, and destinations with their secrets.

use std::time::Duration;

use countersign_shared::{
    address_range::AddressRange,
    bundle::{MinimumTls, MtlsEnforcement},
    name::{AccountName, DestinationName, Id},
    time::Timestamp,
};

use super::{DeliveryPolicy, KeyAlgorithm, Sealed};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Resource name.
    pub name: AccountName,
    /// For people.
    pub display_name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change; the API's `etag`.
    pub revision: u64,
}

/// The store's own handle of a destination: small, stable while the destination lives, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey(pub i64);

/// Who signs a destination's client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustModel {
    /// The account's own authority.
    #[default]
    Dedicated,
    /// The installation's authority for all accounts.
    Shared,
    /// The receiver's own CA signs our request.
    Customer,
}

/// Whether deliveries go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DestinationState {
    /// They do.
    #[default]
    Enabled,
    /// They are accepted and held.
    Disabled,
}

/// How deliveries are signed (Standard Webhooks).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignatureSchemes {
    /// `v1`: HMAC-SHA256 with a secret that the receiver has too.
    #[default]
    V1,
    /// `v1a`: Ed25519; the receiver has a public key.
    V1a,
    /// Both.
    Both,
}

/// What becomes of an ordering key when one of its deliveries ends as a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OrderingFailure {
    /// Those behind it wait until it is sent again or cancelled.
    #[default]
    Hold,
    /// The next one goes.
    Skip,
}

/// What an operator decides about a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationConfig {
    /// For people.
    pub display_name: String,
    /// Where to deliver; checked by `shared::bundle::parse_destination_url`.
    pub url: String,
    /// Who signs the client certificate.
    pub trust_model: TrustModel,
    /// The kind of key in it.
    pub key_algorithm: KeyAlgorithm,
    /// Whose agents deliver; `None`: any agent.
    pub region: Option<Id>,
    /// Authorities for the server's certificate; empty: the public ones of the agent's host.
    pub server_ca_pem: String,
    /// Lowest TLS version.
    pub minimum_tls: MinimumTls,
    /// What to do when no client certificate is asked for.
    pub mtls_enforcement: MtlsEnforcement,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How many attempts may be in flight at once.
    pub concurrency_limit: u32,
    /// How deliveries are signed.
    pub signatures: SignatureSchemes,
    /// How deliveries are attempted.
    pub policy: DeliveryPolicy,
    /// Where the destination's addresses have to lie. Empty: the agent's policy alone decides.
    pub allowed_ranges: Vec<AddressRange>,
    /// What becomes of an ordering key when one of its deliveries ends as a dead letter.
    pub ordering_failure: OrderingFailure,
    /// Whether agents sign a receipt for each attempt.
    pub delivery_receipts: bool,
}

/// One HTTPS URL of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The store's handle.
    pub key: DestinationKey,
    /// Resource name.
    pub name: DestinationName,
    /// What an operator decided.
    pub config: DestinationConfig,
    /// Whether deliveries go out.
    pub state: DestinationState,
    /// Version of the client certificate that is presented; 0 while there is none, and then nothing
    /// is delivered.
    pub active_certificate: u32,
    /// Generation of the bundle: grows with every change that agents must know.
    pub generation: u64,
    /// Since when attempts fail, and none has been delivered.
    pub failing_since: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change; the API's `etag`.
    pub revision: u64,
}

/// A destination's signing secret, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningSecret {
    /// 1, 2, …
    pub version: u32,
    /// The keys of both schemes, sealed: that of `v1`, then the seed of `v1a`.
    pub sealed: Sealed,
    /// What receivers verify `v1a` with.
    pub public_key: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops being used; `None` for the newest.
    pub expires_at: Option<Timestamp>,
}
