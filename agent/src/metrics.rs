//! The agent's metrics, in the Prometheus text format. They count and time; no label ever carries a
//! destination's URL, a payload or a secret.

use std::{fmt, time::Duration};

use countersign_shared::{class::FailureClass, time::Timestamp};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Upper bounds of the attempt duration buckets, in seconds: 1 ms to the longest attempt.
const DURATION_BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0,
];

/// Every metric of the agent.
pub struct Metrics {
    registry: Registry,
    /// One counter a class, in the order of [`FailureClass::ALL`]: no lookup on the fast path.
    attempts: Vec<Counter>,
    attempt_seconds: Histogram,
    /// Attempts that are being made.
    pub in_flight: Gauge,
    /// Connections to receivers that finished their handshake.
    pub connections_opened: Counter,
    /// Attempts that went over a connection which was open already.
    pub connections_reused: Counter,
    /// Outcomes in the journal on disk.
    pub journal_entries: Gauge,
    /// Jobs in the journal on disk.
    pub kept_jobs: Gauge,
    /// 1 while a session with the control plane is up.
    pub connected: Gauge,
    /// Sessions that ended, and tries that led to none.
    pub reconnects: Counter,
    /// Attempts that ended with the certificate before, because the active one is refused, expired or
    /// revoked.
    pub fallbacks: Counter,
    /// Probes: what was presented was taken, or not.
    pub probes_accepted: Counter,
    /// See `probes_accepted`.
    pub probes_not_accepted: Counter,
    /// Serial numbers that the control plane has revoked.
    pub certificates_revoked: Counter,
    /// Connections that were closed because their certificate was revoked.
    pub connections_pulled_down: Counter,
    identity_expiry: Gauge,
}

type Label = Vec<(&'static str, &'static str)>;

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("countersign_agent");
        let family = Family::<Label, Counter>::default();
        let attempts = FailureClass::ALL
            .iter()
            .map(|class| family.get_or_create_owned(&vec![("class", class.as_str())]))
            .collect();
        let probes = Family::<Label, Counter>::default();
        let metrics = Self {
            attempts,
            attempt_seconds: Histogram::new(DURATION_BUCKETS),
            in_flight: Gauge::default(),
            connections_opened: Counter::default(),
            connections_reused: Counter::default(),
            journal_entries: Gauge::default(),
            kept_jobs: Gauge::default(),
            connected: Gauge::default(),
            reconnects: Counter::default(),
            fallbacks: Counter::default(),
            probes_accepted: probes.get_or_create_owned(&vec![("accepted", "true")]),
            probes_not_accepted: probes.get_or_create_owned(&vec![("accepted", "false")]),
            certificates_revoked: Counter::default(),
            connections_pulled_down: Counter::default(),
            identity_expiry: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("attempts", "Attempts by class", family);
        registry.register(
            "attempt_duration_seconds",
            "How long attempts took, connecting included",
            metrics.attempt_seconds.clone(),
        );
        registry.register(
            "attempts_in_flight",
            "Attempts that are being made",
            metrics.in_flight.clone(),
        );
        registry.register(
            "connections_opened",
            "Connections to receivers that finished their handshake",
            metrics.connections_opened.clone(),
        );
        registry.register(
            "connections_reused",
            "Attempts over a connection that was open already",
            metrics.connections_reused.clone(),
        );
        registry.register(
            "journal_entries",
            "Unacknowledged outcomes in the journal on disk",
            metrics.journal_entries.clone(),
        );
        registry.register(
            "kept_jobs",
            "Jobs in the journal on disk, to go on with while cut off",
            metrics.kept_jobs.clone(),
        );
        registry.register(
            "connected",
            "1 while a session with the control plane is up",
            metrics.connected.clone(),
        );
        registry.register(
            "reconnects",
            "Sessions that ended and connections that failed",
            metrics.reconnects.clone(),
        );
        registry.register(
            "fallbacks",
            "Attempts that ended with the client certificate before the active one",
            metrics.fallbacks.clone(),
        );
        registry.register(
            "probes",
            "Probes, by whether the receiver took what was presented",
            probes,
        );
        registry.register(
            "certificates_revoked",
            "Serial numbers that the control plane has revoked",
            metrics.certificates_revoked.clone(),
        );
        registry.register(
            "connections_pulled_down",
            "Connections that were closed because their certificate was revoked",
            metrics.connections_pulled_down.clone(),
        );
        registry.register(
            "identity_expiry_timestamp_seconds",
            "When the agent's identity certificate expires, in seconds since 1970",
            metrics.identity_expiry.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// Counts and times one attempt.
    pub fn attempt(&self, class: FailureClass, took: Duration) {
        if let Some(counter) = self.attempts.get(class as usize) {
            counter.inc();
        }
        self.attempt_seconds.observe(took.as_secs_f64());
    }

    /// Counts a job that was given back without an attempt.
    pub fn given_back(&self) {
        if let Some(counter) = self.attempts.get(FailureClass::NotAttempted as usize) {
            counter.inc();
        }
    }

    /// Notes when the identity certificate expires.
    pub fn identity_expires(&self, at: Timestamp) {
        self.identity_expiry.set(at.as_unix_seconds());
    }

    /// The page that a Prometheus server scrapes.
    ///
    /// # Errors
    /// When the encoder fails, which writing to a text does not.
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_own_counter_from_the_start() {
        let metrics = Metrics::default();
        metrics.attempt(FailureClass::HttpGone, Duration::from_millis(3));
        let page = metrics.page().unwrap();
        for &class in FailureClass::ALL {
            let count = u8::from(class == FailureClass::HttpGone);
            let line = format!("countersign_agent_attempts_total{{class=\"{class}\"}} {count}\n");
            assert!(page.contains(&line), "{line} is not in {page}");
        }
        assert!(
            page.contains("attempt_duration_seconds_count 1\n"),
            "{page}"
        );
    }
}
