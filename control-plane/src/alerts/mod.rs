//! Alerts: what a person must hear before deliveries fail. One open alert for a cause and a resource;
//! it resolves by itself when the cause is gone.
//!
//! Two sources: certificates that end soon, looked for every now and then, and what attempts show of
//! receivers. `judge` decides, and is pure; `watch` carries it out.

mod judge;
mod notify;
mod watch;

pub use judge::{CRITICAL_WITHIN, Verdict, WARN_WITHIN, from_evidence, of_expiring};
pub use notify::Notifier;
pub use watch::{Alerts, Watchman};
