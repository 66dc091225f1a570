//! The `countersign` command: the whole product in one executable. `countersign dev` shows it at
//! work on one machine, `countersign control-plane` and `countersign agent` run its parts.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `output`, `standard_input`, `api_client`, `demo_pki`
//! 2. `dev::{certificate, children, connect, directory, grpcurl_hints, provision, report,
//!    timeline}`, `dev::receiver::{record, tls}`
//! 3. `dev::receiver::webhook`, `dev::story`
//! 4. `dev::receiver`
//! 5. `dev::system`
//! 6. `dev::steps`
//! 7. `dev`
//! 8. `command`

mod api_client;
mod command;
mod demo_pki;
mod dev;
mod output;
mod standard_input;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    command::run(command::CommandLine::parse())
}
