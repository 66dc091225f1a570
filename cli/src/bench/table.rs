//! The result for people: short and aligned.

use std::fmt::Write as _;

use super::{
    latency::Latency,
    report::{Pair, Report},
};

/// The result as lines.
pub(crate) fn table(report: &Report) -> String {
    let mut text = String::new();
    for (label, value) in rows(report) {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{label:<26}{value}");
    }
    let _ = writeln!(
        text,
        "\n{:<26}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "latency, ms", "p50", "p90", "p99", "p99.9", "max"
    );
    let latencies = &report.latency_ms;
    for (label, latency) in [
        ("submit to accepted", latencies.submit_to_accepted),
        ("accepted to received", latencies.accept_to_received),
        ("submit to received", latencies.submit_to_received),
        ("accepted to settled", latencies.accept_to_settled),
    ] {
        if let Some(Latency {
            p50,
            p90,
            p99,
            p999,
            max,
        }) = latency
        {
            let _ = writeln!(
                text,
                "{label:<26}{p50:>9.2}{p90:>9.2}{p99:>9.2}{p999:>9.2}{max:>9.2}"
            );
        }
    }
    text
}

fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let cpu = &report.cpu_us_per_delivery;
    let machine = &report.machine;
    let model = machine.cpu_model.as_deref().unwrap_or("unknown processor");
    let mut rows = vec![
        ("machine", format!("{} cores, {model}", machine.cores)),
        (
            "accepted",
            rate(report.accepted, report.accepted_per_second),
        ),
        (
            "delivered",
            rate(report.delivered, report.delivered_per_second),
        ),
        (
            "under load",
            format!(
                "{:.0}/s, then {:.1} s until all was settled",
                report.delivered_per_second_under_load, report.drain_seconds
            ),
        ),
        (
            "lost, duplicates",
            format!("{}, {}", report.lost, report.duplicates),
        ),
        (
            "CPU per delivery",
            format!(
                "control plane {:.1} µs, agent {:.1} µs{}; generator {:.1}, receiver {:.1}",
                cpu.control_plane,
                cpu.agent,
                cpu.store_server
                    .map(|server| format!(", PostgreSQL {server:.1} µs"))
                    .unwrap_or_default(),
                cpu.generator,
                cpu.receiver
            ),
        ),
        (
            "bare client",
            format!(
                "{:.1} µs, {:.0}/s with {} under way; the product costs {:.1} times that",
                cpu.bare_client,
                report.bare_client.posts_per_second,
                report.bare_client.concurrency,
                report.cpu_ratio
            ),
        ),
        (
            "written per delivery",
            pair(report.bytes_written_per_delivery, |bytes| {
                format!("{bytes:.0} bytes")
            }),
        ),
        (
            "peak memory",
            pair(report.peak_rss_bytes, |bytes| {
                format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
            }),
        ),
    ];
    rows.extend(warnings(report));
    rows
}

/// What must not be overlooked.
fn warnings(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if report.unsettled > 0 {
        rows.push(("NOT SETTLED IN TIME", report.unsettled.to_string()));
    }
    if report.refused > 0 {
        let why = report.first_refusal.as_deref().unwrap_or_default();
        rows.push(("REFUSED", format!("{}; the first: {why}", report.refused)));
    }
    if report.profile == "debug" {
        let advice = "numbers of a debug build mean nothing: build with --release".to_owned();
        rows.push(("WARNING", advice));
    }
    rows
}

fn rate(count: usize, per_second: f64) -> String {
    format!("{count}, {per_second:.0}/s")
}

fn pair<T: Copy>(pair: Pair<T>, show: impl Fn(T) -> String) -> String {
    format!(
        "control plane {}, agent {}",
        show(pair.control_plane),
        show(pair.agent)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::testing::report;

    #[test]
    fn values_stand_below_each_other() {
        let text = table(&report());
        assert!(
            text.contains("accepted                  2000, 2000/s\n"),
            "{text}"
        );
        assert!(
            text.contains("10.0 µs, 5000/s with 256 under way; the product costs 5.0 times"),
            "{text}"
        );
        assert!(
            text.contains("accepted to received           1.00     2.00"),
            "{text}"
        );
        assert!(!text.contains("submit to received"), "{text}");
        assert!(
            !text.contains("NOT SETTLED") && !text.contains("REFUSED"),
            "{text}"
        );
    }

    #[test]
    fn what_went_wrong_is_shown() {
        let mut bad = report();
        bad.unsettled = 3;
        bad.refused = 2;
        bad.first_refusal = Some("FULL: later".to_owned());
        let text = table(&bad);
        assert!(text.contains("NOT SETTLED IN TIME       3\n"), "{text}");
        assert!(text.contains("2; the first: FULL: later"), "{text}");
    }
}
