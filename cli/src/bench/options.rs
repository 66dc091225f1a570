//! What is asked of a run.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, value_parser};
use serde::Serialize;

use super::sequence::MAX_DESTINATIONS;

/// Flags of `countersign bench`. In the report they are `options`, by the same names.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// Deliveries submitted per second; 0: as fast as they are accepted.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u32).range(..=1_000_000))]
    pub(crate) rate: u32,
    /// Destinations, which get deliveries in turn; each has its own certificate and connections.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..i64::from(MAX_DESTINATIONS)))]
    pub(crate) destinations: u32,
    /// Requests that the agents may have under way at once, for each destination.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=1024))]
    pub(crate) concurrency_limit: u32,
    /// Accounts, which the destinations belong to in turn; each has its own authority.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) accounts: u32,
    /// Size of a payload in bytes, at least 2.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = value_parser!(u32).range(2..=1_048_576))]
    pub(crate) payload: u32,
    /// Give each submission a `request_id`, as senders do that repeat one without an answer.
    #[arg(long)]
    pub(crate) request_ids: bool,
    /// Where the store is: in the control plane, or on a PostgreSQL server that is started for the run.
    #[arg(long, value_enum, default_value_t = Store::Embedded)]
    pub(crate) store: Store,
    /// Control planes, each a process of its own; several need `--store postgres`.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=16))]
    pub(crate) control_planes: u32,
    /// Agents, each a process of its own, at the control planes in turn.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
    pub(crate) agents: u32,
    /// Share of destinations that take requests and never answer, 0 to 1.
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = share)]
    pub(crate) slow_share: f64,
    /// Share of destinations that refuse connections, 0 to 1.
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = share)]
    pub(crate) dead_share: f64,
    /// How long to submit, in seconds.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = value_parser!(u32).range(1..=3600))]
    pub(crate) duration: u32,
    /// How long to submit before that, at 500 per second at most, in seconds; it is not measured.
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = value_parser!(u32).range(..=600))]
    pub(crate) warm_up: u32,
    /// How long everything accepted may take to be settled after the last submission, in seconds.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = value_parser!(u32).range(1..=3600))]
    pub(crate) deadline: u32,
    /// Requests that the bare client, which the product is compared with, has under way at once. An agent
    /// at full speed has some 150, on average.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(1..=16_384))]
    pub(crate) bare_concurrency: u32,
    /// Where to keep everything: a directory that is empty or does not exist. Default: a temporary
    /// one, removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,
}

/// Where the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// In the control plane.
    Embedded,
    /// On a PostgreSQL server.
    Postgres,
}

impl Options {
    /// How long to submit.
    pub(crate) fn duration(&self) -> Duration {
        seconds(self.duration)
    }

    /// How long to warm up.
    pub(crate) fn warm_up(&self) -> Duration {
        seconds(self.warm_up)
    }

    /// How long everything may take to be settled.
    pub(crate) fn deadline(&self) -> Duration {
        seconds(self.deadline)
    }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1, such as 0.1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.options)
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let good = parse("bench --rate 5 --slow-share 0.1 --dead-share 1").unwrap();
        assert_eq!((good.rate, good.destinations), (5, 100));
        for bad in [
            "bench --slow-share 1.1",
            "bench --dead-share nan",
            "bench --destinations 0",
            "bench --payload 1",
            "bench --agents 0",
            "bench --duration 0",
            "bench --bare-concurrency 0",
            "bench --concurrency-limit 0",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
