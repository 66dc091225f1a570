//! What is asked of a run.

use std::path::PathBuf;

use clap::{Args, value_parser};
use serde::Serialize;

/// Flags of `countersign bench certificates`. In the report they are `options`, by the same names.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Options {
    /// Destinations to make, each with a key and a certificate of its own.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u32).range(100..=1_000_000))]
    pub(crate) count: u32,
    /// How many of them get a delivery, so that an agent has to have their certificates.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) served: u32,
    /// Calls under way at once.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(1..=1024))]
    pub(crate) in_flight: u32,
    /// Where to keep everything: a directory that is empty or does not exist. Default: a temporary
    /// one, removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: bool,
}
