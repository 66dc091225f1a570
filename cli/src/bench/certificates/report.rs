//! The result in numbers: what `--json` prints, and the table for people.

use std::fmt::Write as _;

use countersign_shared::VERSION;
use serde::Serialize;

use super::options::Options;
use crate::bench::machine::Machine;

/// The result.
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
    /// Certificates issued and stored, each durable before its call was answered.
    pub(crate) issued: u32,
    /// From the first call to the last answer.
    pub(crate) issued_per_second: f64,
    /// CPU time of the control plane for each, in microseconds.
    pub(crate) cpu_us_per_certificate: f64,
    /// CPU time of the bare key and signature, in microseconds.
    pub(crate) bare_cpu_us: f64,
    /// The first by the second.
    pub(crate) cpu_ratio: f64,
    /// Bytes that the control plane caused to be written for each.
    pub(crate) bytes_written_per_certificate: f64,
    /// The most memory that the control plane had resident, in bytes.
    pub(crate) control_plane_peak_rss_bytes: u64,
    /// Bundles that an agent got with a first delivery, delivered.
    pub(crate) served: u32,
    /// From the first of these deliveries to the last one's end.
    pub(crate) served_per_second: f64,
    /// The most memory that the agent had resident before it served any, in bytes.
    pub(crate) agent_idle_rss_bytes: u64,
    /// The most memory that it had resident when it served them, in bytes.
    pub(crate) agent_peak_rss_bytes: u64,
}

impl Report {
    /// Version and build.
    pub(super) const BUILD: (&'static str, &'static str) = (
        VERSION,
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    );

    /// As one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        // Plain numbers and texts serialize.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// As lines for people.
    pub(crate) fn table(&self) -> String {
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
        let model = self.machine.cpu_model.as_deref();
        let rows = [
            (
                "machine",
                format!(
                    "{} cores, {}",
                    self.machine.cores,
                    model.unwrap_or("unknown processor")
                ),
            ),
            (
                "issued and stored",
                format!("{} at {:.0}/s", self.issued, self.issued_per_second),
            ),
            (
                "control plane's CPU",
                format!(
                    "{:.0} µs each, {:.1} times the bare key and signature ({:.0} µs)",
                    self.cpu_us_per_certificate, self.cpu_ratio, self.bare_cpu_us
                ),
            ),
            (
                "bytes written",
                format!("{:.0} each", self.bytes_written_per_certificate),
            ),
            (
                "control plane's memory",
                mebibytes(self.control_plane_peak_rss_bytes),
            ),
            (
                "distributed and used",
                format!("{} at {:.0}/s", self.served, self.served_per_second),
            ),
            (
                "agent's memory",
                format!(
                    "{} serving them, {} before",
                    mebibytes(self.agent_peak_rss_bytes),
                    mebibytes(self.agent_idle_rss_bytes)
                ),
            ),
        ];
        let mut text = String::new();
        for (label, value) in rows {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{label:<26}{value}");
        }
        text
    }
}
