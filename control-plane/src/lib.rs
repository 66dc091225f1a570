//! Countersign's control plane: certificate authority, configuration, and the owner of every
//! delivery job. Senders and operators call its gRPC API; agents connect to it, never the other way
//! round.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `model`
//! 2. `audit`, `config`, `metrics`
//! 3. `pkcs11`, `signals`, `store`
//! 4. `auth`, `kek`
//! 5. `vault`
//! 6. `auditing`, `bundles`, `ca`, `deliveries`, `rewrapping`
//! 7. `crl`, `issuing`
//! 8. `accounts`, `agents`, `alerts`, `bootstrap`, `destinations`, `http`
//! 9. `custody`, `maintenance`, `rotation`
//! 10. `dispatch`
//! 11. `api`
//! 12. `listen`
//! 13. `app`
//! 14. `command`

pub mod accounts;
pub mod agents;
pub mod alerts;
pub mod api;
pub mod app;
pub mod audit;
pub mod auditing;
pub mod auth;
pub mod bootstrap;
pub mod bundles;
pub mod ca;
pub mod command;
pub mod config;
pub mod crl;
pub mod custody;
pub mod deliveries;
pub mod destinations;
pub mod dispatch;
pub mod http;
pub mod issuing;
pub mod kek;
pub mod listen;
pub mod maintenance;
pub mod metrics;
pub mod model;
pub mod pkcs11;
pub mod rewrapping;
pub mod rotation;
pub mod signals;
pub mod store;
pub mod vault;
