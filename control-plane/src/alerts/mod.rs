//! Alerts: what a person must hear before deliveries fail. One open alert for a cause and a resource;
//! it resolves by itself when the cause is gone.
//!
//! Three sources: certificates that end soon and destinations that fail for days, looked for every now
//! and then, what attempts show of receivers, and deliveries that are given up. `judge` and `failing`
//! decide, and are pure; `watch` carries it out.

mod failing;
mod judge;
mod notify;
mod watch;

pub use failing::{CRITICAL_AFTER, DISABLE_AFTER, WARN_AFTER};
pub use judge::{CRITICAL_WITHIN, Verdict, WARN_WITHIN, from_evidence, of_expiring};
pub use notify::Notifier;
pub use watch::{Alerts, Watchman};
