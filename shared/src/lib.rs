//! What the control plane and the agents both need: the product's vocabulary (names, classes,
//! outcomes, bundles) and a few mechanisms (clock, randomness, sealing, signatures, tasks,
//! configuration). Nothing here opens a connection or a database.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `time`, `secret`, `files`, `digest`, `address_range`, `headers`
//! 2. `random`
//! 3. `name`, `seal`, `signature`, `class`, `tls`, `config`, `tasks`, `logging`, `hygiene`
//! 4. `outcome`, `bundle`, `hpke`, `job`, `join_token`, `receipt`
//! 5. `probe`
//! 6. `wire`

pub mod address_range;
pub mod bundle;
pub mod class;
pub mod config;
pub mod digest;
pub mod files;
pub mod headers;
pub mod hpke;
pub mod hygiene;
pub mod job;
pub mod join_token;
pub mod logging;
pub mod name;
pub mod outcome;
pub mod probe;
pub mod random;
pub mod receipt;
pub mod seal;
pub mod secret;
pub mod signature;
pub mod tasks;
pub mod time;
pub mod tls;
pub mod wire;

/// Version of this build, as logs, agents and `--version` say it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
