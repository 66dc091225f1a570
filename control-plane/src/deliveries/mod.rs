//! Deliveries: accepting them, and deciding what becomes of them after each attempt.

mod retention;
mod retry;
mod settle;
mod submit;

pub use retention::Retention;
pub use retry::{SCHEDULE, next};
pub use settle::Settle;
pub use submit::{Submission, Submit, SubmitError};
