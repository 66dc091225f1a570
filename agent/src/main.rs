//! The binary `countersign-agent`: the same as `countersign agent`.

use std::process::ExitCode;

use clap::Parser;

/// Delivers webhooks over mutual TLS, near their receivers.
#[derive(Debug, Parser)]
#[command(name = "countersign-agent", version)]
struct CommandLine {
    #[command(flatten)]
    arguments: countersign_agent::command::Arguments,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    countersign_agent::command::run(CommandLine::parse().arguments)
}
