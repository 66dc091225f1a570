//! Deliveries, attempts, leases and what settles them.

use std::{
    ops::{Add, AddAssign, Neg, Sub},
    sync::Arc,
};

use countersign_shared::{
    class::FailureClass,
    job::LeaseId,
    name::{AgentName, DeliveryId, DestinationName},
    outcome::Outcome,
    time::Timestamp,
};

use super::{DestinationKey, RequestKey, RetryPolicy};

/// Where a delivery is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Waiting for its next attempt.
    Pending,
    /// An agent is attempting it.
    Leased,
    /// The receiver has it.
    Delivered,
    /// Every attempt failed.
    DeadLetter,
    /// Given up by a person.
    Cancelled,
}

impl DeliveryState {
    /// Nothing more will happen by itself.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Delivered | Self::DeadLetter | Self::Cancelled)
    }
}

/// A delivery to be accepted. The payload is sealed.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// Where it goes.
    pub destination: DestinationName,
    /// The payload, sealed under the account's key.
    pub sealed_payload: Vec<u8>,
    /// Size of the payload in bytes.
    pub payload_size: u32,
    /// Media type.
    pub content_type: String,
    /// What kind of event.
    pub event_type: String,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Deliveries of one destination with the same key go one after the other.
    pub ordering_key: Option<String>,
    /// Makes the submission idempotent.
    pub request: Option<RequestKey>,
}

/// A delivery as it stands, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Where it goes.
    pub destination: DestinationName,
    /// The store's handle of where it goes.
    pub destination_key: DestinationKey,
    /// Where it is in its life.
    pub state: DeliveryState,
    /// Size of the payload in bytes.
    pub payload_size: u32,
    /// Media type.
    pub content_type: String,
    /// What kind of event.
    pub event_type: String,
    /// How many attempts have ended.
    pub attempt_count: u32,
    /// How the last attempt ended.
    pub last_class: Option<FailureClass>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When the next attempt is due, or the lease ends; `None` also while it waits for another.
    pub due_at: Option<Timestamp>,
    /// When it was settled.
    pub settled_at: Option<Timestamp>,
    /// Since when it is held for a cause that only a change can cure.
    pub held_since: Option<Timestamp>,
    /// Deliveries of one destination with the same key go one after the other.
    pub ordering_key: Option<String>,
    /// The first delivery of its key that is not settled or holds the key, while this one waits behind
    /// it.
    pub waits_for: Option<DeliveryId>,
}

/// Which deliveries to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only to this destination.
    pub destination: Option<DestinationName>,
}

/// Which dead letters to send again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplayFilter {
    /// Only to this destination.
    pub destination: Option<DestinationName>,
    /// Only those accepted then or later.
    pub accepted_from: Option<Timestamp>,
    /// Only those accepted before.
    pub accepted_until: Option<Timestamp>,
    /// Only those whose last attempt ended so.
    pub last_class: Option<FailureClass>,
}

/// One try of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1, 2, …
    pub number: u32,
    /// Who made it.
    pub agent: AgentName,
    /// How it ended.
    pub outcome: Outcome,
}

/// A destination with deliveries that are due, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Which destination.
    pub destination: DestinationKey,
    /// When the first of them is due.
    pub at: Timestamp,
}

/// Deliveries that are accepted and not settled: how many, and the bytes of their payloads. Below zero
/// only in memory, where a count can be wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// How many.
    pub deliveries: i64,
    /// How many bytes.
    pub bytes: i64,
}

impl Load {
    /// One delivery of so many bytes.
    pub const fn one(bytes: u32) -> Self {
        Self {
            deliveries: 1,
            bytes: bytes as i64,
        }
    }
}

impl Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            deliveries: self.deliveries + other.deliveries,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Load {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            deliveries: -self.deliveries,
            bytes: -self.bytes,
        }
    }
}

impl Sub for Load {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

/// What retrying a delivery by hand did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// The delivery, due now.
    pub delivery: Delivery,
    /// It was a dead letter.
    pub revived: bool,
}

/// What cancelling a delivery did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// The delivery, given up.
    pub delivery: Delivery,
    /// It was a dead letter, which held its ordering key.
    pub was_settled: bool,
}

/// A dead letter that can be sent again, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it goes.
    pub destination: DestinationKey,
    /// Size of its payload in bytes.
    pub payload_size: u32,
}

/// Permission to lease some deliveries of a destination to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which destination.
    pub destination: DestinationKey,
    /// To whom.
    pub agent: AgentName,
    /// How many at most.
    pub limit: usize,
    /// What was accepted before this is past its deadline: it becomes a dead letter.
    pub accepted_from: Option<Timestamp>,
    /// When the leases end.
    pub until: Timestamp,
}

/// What leasing gave.
#[derive(Debug, Clone, Default)]
pub struct Leased {
    /// The jobs.
    pub jobs: Vec<SealedJob>,
    /// For each grant's destination when its next delivery is due.
    pub next: Vec<Due>,
    /// What was past its deadline: the destination and the bytes of each.
    pub expired: Vec<(DestinationKey, u32)>,
}

/// A delivery that was leased, with its payload still sealed.
#[derive(Debug, Clone)]
pub struct SealedJob {
    /// Delivery and fencing token.
    pub lease: LeaseId,
    /// Where it goes.
    pub destination: DestinationKey,
    /// To whom it is leased.
    pub agent: AgentName,
    /// The payload, sealed under the account's key.
    pub sealed_payload: Vec<u8>,
    /// Media type.
    pub content_type: String,
    /// 1 for the first.
    pub attempt_number: u32,
}

/// What a decision about an ended attempt may know of its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// How many attempts of its schedule had ended before this one. A delivery that was retried by hand
    /// begins a new schedule; attempts after which it was held are none of it.
    pub attempt_count: u32,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Since when it is held.
    pub held_since: Option<Timestamp>,
    /// What its destination says of retries. Looked up only for what was attempted and not delivered.
    pub retry: RetryPolicy,
}

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The receiver has it.
    Delivered,
    /// Another attempt, no sooner than this.
    Retry(Timestamp),
    /// It was not attempted: another agent, no sooner than this; no attempt is counted.
    Again(Timestamp),
    /// It is held: the attempt is recorded and does not count in the schedule; another at this time,
    /// or when it is released before.
    Hold(Timestamp),
    /// No more attempts.
    DeadLetter,
}

/// Decides what becomes of a delivery that the receiver did not accept; of one that it did there is nothing to decide.
/// Called inside the store's transaction, so that the decision is about what is stored.
pub type Decide = Arc<dyn Fn(&Snapshot, &Outcome) -> Next + Send + Sync>;

/// Outcomes of one agent, to be settled in one transaction.
#[derive(Clone)]
pub struct Settlement {
    /// Who reports.
    pub agent: AgentName,
    /// What it reports.
    pub outcomes: Arc<[Outcome]>,
    /// When the report came.
    pub now: Timestamp,
    /// What becomes of each delivery that was not delivered.
    pub decide: Decide,
}

/// What becomes of the deliveries that wait in order behind one that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followers {
    /// There are none, or nothing changes for them.
    None,
    /// The next is due.
    Due,
    /// The dead letter holds their key: they wait, and so do those that come.
    Blocked,
}

/// Who may report on a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseFacts {
    /// The agent that has it now; `None` when it is leased to nobody.
    pub holder: Option<AgentName>,
    /// Its lease's epoch, or that of the last one that ended; 0 when it was never leased.
    pub epoch: u64,
}

/// What settling one outcome did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It changed the delivery.
    Applied {
        /// Where the delivery goes.
        destination: DestinationKey,
        /// Size of its payload in bytes.
        payload_size: u32,
        /// What becomes of it.
        next: Next,
        /// What becomes of those behind it.
        followers: Followers,
    },
    /// Its epoch is old, or the lease is another agent's, or the delivery is gone: nothing changed.
    Stale,
}
