//! Deliveries: accepting them, and deciding what becomes of them after each attempt.

mod backlog;
mod by_hand;
pub mod content;
mod doubt;
mod recount;
mod release;
mod retention;
mod retry;
mod settle;
mod submit;

pub use backlog::{Backlog, Full, Place, Scope};
pub use by_hand::ByHand;
pub use recount::Recount;
pub use release::Release;
pub use retention::Retention;
pub use retry::{HELD_AT_MOST, HOLDS, next};
pub use settle::Settle;
pub use submit::{Submission, Submit, SubmitError};
