//! What the stories are told with: processes that end with their test, the product's two halves,
//! and servers, clients and verifiers that others wrote (nginx, grpcurl, openssl, Python libraries).
//!
//! Almost nothing here knows the product from the inside: it starts the `countersign` program and
//! talks to it over its API, with the wire types and the vocabulary in common. The exceptions are
//! `delivery_bench`, which runs the agent's delivery code with certificates that the control plane
//! would never sign, `false_agent`, which says what the agent never would, `parsers`, which calls parsers with
//! anything, and `issued`, which has the control plane's authority sign one of each. What
//! fails here fails the test, so it panics with what it was about.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `tools`, `wait`, `times`, `ports`, `scanner`, `sources`, `authority`, `issued`,
//!    `fault_proxy`, `false_agent`, `parsers`, `dice`
//! 2. `folder`, `process`, `floors`
//! 3. `openssl`, `python`, `grpcurl`, `http_get`, `delivery_bench`, `receivers`, `postgres`,
//!    `softhsm`
//! 4. `moto`, `patroni`, `certificates`, `customer_ca`, `control_plane`, `receiver_script`
//! 5. `bao`, `kubernetes`, `nginx`, `gate`, `agent`, `client`, `receiver`
//! 6. `sender`, `steady`, `setting`
//! 7. `cluster`

// A harness of tests: there is nobody to hand an error to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod agent;
pub mod authority;
pub mod bao;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod control_plane;
pub mod customer_ca;
pub mod delivery_bench;
pub mod dice;
pub mod false_agent;
pub mod fault_proxy;
pub mod floors;
pub mod folder;
pub mod gate;
pub mod grpcurl;
pub mod http_get;
pub mod issued;
pub mod kubernetes;
pub mod moto;
pub mod nginx;
pub mod openssl;
pub mod parsers;
pub mod patroni;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod python;
pub mod receiver;
pub mod receiver_script;
pub mod receivers;
pub mod scanner;
pub mod sender;
pub mod setting;
pub mod softhsm;
pub mod sources;
pub mod steady;
pub mod times;
pub mod tools;
pub mod wait;
