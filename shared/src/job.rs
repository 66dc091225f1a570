//! A leased job: a delivery that one agent may attempt until the lease ends.

use bytes::Bytes;

use crate::{
    headers::Headers,
    name::{DeliveryId, DestinationName},
    time::Timestamp,
};

/// Identifies a lease: the delivery, and the fencing token that grows each time it is leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Fencing token: an outcome with an older one changes nothing.
    pub epoch: u64,
}

/// A delivery, leased to an agent.
#[derive(Clone, PartialEq, Eq)]
pub struct LeasedJob {
    /// Delivery and fencing token.
    pub lease: LeaseId,
    /// Where it goes.
    pub destination: DestinationName,
    /// When the lease ends, by the clock of whoever holds this.
    pub expires_at: Timestamp,
    /// The payload, byte for byte.
    pub payload: Bytes,
    /// Headers of the sender's own.
    pub headers: Headers,
    /// Media type of the payload.
    pub content_type: String,
    /// 1 for the first.
    pub attempt_number: u32,
    /// What the agent may do with it alone; `None`: one attempt.
    pub offline: Option<OfflineWork>,
}

/// What an agent may do with a job while it is cut off: keep it on disk, and attempt it again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OfflineWork {
    /// When an attempt may begin at the latest; `None`: as long as the lease lasts.
    pub attempt_deadline: Option<Timestamp>,
}

impl LeasedJob {
    /// Whether an attempt that is made alone may begin at `at`.
    pub fn may_begin_alone(&self, at: Timestamp) -> bool {
        let deadline = self.offline.map(|offline| offline.attempt_deadline);
        deadline.is_some_and(|deadline| deadline.is_none_or(|deadline| at <= deadline))
            && at < self.expires_at
    }
}

/// Without payload and headers: they may be personal.
impl std::fmt::Debug for LeasedJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeasedJob")
            .field("lease", &self.lease)
            .field("destination", &self.destination)
            .field("expires_at", &self.expires_at)
            .field("payload_bytes", &self.payload.len())
            .field("attempt_number", &self.attempt_number)
            .finish_non_exhaustive()
    }
}
