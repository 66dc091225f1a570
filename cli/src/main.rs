//! The `countersign` command: the whole product in one executable. `countersign dev` shows it at
//! work on one machine, `countersign control-plane` and `countersign agent` run its parts.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `output`, `standard_input`, `api_client`, `demo_pki`
//! 2. `dev::{certificate, children, directory, grpcurl_hints, provision, timeline, trust_anchor}`
//! 3. `dev::receiver::record`
//! 4. `dev::receiver::{tls, webhook}`, `dev::report`
//! 5. `dev::receiver`, `dev::story`, `dev::failure`
//! 6. `dev::system`
//! 7. `dev::steps::control_plane`, `dev::steps::stay`
//! 8. `dev::steps::{account, agent, delivery}`
//! 9. `dev::steps::destination`
//! 10. `dev::steps`
//! 11. `dev`
//! 12. `command`

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
