//! The way up: one session with the control plane at a time, over which bundles and jobs come down
//! and acknowledgements and outcomes go up, and another one when it ends.
//!
//! `run` keeps a session up, `reconnect` says how long to wait between two, `connect` opens one,
//! `session` is the conversation; `bundles` and `credit` are what it understands, `answers`
//! what takes longer.

mod answers;
mod bundles;
mod connect;
mod credit;
mod parts;
mod reconnect;
mod run;
mod session;

pub use self::{bundles::BundleIntake, credit::Limits, parts::Parts, run::run};
