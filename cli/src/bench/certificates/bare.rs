//! The bare work: a P-256 key and a signature, in a loop on one thread, nothing sealed or stored.

use std::time::{Duration, Instant};

use countersign_shared::time::{Clock as _, SystemClock};

use crate::{bench::failure::Failure, demo_pki::BareAuthority};

/// How many are made.
const COUNT: u32 = 5000;

/// How long one certificate takes.
///
/// # Errors
/// [`Failure::Certificate`].
pub(super) fn per_certificate() -> Result<Duration, Failure> {
    let authority = BareAuthority::new(SystemClock.now())?;
    let started = Instant::now();
    for _ in 0..COUNT {
        authority.issue()?;
    }
    Ok(started.elapsed() / COUNT)
}
