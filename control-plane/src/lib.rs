//! Countersign's control plane: certificate authority, configuration, and the owner of every
//! delivery job. Senders and operators call its gRPC API; agents connect to it, never the other way
//! round.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `config`, `metrics`, `model`
//! 2. `kek`, `signals`, `store`
//! 3. `auth`, `vault`
//! 4. `bundles`, `ca`, `deliveries`
//! 5. `crl`, `issuing`
//! 6. `accounts`, `agents`, `alerts`, `bootstrap`, `destinations`, `http`
//! 7. `rotation`
//! 8. `dispatch`
//! 9. `api`
//! 10. `listen`
//! 11. `app`
//! 12. `command`

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
