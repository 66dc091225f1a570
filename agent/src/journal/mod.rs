//! The journal: what the agent keeps on disk beside its identity, sealed, in sled. Bundles,
//! outcomes that the control plane has not acknowledged yet, and jobs that are worked on while the agent is
//! cut off.
//!
//! It is a cache that the control plane can refill: if it does not open it is set aside under
//! another name. `store` is the database, `writer` its thread, `handle` what others write through,
//! `outbox` the unacknowledged outcomes in memory and how they get to disk in time, `kept` the same of
//! jobs.

mod error;
mod handle;
mod kept;
mod outbox;
mod outbox_state;
mod store;
mod writer;

pub use self::{
    error::JournalError,
    handle::Journal,
    outbox::Outbox,
    store::{Contents, Store, open},
    writer::Durable,
};
