//! Countersign's control plane: certificate authority, configuration, and the owner of every
//! delivery job. Senders and operators call its gRPC API; agents connect to it, never the other way
//! round.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `model`
//! 2. `config`, `metrics`
//! 3. `kek`, `signals`, `store`
//! 4. `auth`, `vault`
//! 5. `bundles`, `ca`, `deliveries`
//! 6. `crl`, `issuing`
//! 7. `accounts`, `agents`, `alerts`, `bootstrap`, `destinations`, `http`
//! 8. `rotation`
//! 9. `dispatch`
//! 10. `api`
//! 11. `listen`
//! 12. `app`
//! 13. `command`

pub mod accounts;
pub mod agents;
pub mod alerts;
pub mod api;
pub mod app;
pub mod auth;
pub mod bootstrap;
pub mod bundles;
pub mod ca;
pub mod command;
pub mod config;
pub mod crl;
pub mod deliveries;
pub mod destinations;
pub mod dispatch;
pub mod http;
pub mod issuing;
pub mod kek;
pub mod listen;
pub mod metrics;
pub mod model;
pub mod rotation;
pub mod signals;
pub mod store;
pub mod vault;
