//! Replacing certificates while deliveries flow: client certificates one destination at a time, and
//! generations of authorities underneath them.
//!
//! Decisions are pure and see only a snapshot (`leaf`, `authority`); `reconcile` carries them out one
//! step at a time, each fenced by the snapshot's epoch, so that a crash between two steps, or two
//! that work on the same destination, leave nothing half done. What was decided is never remembered:
//! after a restart the next look decides anew.

mod agents;
mod authorities;
mod authority;
mod evidence;
mod leaf;
mod operations;
mod policy;
mod reconcile;
mod say;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod year;

pub use agents::{Agents, ProbeError, Probed};
pub use authorities::{Authorities, AuthorityError, AuthorityRotation};
pub use authority::{Blocked, Phase, phase};
pub use leaf::{Holding, Next, next};
pub use operations::OperationError;
pub use policy::Policy;
pub use reconcile::{Reconciler, RotationError, Rotations};
pub use say::held_up_text;
