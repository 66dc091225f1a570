//! Countersign's agent: it runs near receivers, holds what it needs to deliver to them, makes the
//! mutual TLS request locally, and reports what happened. It dials out only.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `data_dir`, `egress`, `metrics`, `transport`
//! 2. `config`, `identity`, `journal`, `status`
//! 3. `deliver`
//! 4. `upstream`
//! 5. `app`
//! 6. `command`
//!
//! A job moves up and down once: `upstream` takes it off the stream, a lane in `deliver` attempts
//! it, the outcome waits in the `journal`'s outbox until `upstream` has had it acknowledged.

pub mod app;
pub mod command;
pub mod config;
pub mod data_dir;
pub mod deliver;
pub mod egress;
pub mod identity;
pub mod journal;
pub mod metrics;
pub mod status;
pub mod transport;
pub mod upstream;
