//! The agent against stand-ins in this process: real TLS servers as receivers, and a control plane
//! that says what a test wants it to say.

// A test that meets what it did not expect should fail there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deliver;
mod egress;
mod enrollment;
mod fallback;
mod lanes;
mod misbehaving;
mod pool;
mod probe;
mod revocation;
mod session;
mod session_answers;
mod support;
