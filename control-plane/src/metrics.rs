//! Metrics, in the Prometheus text format. Names and labels are part of the product: dashboards and
//! alerts depend on them.

use countersign_shared::class::FailureClass;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Labels of attempts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

/// Everything that is measured. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Deliveries accepted.
    pub accepted: Counter,
    /// Submissions refused.
    pub refused: Counter,
    /// Deliveries leased to agents.
    pub leased: Counter,
    /// Outcomes that changed nothing because their lease was old.
    pub stale_outcomes: Counter,
    /// Deliveries given up.
    pub dead_letters: Counter,
    /// Deliveries that are accepted and not settled.
    pub backlog_deliveries: Gauge,
    /// Bytes of their payloads.
    pub backlog_bytes: Gauge,
    /// Agents with a live session.
    pub connected_agents: Gauge,
    /// Whether the KEK's provider serves: 1 or 0.
    pub kek_usable: Gauge,
    /// Failed authentications at the API.
    pub authentication_failures: Counter,
    /// Calls that their principal may not make.
    pub denied_calls: Counter,
    /// Calls beyond what their principal may make in a second.
    pub limited_calls: Counter,
    backlog_full: Family<BoundLabel, Counter>,
    attempts: Family<ClassLabel, Counter>,
    open_alerts: Family<CauseLabel, Gauge>,
    rotations: Family<StepLabel, Counter>,
    accept_to_settled: AcceptToSettled,
}

/// Labels of submissions for which there was no room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BoundLabel {
    bound: &'static str,
}

/// Labels of open alerts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

/// Labels of what was done to client certificates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

/// From acceptance to the delivery being settled, in seconds.
#[derive(Debug, Clone)]
struct AcceptToSettled(Histogram);

impl Default for AcceptToSettled {
    fn default() -> Self {
        let buckets = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0,
            86400.0,
        ];
        Self(Histogram::new(buckets))
    }
}

impl Metrics {
    /// Counts an attempt that has ended.
    pub fn attempt(&self, class: FailureClass) {
        let label = ClassLabel {
            class: class.as_str(),
        };
        self.attempts.get_or_create(&label).inc();
    }

    /// Counts a submission that was refused because a backlog is full: destination, account or
    /// installation.
    pub fn backlog_full(&self, bound: &'static str) {
        self.backlog_full.get_or_create(&BoundLabel { bound }).inc();
    }

    /// How many alerts of a cause are open.
    pub fn open_alerts(&self, cause: &'static str, open: i64) {
        self.open_alerts
            .get_or_create(&CauseLabel { cause })
            .set(open);
    }

    /// Counts what was done to a client certificate: issued, activated, put_back, retired, expired or
    /// revoked.
    pub fn rotation(&self, step: &'static str) {
        self.rotations.get_or_create(&StepLabel { step }).inc();
    }

    /// Observes how long a delivery took from acceptance to being settled.
    pub fn settled_after(&self, seconds: f64) {
        self.accept_to_settled.0.observe(seconds);
    }

    /// The registry that [`page`] writes.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("countersign");
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter("deliveries_accepted", "Deliveries accepted", &self.accepted);
        counter("submissions_refused", "Submissions refused", &self.refused);
        counter(
            "deliveries_leased",
            "Deliveries leased to agents",
            &self.leased,
        );
        counter(
            "stale_outcomes",
            "Outcomes that changed nothing because their lease was old",
            &self.stale_outcomes,
        );
        counter("dead_letters", "Deliveries given up", &self.dead_letters);
        counter(
            "authentication_failures",
            "Calls of the API refused for their credentials",
            &self.authentication_failures,
        );
        counter(
            "denied_calls",
            "Calls of the API that their caller's roles or accounts do not allow",
            &self.denied_calls,
        );
        counter(
            "limited_calls",
            "Calls of the API beyond their caller's rate limit",
            &self.limited_calls,
        );
        registry.register(
            "kek_usable",
            "Whether the provider of the key-encryption key serves: 1 or 0",
            self.kek_usable.clone(),
        );
        registry.register(
            "attempts",
            "Attempts that have ended, by class",
            self.attempts.clone(),
        );
        registry.register(
            "open_alerts",
            "Alerts that are open, by cause",
            self.open_alerts.clone(),
        );
        registry.register(
            "client_certificate_steps",
            "What was done to client certificates",
            self.rotations.clone(),
        );
        registry.register(
            "backlog_full",
            "Submissions refused because a backlog is full, by bound",
            self.backlog_full.clone(),
        );
        registry.register(
            "backlog_deliveries",
            "Deliveries that are accepted and not settled",
            self.backlog_deliveries.clone(),
        );
        registry.register(
            "backlog_bytes",
            "Payload bytes of deliveries that are accepted and not settled",
            self.backlog_bytes.clone(),
        );
        registry.register(
            "connected_agents",
            "Agents with a live session",
            self.connected_agents.clone(),
        );
        registry.register(
            "accept_to_settled_seconds",
            "From acceptance to the delivery being settled",
            self.accept_to_settled.0.clone(),
        );
        registry
    }
}

/// The metrics page.
pub fn page(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = encode(&mut text, registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_was_counted() {
        let metrics = Metrics::default();
        metrics.attempt(FailureClass::Delivered);
        metrics.settled_after(0.002);
        let page = page(&metrics.registry());
        assert!(
            page.contains("countersign_attempts_total{class=\"DELIVERED\"} 1"),
            "{page}"
        );
        assert!(page.ends_with("# EOF\n"));
    }
}
