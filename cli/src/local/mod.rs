//! The product on this machine, as child processes in one data directory: what `dev` and `bench`
//! both start, ask of the API, and take down.
//!
//! Floors in this folder, lowest first; a module imports only from floors below its own:
//!
//! 1. `children`, `directory`, `http`, `provision`
//! 2. `commands`, `trust_anchor`

pub(crate) mod children;
pub(crate) mod commands;
pub(crate) mod directory;
pub(crate) mod http;
pub(crate) mod provision;
pub(crate) mod trust_anchor;
