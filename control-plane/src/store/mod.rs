//! The store: the only truth. Traits in domain types, one implementation for each database, and one
//! conformance suite for all of them (`conformance`, for tests).
//!
//! Every write answers after it is durable. Secrets arrive here sealed; nothing in this folder can
//! open them.

mod access;
mod audit;
#[cfg(test)]
pub(crate) mod conformance;
pub mod postgres;
mod revocation;
mod rotation;
mod sql;
pub mod sqlite;

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use countersign_shared::{
    job::LeaseId,
    name::{AccountName, AgentName, AlertName, DeliveryId, DestinationName, JoinTokenName},
    time::Timestamp,
};
use thiserror::Error;

use crate::config::Keep;
use crate::model::{
    Account, Agent, Alert, AlertCause, ApiKey, Attempt, Authority, AuthorityOwner,
    BundleAcknowledgement, Cancelled, ClientCertificate, DeadLetter, Delivery, DeliveryFilter,
    Destination, DestinationConfig, DestinationKey, DestinationState, Due, Enrollment, Expiring,
    Finding, Grant, JoinToken, LeaseFacts, Leased, Load, NewDelivery, Page, PresentedIdentity,
    Renewal, ReplayFilter, RequestKey, Retried, Serial, Settled, Settlement, SigningSecret,
};

pub use access::AccessStore;
pub use audit::AuditStore;
pub use revocation::{Generation, RevocationStore, Revoked};
pub use rotation::{AuthorityChange, RotationStore};

/// Why the store did not do what was asked. Nothing has changed then.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// There is no such thing.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The name is taken.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// It was changed since the caller looked.
    #[error("{0} was changed meanwhile: get it again and repeat the change with its new etag")]
    Changed(String),
    /// It is in a state in which this can't be done.
    #[error("{0}")]
    Precondition(String),
    /// A request id was used before, with other content.
    #[error(
        "request_id '{request_id}' was used before with other content (sha256 {first} then, {second} \
         now): choose another request_id"
    )]
    RequestIdReused {
        /// The id.
        request_id: String,
        /// Hash of the first content.
        first: String,
        /// Hash of this content.
        second: String,
    },
    /// The database does not answer now; trying again can help.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// What is stored makes no sense.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
}

/// What was accepted before these times is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoveBefore {
    /// Deliveries and their attempts.
    pub deliveries: Timestamp,
    /// Payloads.
    pub payloads: Timestamp,
}

/// Most signing secrets of a destination that are in use at once.
pub const MAX_SECRETS: usize = 4;

/// Short for what every method answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A data-encryption key, wrapped by the KEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// What it protects: `installation`, or an account's name.
    pub scope: String,
    /// The key, wrapped.
    pub wrapped: Vec<u8>,
    /// By which KEK.
    pub kek_id: String,
}

/// What the first start makes, in one transaction.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Random id, part of the root's subject.
    pub id: String,
    /// Identifies the KEK that everything is wrapped with.
    pub kek_id: String,
    /// The installation's own data key.
    pub data_key: DataKey,
    /// Root, agents and server.
    pub authorities: Vec<Authority>,
    /// The administrator's key.
    pub api_key: ApiKey,
    /// When.
    pub created_at: Timestamp,
}

/// A new account with its key and authority.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// The account.
    pub account: Account,
    /// Its data key.
    pub data_key: DataKey,
    /// The first generation of its authority.
    pub authority: Authority,
    /// Makes the call idempotent.
    pub request: Option<RequestKey>,
}

/// A new destination with its first certificate and secret.
#[derive(Debug, Clone)]
pub struct NewDestination {
    /// Its name.
    pub name: DestinationName,
    /// What an operator decided.
    pub config: DestinationConfig,
    /// Its first client certificate, which is presented at once; `None`: it comes later.
    pub certificate: Option<ClientCertificate>,
    /// Its first signing secret.
    pub secret: SigningSecret,
    /// When.
    pub created_at: Timestamp,
    /// When its rotation is looked at first.
    pub look_at: Timestamp,
    /// Makes the call idempotent.
    pub request: Option<RequestKey>,
}

/// What a bundle is made of.
#[derive(Debug, Clone)]
pub struct BundleSource {
    /// The destination.
    pub destination: Destination,
    /// The certificate that is presented.
    pub active: ClientCertificate,
    /// The next one.
    pub candidate: Option<ClientCertificate>,
    /// The one before.
    pub fallback: Option<ClientCertificate>,
    /// Signing secrets, newest first.
    pub secrets: Vec<SigningSecret>,
}

/// What is known of the installation itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallationFacts {
    /// Its id.
    pub id: String,
    /// Identifies its KEK.
    pub kek_id: String,
}

/// The installation, its keys and authorities.
#[async_trait]
pub trait InstallationStore: Send + Sync {
    /// What the first start wrote; `None` before it.
    async fn installation(&self) -> Result<Option<InstallationFacts>>;
    /// Writes what the first start made. Fails when there is an installation already.
    async fn install(&self, installation: Installation) -> Result<()>;
    /// A data key; `NotFound` when there is none.
    async fn data_key(&self, scope: &str) -> Result<DataKey>;
    /// Data keys in the order of their scopes, after this one.
    async fn data_keys(&self, after: &str, size: usize) -> Result<Page<DataKey>>;
    /// How many data keys each KEK has wrapped, by its id.
    async fn data_key_counts(&self) -> Result<Vec<(String, u64)>>;
    /// Data keys that are wrapped by other KEKs than this.
    async fn data_keys_of_other_keks(&self, kek_id: &str, size: usize) -> Result<Page<DataKey>>;
    /// Puts `new` in the place of `old`, if that is still there as it is.
    async fn replace_data_key(&self, old: DataKey, new: DataKey) -> Result<()>;
    /// Notes that everything is wrapped by this KEK; `Precondition` when something is not.
    async fn set_kek(&self, kek_id: &str) -> Result<()>;
    /// Whether the store can read and write now.
    async fn check(&self) -> Result<()>;
}

/// Authorities and certificates.
#[async_trait]
pub trait CertificateStore: Send + Sync {
    /// Records serial numbers before anything is signed with them. Fails on one that was used.
    async fn record_serials(&self, serials: Vec<Serial>, now: Timestamp) -> Result<()>;
    /// Every generation of an authority, oldest first.
    async fn authorities(&self, owner: &AuthorityOwner) -> Result<Vec<Authority>>;
    /// One version of a destination's client certificate.
    async fn client_certificate(
        &self,
        destination: &DestinationName,
        version: u32,
    ) -> Result<ClientCertificate>;
    /// The versions below `before`, newest first.
    async fn client_certificates(
        &self,
        destination: &DestinationName,
        before: Option<u32>,
        size: usize,
    ) -> Result<Page<ClientCertificate>>;
}

/// Accounts and destinations.
#[async_trait]
pub trait TenantStore: Send + Sync {
    /// Makes an account; a repeated request answers as the first did.
    async fn create_account(&self, new: NewAccount) -> Result<Account>;
    /// One account.
    async fn account(&self, name: &AccountName) -> Result<Account>;
    /// Accounts with ids after `after`.
    async fn accounts(&self, after: &str, size: usize) -> Result<Page<Account>>;
    /// Changes the display name, if `revision` is given and still right.
    async fn update_account(
        &self,
        name: &AccountName,
        display_name: String,
        revision: Option<u64>,
        now: Timestamp,
    ) -> Result<Account>;
    /// Removes an account and all that belongs to it; its client certificates are revoked. Without `force` it must have no destinations.
    async fn delete_account(
        &self,
        name: &AccountName,
        revision: Option<u64>,
        force: bool,
        now: Timestamp,
    ) -> Result<()>;

    /// Makes a destination; a repeated request answers as the first did.
    async fn create_destination(&self, new: NewDestination) -> Result<Destination>;
    /// One destination.
    async fn destination(&self, name: &DestinationName) -> Result<Destination>;
    /// One destination, by handle.
    async fn destination_by_key(&self, key: DestinationKey) -> Result<Destination>;
    /// Destinations of an account with ids after `after`.
    async fn destinations(
        &self,
        account: &AccountName,
        after: &str,
        size: usize,
    ) -> Result<Page<Destination>>;
    /// Replaces what an operator decided, if `revision` is given and still right. Grows the bundle's
    /// generation.
    async fn update_destination(
        &self,
        name: &DestinationName,
        config: DestinationConfig,
        revision: Option<u64>,
        now: Timestamp,
    ) -> Result<Destination>;
    /// Enables or disables.
    async fn set_destination_state(
        &self,
        name: &DestinationName,
        state: DestinationState,
        now: Timestamp,
    ) -> Result<Destination>;
    /// Removes a destination and all that belongs to it; its client certificates are revoked. Without `force` it must have no unsettled
    /// deliveries.
    async fn delete_destination(
        &self,
        name: &DestinationName,
        revision: Option<u64>,
        force: bool,
        now: Timestamp,
    ) -> Result<()>;
    /// A signing secret; `None`: the newest.
    async fn signing_secret(
        &self,
        destination: &DestinationName,
        version: Option<u32>,
    ) -> Result<SigningSecret>;
    /// The signing secrets of a destination, newest first.
    async fn signing_secrets(&self, destination: &DestinationName) -> Result<Vec<SigningSecret>>;
    /// Adds a signing secret, whose version is the next one; the older ones are used until
    /// `older_expire_at` and no longer. `Changed` when the version is taken, `Precondition` when there
    /// are [`MAX_SECRETS`] already.
    async fn add_signing_secret(
        &self,
        destination: &DestinationName,
        secret: SigningSecret,
        older_expire_at: Timestamp,
    ) -> Result<()>;
    /// Notes that attempts at a destination fail from `since` on, unless they did already, or with `None`
    /// that one was delivered.
    async fn set_failing(&self, key: DestinationKey, since: Option<Timestamp>) -> Result<()>;
    /// Enabled destinations whose attempts fail since `until` or longer, at most `size`, after `after`.
    async fn failing(
        &self,
        until: Timestamp,
        after: Option<DestinationKey>,
        size: usize,
    ) -> Result<Page<Destination>>;
    /// Removes secrets whose time is over; their destinations' bundles get a new generation. Answers
    /// with those destinations.
    async fn remove_expired_secrets(&self, now: Timestamp) -> Result<Vec<DestinationName>>;
    /// What a bundle is made of; `NotFound` also while no client certificate is active.
    async fn bundle_source(&self, destination: &DestinationName) -> Result<BundleSource>;
}

/// Deliveries, leases and attempts.
#[async_trait]
pub trait DeliveryStore: Send + Sync {
    /// Whether a destination has dead letters that can be sent again.
    async fn has_dead_letters(&self, destination: DestinationKey) -> Result<bool>;
    /// Accepts deliveries in one transaction, each by itself: the answers are in the same order, and
    /// one that is refused changes nothing. A repeated request answers with the first delivery.
    ///
    /// Fails as a whole only when nothing was accepted.
    async fn submit_all(&self, new: Vec<NewDelivery>) -> Result<Vec<Result<Delivery>>>;
    /// As [`DeliveryStore::submit_all`], for one.
    async fn submit(&self, new: NewDelivery) -> Result<Delivery> {
        let answer = self.submit_all(vec![new]).await?.pop();
        answer.unwrap_or_else(|| Err(StoreError::Corrupt("no answer to a submission".to_owned())))
    }
    /// Every destination that has unsettled deliveries, is enabled and has a client certificate, with
    /// when its first is due.
    async fn due(&self) -> Result<Vec<Due>>;
    /// Every destination that has unsettled deliveries, enabled or not.
    async fn backlogged(&self) -> Result<Vec<(DestinationKey, DestinationName)>>;
    /// Counts a destination's unsettled deliveries.
    async fn backlog(&self, destination: DestinationKey) -> Result<Load>;
    /// When a destination's first delivery is due; `None` when it has none, is disabled, or has no
    /// client certificate.
    async fn due_of(&self, destination: DestinationKey) -> Result<Option<Timestamp>>;
    /// Leases what is due by `now`, oldest first; nothing to an agent that is evicted or suspended.
    async fn lease(&self, grants: Vec<Grant>, now: Timestamp) -> Result<Leased>;
    /// Lets leases last from `now` for `usual`, or for their destination's `max_offline` where that is longer. Answers with
    /// those that do, and how long; the others are lost.
    async fn extend(
        &self,
        agent: &AgentName,
        leases: Vec<LeaseId>,
        usual: Duration,
        now: Timestamp,
    ) -> Result<Vec<(LeaseId, Duration)>>;
    /// Takes back every lease of an agent but `held`, at once. Answers with the destination of each
    /// lease that was taken back.
    async fn release_all_but(
        &self,
        agent: &AgentName,
        held: HashSet<LeaseId>,
        now: Timestamp,
    ) -> Result<Vec<DestinationKey>>;
    /// Records attempts and decides what becomes of their deliveries, fenced by epoch and agent.
    /// Answers in the order of the outcomes.
    async fn settle(&self, settlement: Settlement) -> Result<Vec<Settled>>;
    /// Who may report on a delivery; `None` when there is no such delivery.
    async fn lease_facts(&self, delivery: DeliveryId) -> Result<Option<LeaseFacts>>;
    /// Makes a dead letter or a waiting delivery due at `now`; `Precondition` for any other.
    async fn retry(&self, account: &AccountName, id: DeliveryId, now: Timestamp)
    -> Result<Retried>;
    /// Makes at most `size` held deliveries of a destination, which would wait until after `now`, due at
    /// `now`. They stay held until their next attempt. Answers with how many these were.
    async fn release_held(
        &self,
        destination: DestinationKey,
        now: Timestamp,
        size: usize,
    ) -> Result<usize>;
    /// Gives a delivery up; `Precondition` when it is settled, but for a dead letter that holds its
    /// ordering key.
    async fn cancel(
        &self,
        account: &AccountName,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<Cancelled>;
    /// Every destination with ordering keys that dead letters hold.
    async fn with_blocked_keys(&self) -> Result<Vec<DestinationKey>>;
    /// Makes at most `size` dead letters due at `now`, or only finds them with `dry_run`. Answers with
    /// these.
    async fn replay(
        &self,
        account: &AccountName,
        filter: &ReplayFilter,
        dry_run: bool,
        size: usize,
        now: Timestamp,
    ) -> Result<Page<DeadLetter>>;
    /// Removes what is old in one piece where the database can: deliveries that were accepted before
    /// `before.deliveries`, and payloads before `before.payloads`, all of them settled. `keep` is for how long they
    /// are kept. Answers with the times before which the others have to be removed one by one.
    async fn remove_pieces(
        &self,
        keep: Keep,
        before: RemoveBefore,
        now: Timestamp,
    ) -> Result<RemoveBefore>;
    /// Erases payloads of settled deliveries that were accepted before `before`, at most `size`, with
    /// ids after `after`; what is erased is overwritten. Answers with the last id that was looked at,
    /// `None` when there is nothing more.
    async fn erase_payloads(
        &self,
        before: Timestamp,
        after: Option<DeliveryId>,
        size: usize,
    ) -> Result<Option<DeliveryId>>;
    /// Removes settled deliveries that were accepted before `before`, with their payloads and
    /// attempts; otherwise as [`DeliveryStore::erase_payloads`].
    async fn remove_deliveries(
        &self,
        before: Timestamp,
        after: Option<DeliveryId>,
        size: usize,
    ) -> Result<Option<DeliveryId>>;
    /// Forgets request ids that were used before `before`, at most `size`. Answers whether there are
    /// more.
    async fn forget_requests(&self, before: Timestamp, size: usize) -> Result<bool>;
    /// One delivery of an account.
    async fn delivery(&self, account: &AccountName, id: DeliveryId) -> Result<Delivery>;
    /// Deliveries of an account older than `before`, newest first.
    async fn deliveries(
        &self,
        account: &AccountName,
        filter: &DeliveryFilter,
        before: Option<DeliveryId>,
        size: usize,
    ) -> Result<Page<Delivery>>;
    /// Attempts of a delivery with numbers after `after`, oldest first.
    async fn attempts(
        &self,
        account: &AccountName,
        id: DeliveryId,
        after: u32,
        size: usize,
    ) -> Result<Page<Attempt>>;
}

/// Join tokens, agents, and what they hold.
#[async_trait]
pub trait AgentStore: Send + Sync {
    /// Makes a join token.
    async fn create_join_token(&self, token: JoinToken) -> Result<JoinToken>;
    /// One token.
    async fn join_token(&self, name: &JoinTokenName) -> Result<JoinToken>;
    /// Tokens with ids after `after`.
    async fn join_tokens(&self, after: &str, size: usize) -> Result<Page<JoinToken>>;
    /// Revokes a token.
    async fn revoke_join_token(&self, name: &JoinTokenName, now: Timestamp) -> Result<JoinToken>;
    /// Binds a token to a key and makes the agent. Repeating it with the same key is fine;
    /// `Precondition` when the token is bound to another key, `AlreadyExists` when another agent
    /// has the name. A token that recovers gives an agent that there is the new key instead, ends its
    /// suspension, and answers `NotFound` when there is none.
    async fn enroll(&self, enrollment: Enrollment) -> Result<Agent>;
    /// One agent.
    async fn agent(&self, name: &AgentName) -> Result<Agent>;
    /// Agents with ids after `after`.
    async fn agents(&self, after: &str, size: usize) -> Result<Page<Agent>>;
    /// Notes that an agent was heard of.
    async fn agent_seen(
        &self,
        name: &AgentName,
        version: Option<String>,
        identity_not_after: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<()>;
    /// Gives an agent the key `requested` in the place of the key `presented`, if it is the next
    /// ([`Agent::renewal`]); one that is cloned is suspended. Answers with the agent after that, and with the
    /// destination of each lease that ended.
    async fn renew_agent(
        &self,
        name: &AgentName,
        presented: PresentedIdentity,
        requested: [u8; 32],
        now: Timestamp,
    ) -> Result<(Agent, Renewal, Vec<DestinationKey>)>;
    /// Lets an agent in no more and ends its leases. Answers with the destination of each that ended.
    async fn suspend_agent(
        &self,
        name: &AgentName,
        now: Timestamp,
    ) -> Result<(Agent, Vec<DestinationKey>)>;
    /// Drains an agent, or resumes it, which ends its suspension too.
    async fn set_agent_draining(&self, name: &AgentName, draining: bool) -> Result<Agent>;
    /// Takes an agent out for good and ends its leases. Answers with the destination of each that ended.
    async fn evict_agent(
        &self,
        name: &AgentName,
        now: Timestamp,
    ) -> Result<(Agent, Vec<DestinationKey>)>;
    /// How many leases an agent has.
    async fn leases_of(&self, name: &AgentName) -> Result<usize>;
    /// Records an agent's word on a bundle; an older generation's never replaces a newer one's.
    async fn acknowledge_bundle(&self, acknowledgement: BundleAcknowledgement) -> Result<()>;
    /// Agents that hold this generation on disk.
    async fn durable_agents(
        &self,
        destination: &DestinationName,
        generation: u64,
    ) -> Result<Vec<AgentName>>;
}

/// Alerts, and what they are looked for in.
#[async_trait]
pub trait AlertStore: Send + Sync {
    /// Opens an alert under `name`, or brings the open one of the same cause and resource up to date.
    /// Answers with the alert when it was opened or its severity or message changed.
    async fn raise_alert(
        &self,
        name: AlertName,
        finding: Finding,
        now: Timestamp,
    ) -> Result<Option<Alert>>;
    /// Resolves the open alert of a cause and resource, if there is one.
    async fn resolve_alert(
        &self,
        cause: AlertCause,
        resource: &str,
        now: Timestamp,
    ) -> Result<Option<Alert>>;
    /// Notes that somebody takes care; a second time changes nothing.
    async fn acknowledge_alert(&self, name: &AlertName, now: Timestamp) -> Result<Alert>;
    /// Alerts older than `before`, newest first.
    async fn alerts(
        &self,
        before: Option<AlertName>,
        include_resolved: bool,
        size: usize,
    ) -> Result<Page<Alert>>;
    /// How many alerts are open, by cause; causes without any are left out.
    async fn open_alert_counts(&self) -> Result<Vec<(AlertCause, i64)>>;
    /// Open alerts of a cause.
    async fn open_alerts_of(&self, cause: AlertCause) -> Result<Vec<Alert>>;
    /// Open alerts about our own certificates' ends.
    async fn open_expiry_alerts(&self) -> Result<Vec<Alert>>;
    /// Client certificates in use and authorities that end by `until`, soonest first, after `after`.
    async fn expiring(
        &self,
        until: Timestamp,
        after: Option<Expiring>,
        size: usize,
    ) -> Result<Page<Expiring>>;
    /// When the certificate with this resource name ends; `None` when it is not in use.
    async fn end_of(&self, cause: AlertCause, resource: &str) -> Result<Option<Expiring>>;
}

/// All of it.
pub trait Store:
    InstallationStore
    + AccessStore
    + AuditStore
    + CertificateStore
    + RevocationStore
    + TenantStore
    + DeliveryStore
    + AgentStore
    + AlertStore
    + RotationStore
{
}

impl<T> Store for T where
    T: InstallationStore
        + AccessStore
        + AuditStore
        + CertificateStore
        + RevocationStore
        + TenantStore
        + DeliveryStore
        + AgentStore
        + AlertStore
        + RotationStore
{
}
