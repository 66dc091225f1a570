//! The command line: which part of the product to run.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{bench, dev, output, standard_input, verify_audit_log, verify_receipt};

const EXAMPLES: &str = "\
Examples:
  See one webhook delivered over mutual TLS, end to end, on this machine:
    countersign dev

  The same for a script: one delivery, one JSON object, exit status 0 when it was confirmed:
    countersign dev --once --json

  Measure throughput, latency and CPU time per delivery on this machine:
    countersign bench

  Run a control plane, and keep its administrator key in a file:
    countersign control-plane --data-dir /var/lib/countersign --admin-key-file admin.key

  Enroll an agent with the token that CreateJoinToken returned, then run it:
    countersign agent enroll --data-dir /var/lib/countersign-agent \\
      --control-plane https://control-plane.example:8444 --token-file token
    countersign agent run --data-dir /var/lib/countersign-agent

Administration is gRPC with server reflection: use grpcurl, as `countersign dev` shows.";

/// Delivers webhooks over mutual TLS, with HMAC signatures on top.
#[derive(Parser)]
#[command(name = "countersign", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    /// Stop when standard input ends: how `dev` makes sure that nothing outlives it.
    #[arg(long, hide = true)]
    stop_when_stdin_ends: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant)] // made once in a process
enum Command {
    /// Show everything at work on this machine: control plane, agent and a receiver that demands
    /// mutual TLS.
    Dev(dev::Arguments),
    /// Measure what the product costs on this machine, beside a bare HTTP client.
    Bench(bench::Arguments),
    /// Run a control plane: certificate authority, configuration, delivery jobs.
    ControlPlane(countersign_control_plane::command::Arguments),
    /// Look after a store on a PostgreSQL server, or move an embedded one there.
    Store(countersign_control_plane::command::StoreArguments),
    /// Enroll or run an agent: it makes the deliveries, near their receivers.
    Agent(countersign_agent::command::Arguments),
    /// Verify the receipts of attempts, offline.
    VerifyReceipt(verify_receipt::Arguments),
    /// Verify an export of the audit log, offline.
    VerifyAuditLog(verify_audit_log::Arguments),
    /// A process of `bench`: the receiver.
    #[command(hide = true)]
    BenchReceiver(bench::receiver::Arguments),
    /// A process of `bench`: the load generator.
    #[command(hide = true)]
    BenchGenerator(bench::generator::Arguments),
    /// A process of `bench`: the bare client.
    #[command(hide = true)]
    BenchBare(bench::bare::Arguments),
}

/// Runs what the command line says; returns when it has ended.
pub(crate) fn run(line: CommandLine) -> ExitCode {
    if line.stop_when_stdin_ends
        && let Err(error) = standard_input::stop_when_it_ends()
    {
        output::error(&format!("countersign: can't watch standard input: {error}"));
        return ExitCode::FAILURE;
    }
    match line.command {
        Command::Dev(arguments) => dev::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::BenchReceiver(arguments) => bench::receiver::run(&arguments),
        Command::BenchGenerator(arguments) => bench::generator::run(&arguments),
        Command::BenchBare(arguments) => bench::bare::run(&arguments),
        Command::ControlPlane(arguments) => countersign_control_plane::command::run(arguments),
        Command::Store(arguments) => countersign_control_plane::command::run_store(arguments),
        Command::Agent(arguments) => countersign_agent::command::run(arguments),
        Command::VerifyReceipt(arguments) => verify_receipt::run(&arguments),
        Command::VerifyAuditLog(arguments) => verify_audit_log::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn dev_takes_its_flags_and_refuses_others() {
        let parse = |line: &str| CommandLine::try_parse_from(line.split(' '));
        assert!(parse("countersign dev --once --json --keep --data-dir /tmp/x").is_ok());
        assert!(parse("countersign dev --twice").is_err());
        assert!(parse("countersign").is_err());
    }

    #[test]
    fn help_shows_examples_and_hides_the_internal_flag() {
        let help = CommandLine::command().render_long_help().to_string();
        assert!(help.contains("countersign dev --once --json"), "{help}");
        assert!(!help.contains("stop-when-stdin-ends"), "{help}");
        assert!(!help.contains("bench-"), "{help}");
    }
}
