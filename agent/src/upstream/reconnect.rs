//! How long to wait before the next session: a random time in a window that doubles with every
//! failure, up to ten times the one that the control plane chose. A fleet that lost its control
//! plane comes back spread out.

use std::time::Duration;

/// The window before a control plane has said one.
const DEFAULT: Duration = Duration::from_secs(1);
/// What a control plane may say.
const ALLOWED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(300));
/// How much wider than the control plane's the window may grow.
const WIDEST: u32 = 10;

/// Failures in a row, and the window that they lead to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reconnect {
    window: Duration,
    failures: u32,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            window: DEFAULT,
            failures: 0,
        }
    }
}

impl Reconnect {
    /// A session is up, and the control plane chose this window.
    pub(super) fn welcomed(&mut self, window: Option<Duration>) {
        let (least, most) = ALLOWED;
        self.window = window.unwrap_or(DEFAULT).clamp(least, most);
        self.failures = 0;
    }

    /// There was no session.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The window of the next wait.
    pub(super) fn window(&self) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures).min(WIDEST);
        self.window * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_up_to_ten_times_and_starts_anew() {
        let mut reconnect = Reconnect::default();
        let mut windows = Vec::new();
        for _ in 0..6 {
            windows.push(reconnect.window().as_secs());
            reconnect.failed();
        }
        assert_eq!(windows, [1, 2, 4, 8, 10, 10]);
        reconnect.welcomed(Some(Duration::from_millis(50)));
        assert_eq!(reconnect.window(), Duration::from_millis(50));
        reconnect.welcomed(Some(Duration::ZERO));
        assert_eq!(reconnect.window(), ALLOWED.0);
        (0..100).for_each(|_| reconnect.failed());
        assert_eq!(reconnect.window(), ALLOWED.0 * WIDEST);
    }
}
