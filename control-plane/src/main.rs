//! `countersign-control-plane`: see `countersign_control_plane::command`.

use std::process::ExitCode;

use clap::Parser;
use countersign_control_plane::command::{Arguments, run};

/// Countersign's control plane: certificate authority, configuration and delivery jobs.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "\
Examples:
  countersign-control-plane --data-dir /var/lib/countersign
  countersign-control-plane --config /etc/countersign/control-plane.toml --check"
)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(Cli::parse().arguments)
}
