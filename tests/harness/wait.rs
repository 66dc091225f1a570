//! Waiting for a condition: by looking often, never by guessing how long it takes.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that takes a second on an idle machine. Reached only by failures.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `check` gives something, and gives that.
///
/// # Panics
/// When it has given nothing by `deadline`, saying `what` was waited for.
pub fn wait_until<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(
            started.elapsed() < deadline,
            "gave up after {deadline:?} waiting for {what}"
        );
        thread::sleep(PAUSE);
    }
}

/// As [`wait_until`], for a condition without a value.
///
/// # Panics
/// When it does not hold by `deadline`.
pub fn wait_for(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    wait_until(what, deadline, || holds().then_some(()));
}
