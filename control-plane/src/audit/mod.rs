//! Who is at work: every call that may change something runs in a scope that says so, and whatever the
//! store changes in that scope is put on record in the same transaction. So no method has to remember
//! the audit log, and none can forget it.
//!
//! `chain` is how records hang together, `export` how they leave, `refusals` what was not let in.

mod chain;
pub mod export;
mod refusals;

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use countersign_shared::{
    digest::{hex, sha256},
    random,
    time::{Clock, Timestamp},
};

pub use self::{
    chain::{Broken, Chain, GENESIS},
    refusals::{Refusal, Refusals},
};
use crate::model::{AuditKind, AuditRecord};

tokio::task_local! {
    static CALL: Option<Arc<Call>>;
}

/// Most names of one call that are put on record.
const RESOURCES: usize = 16;

/// Who is at work, and on what.
#[derive(Debug)]
pub struct Call {
    principal: String,
    address: String,
    method: String,
    id: String,
    request_sha256: String,
    resources: Mutex<Vec<String>>,
    clock: Arc<dyn Clock>,
}

impl Call {
    /// A call of the API, or of an agent.
    pub fn new(
        principal: &str,
        address: Option<std::net::IpAddr>,
        method: &str,
        request: &[u8],
        resources: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            principal: principal.to_owned(),
            address: address.map_or_else(String::new, |address| address.to_string()),
            method: method.to_owned(),
            id: random::uuid_v7(clock.now()).to_string(),
            request_sha256: hex(&sha256(request)),
            resources: Mutex::new(resources),
            clock,
        }
    }

    /// Work of the control plane itself.
    pub fn system(work: &str, resources: Vec<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            principal: format!("system/{work}"),
            address: String::new(),
            method: work.to_owned(),
            id: String::new(),
            request_sha256: String::new(),
            resources: Mutex::new(resources),
            clock,
        }
    }

    /// What it is about, as far as is known.
    pub fn resources(&self) -> Vec<String> {
        let resources = self.resources.lock();
        resources.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is put on record of it. The place in the log is for the store to give.
    pub fn record(&self, kind: AuditKind, rows: u64) -> AuditRecord {
        AuditRecord {
            principal: self.principal.clone(),
            address: self.address.clone(),
            method: self.method.clone(),
            resources: self.resources(),
            call_id: self.id.clone(),
            request_sha256: self.request_sha256.clone(),
            rows,
            ..empty(kind, self.clock.now())
        }
    }
}

/// A record with nothing in it but when and why.
fn empty(kind: AuditKind, now: Timestamp) -> AuditRecord {
    AuditRecord {
        sequence: 0,
        time: now.to_string(),
        unix_micros: now.as_unix_micros(),
        kind,
        principal: String::new(),
        address: String::new(),
        method: String::new(),
        resources: Vec::new(),
        call_id: String::new(),
        request_sha256: String::new(),
        rows: 0,
        reason: String::new(),
        count: 1,
        changes: Vec::new(),
    }
}

/// Runs `work` as `call`: what it changes in the store is put on record. Tasks that it spawns are not
/// part of it.
pub async fn scope<T>(call: Call, work: impl Future<Output = T>) -> T {
    CALL.scope(Some(Arc::new(call)), work).await
}

/// Runs `work` as part of `call`, which began elsewhere: for a task that goes on with it.
pub async fn resume<T>(call: Option<Arc<Call>>, work: impl Future<Output = T>) -> T {
    CALL.scope(call, work).await
}

/// Runs `work` without putting its changes on record: for the writing of the record itself.
pub async fn off_record<T>(work: impl Future<Output = T>) -> T {
    CALL.scope(None, work).await
}

/// Who is at work here, if anybody said so.
pub fn current() -> Option<Arc<Call>> {
    CALL.try_with(Option::clone).ok().flatten()
}

/// The call that is at work here is about `name`, which its request does not say: a name that was
/// chosen for what is made.
pub fn about(name: &impl ToString) {
    let Some(call) = current() else {
        return;
    };
    let mut resources = call
        .resources
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let name = name.to_string();
    if resources.len() < RESOURCES && !resources.contains(&name) {
        resources.push(name);
    }
}

#[cfg(test)]
mod tests {
    use countersign_shared::time::SystemClock;

    use super::*;

    #[tokio::test]
    async fn who_is_at_work_is_known_within_the_scope_only() {
        assert!(current().is_none());
        about(&"nobody is at work");
        let address = "192.0.2.7".parse().ok();
        let clock = Arc::new(SystemClock);
        let asked = vec!["accounts/acme".to_owned()];
        let call = Call::new("apiKeys/a", address, "S/M", b"request", asked, clock);
        let record = scope(call, async {
            assert!(off_record(async { current() }).await.is_none());
            about(&"apiKeys/b");
            about(&"apiKeys/b");
            current().map(|call| call.record(AuditKind::Change, 3))
        });
        let record = record.await.unwrap();
        assert_eq!(record.principal, "apiKeys/a");
        assert_eq!(record.address, "192.0.2.7");
        assert_eq!(record.resources, ["accounts/acme", "apiKeys/b"]);
        assert_eq!((record.rows, record.count), (3, 1));
        assert_eq!(record.request_sha256, hex(&sha256(b"request")));
        assert!(current().is_none());
    }
}
