//! The result in numbers: what `--json` prints, and the table for people.

use std::time::Duration;

use countersign_shared::{VERSION, time::Timestamp};
use serde::Serialize;

use super::{
    files::BareResult, latency::Latency, machine::Machine, measure::Measured, options::Options,
    parts::Costs, process::Usage,
};

/// The result. What there is nothing to say of is `null`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Version of the product.
    pub(crate) version: &'static str,
    /// `release`, or `debug`, whose numbers mean nothing.
    pub(crate) profile: &'static str,
    /// What was asked for.
    pub(crate) options: Options,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Deliveries accepted in the measured time.
    pub(crate) accepted: usize,
    /// Submissions refused.
    pub(crate) refused: u64,
    /// Why the first was.
    pub(crate) first_refusal: Option<String>,
    /// Of those accepted to live destinations, how many were received.
    pub(crate) delivered: usize,
    /// Accepted to live destinations, and never received.
    pub(crate) lost: usize,
    /// Receptions beyond the first of a delivery.
    pub(crate) duplicates: usize,
    /// Accepted to live destinations, and not delivered by the control plane's record.
    pub(crate) unsettled: usize,
    /// From the first submission to the last answer.
    pub(crate) accepted_per_second: f64,
    /// From the first submission to the last reception: every delivery went all the way.
    pub(crate) delivered_per_second: f64,
    /// Received while deliveries were being submitted.
    pub(crate) delivered_per_second_under_load: f64,
    /// How long it took after the last submission until everything was settled.
    pub(crate) drain_seconds: f64,
    /// Latencies in milliseconds.
    pub(crate) latency_ms: Latencies,
    /// CPU time in microseconds, user and system.
    pub(crate) cpu_us_per_delivery: CpuCosts,
    /// Control plane and agents by the bare client.
    pub(crate) cpu_ratio: f64,
    /// Bytes that were written to storage.
    pub(crate) bytes_written_per_delivery: Pair<f64>,
    /// The most memory that was resident, in bytes; all agents together.
    pub(crate) peak_rss_bytes: Pair<u64>,
    /// The bare client.
    pub(crate) bare_client: Bare,
}

/// Latencies of deliveries.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latencies {
    /// From due to the answer that it is durable.
    pub(crate) submit_to_accepted: Option<Latency>,
    /// From that answer to the last byte at the receiver.
    pub(crate) accept_to_received: Option<Latency>,
    /// From due to the last byte at the receiver.
    pub(crate) submit_to_received: Option<Latency>,
    /// From acceptance to the durable outcome, by the control plane's record.
    pub(crate) accept_to_settled: Option<Latency>,
}

/// By process.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CpuCosts {
    /// The control plane.
    pub(crate) control_plane: f64,
    /// All agents together.
    pub(crate) agent: f64,
    /// The store's server; `null`: the store is inside the control plane.
    pub(crate) store_server: Option<f64>,
    /// The bare client, for a request of its own.
    pub(crate) bare_client: f64,
    /// The load generator.
    pub(crate) generator: f64,
    /// The receiver.
    pub(crate) receiver: f64,
}

/// By process.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Pair<T> {
    /// The control plane.
    pub(crate) control_plane: T,
    /// All agents together.
    pub(crate) agent: T,
}

/// The bare client.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Bare {
    /// Requests that were answered per second.
    pub(crate) posts_per_second: f64,
    /// How many were under way at once.
    pub(crate) concurrency: u32,
}

impl Report {
    /// Of what was measured.
    pub(crate) fn new(options: Options, machine: Machine, measured: Measured) -> Self {
        let joined = measured.joined;
        let until = |end: Option<Timestamp>| end.unwrap_or_default().since(measured.start);
        let load_end = measured.start.plus(options.duration());
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        let cpu = cpu_costs(&measured.costs, measured.received_between, &measured.bare);
        let written = |usage: Usage| ratio(usage.bytes_written, measured.received_between);
        Self {
            version: VERSION,
            profile,
            accepted: joined.accepted,
            refused: measured.submitted.refused,
            first_refusal: measured.submitted.first_refusal,
            delivered: joined.delivered,
            lost: joined.lost,
            duplicates: joined.duplicates,
            unsettled: joined.unsettled,
            accepted_per_second: rate(joined.accepted, until(joined.last_accepted)),
            delivered_per_second: rate(joined.delivered, until(joined.last_received)),
            delivered_per_second_under_load: rate(measured.received_under_load, options.duration()),
            drain_seconds: measured.end.since(load_end).as_secs_f64(),
            latency_ms: Latencies {
                submit_to_accepted: Latency::of(joined.submit_to_accepted),
                accept_to_received: Latency::of(joined.accept_to_received),
                submit_to_received: Latency::of(joined.submit_to_received),
                accept_to_settled: Latency::of(joined.accept_to_settled),
            },
            cpu_us_per_delivery: cpu,
            cpu_ratio: (cpu.control_plane + cpu.agent) / cpu.bare_client,
            bytes_written_per_delivery: Pair {
                control_plane: written(measured.costs.control_plane),
                agent: written(measured.costs.agents),
            },
            peak_rss_bytes: Pair {
                control_plane: measured.costs.control_plane.peak_rss,
                agent: measured.costs.agents.peak_rss,
            },
            bare_client: Bare {
                posts_per_second: rate(measured.bare.posts, measured.bare.elapsed),
                concurrency: options.bare_concurrency,
            },
            options,
            machine,
        }
    }

    /// Whether every delivery to a live destination was accepted, received and settled.
    pub(crate) fn is_complete(&self) -> bool {
        self.lost == 0 && self.unsettled == 0 && self.refused == 0
    }

    /// One line of JSON.
    pub(crate) fn to_json(&self) -> String {
        #[allow(clippy::expect_used)] // no map with keys that are not texts, no failing Serialize
        serde_json::to_string(self).expect("plain fields")
    }
}

fn cpu_costs(costs: &Costs, deliveries: usize, bare: &BareResult) -> CpuCosts {
    let each = |usage: Usage| ratio(micros(usage.cpu), deliveries);
    CpuCosts {
        control_plane: each(costs.control_plane),
        agent: each(costs.agents),
        store_server: costs.database.map(each),
        bare_client: ratio(micros(bare.cpu), bare.posts),
        generator: each(costs.generator),
        receiver: each(costs.receiver),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A share of `sum` for each of `count`; where there is none, all of it is for one.
fn ratio(sum: u64, count: usize) -> f64 {
    sum as f64 / count.max(1) as f64
}

/// Per second; 0 where no time has passed.
fn rate(count: usize, duration: Duration) -> f64 {
    if duration.is_zero() {
        return 0.0;
    }
    count as f64 / duration.as_secs_f64()
}

#[cfg(test)]
pub(crate) mod testing {
    use clap::Parser;

    use super::*;
    use crate::bench::{files::Submitted, join::Joined};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// A report of 2000 deliveries in a second, of which 1000 were received in it.
    pub(crate) fn report() -> Report {
        let start = Timestamp::from_unix_seconds(1_700_000_000);
        let usage = |cpu_ms, bytes_written| Usage {
            cpu: Duration::from_millis(cpu_ms),
            bytes_written,
            peak_rss: 3 << 20,
        };
        let joined = Joined {
            accepted: 2000,
            delivered: 2000,
            last_accepted: Some(start.plus(Duration::from_secs(1))),
            last_received: Some(start.plus(Duration::from_secs(2))),
            accept_to_received: vec![1000, 2000],
            ..Joined::default()
        };
        let measured = Measured {
            bare: BareResult {
                posts: 10_000,
                elapsed: Duration::from_secs(2),
                cpu: Duration::from_millis(100),
            },
            submitted: Submitted::default(),
            start,
            end: start.plus(Duration::from_millis(2500)),
            costs: Costs {
                control_plane: usage(60, 4_000_000),
                agents: usage(40, 2_000_000),
                ..Costs::default()
            },
            received_between: 2000,
            received_under_load: 1000,
            joined,
        };
        let line = Line::parse_from(["bench", "--duration", "1", "--json"]);
        let machine = Machine {
            cores: 2,
            cpu_model: None,
        };
        Report::new(line.options, machine, measured)
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::report, *};

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    }

    #[test]
    fn costs_are_per_delivery_and_compared_with_the_floor() {
        let report = report();
        close(report.cpu_us_per_delivery.control_plane, 30.0);
        close(report.cpu_us_per_delivery.agent, 20.0);
        close(report.cpu_us_per_delivery.bare_client, 10.0);
        close(report.cpu_ratio, 5.0);
        close(report.bytes_written_per_delivery.control_plane, 2000.0);
        close(report.accepted_per_second, 2000.0);
        close(report.delivered_per_second, 1000.0);
        close(report.delivered_per_second_under_load, 1000.0);
        close(report.drain_seconds, 1.5);
        close(report.bare_client.posts_per_second, 5000.0);
    }

    #[test]
    fn json_is_one_line_with_options_and_machine() {
        let text = report().to_json();
        assert_eq!(text.lines().count(), 1);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["options"]["destinations"], 100);
        assert_eq!(object["options"].get("json"), None);
        assert_eq!(object["machine"]["cores"], 2);
        assert_eq!(object["latency_ms"]["accept_to_received"]["p50"], 1.0);
        assert_eq!(
            object["latency_ms"]["accept_to_settled"],
            serde_json::Value::Null
        );
        assert_eq!(
            object["cpu_us_per_delivery"]["store_server"],
            serde_json::Value::Null
        );
    }

    #[test]
    fn what_is_missing_makes_it_incomplete() {
        assert!(report().is_complete());
        let missing: [fn(&mut Report); 3] = [
            |report| report.lost = 1,
            |report| report.unsettled = 1,
            |report| report.refused = 1,
        ];
        for miss in missing {
            let mut report = report();
            miss(&mut report);
            assert!(!report.is_complete());
        }
    }

    #[test]
    fn nothing_measured_divides_by_nothing() {
        close(rate(5, Duration::ZERO), 0.0);
        close(ratio(5, 0), 5.0);
    }
}
