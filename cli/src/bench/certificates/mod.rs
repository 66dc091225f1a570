//! `countersign bench certificates`: how fast client certificates are issued and stored, and how fast
//! those that are needed get to an agent, beside the bare work of making keys and signing.
//!
//! Floors in this folder, lowest first; a module imports only from floors below its own:
//!
//! 1. `bare`, `options`
//! 2. `report`
//! 3. `measure`

mod bare;
mod measure;
mod options;
mod report;

pub(crate) use measure::run;
pub(crate) use options::Options;
pub(crate) use report::Report;
