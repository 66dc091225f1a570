//! The `countersign` command: the whole product in one executable. `countersign dev` shows it at
//! work on one machine and `countersign bench` measures it there; `countersign control-plane` and
//! `countersign agent` run its parts.
//!
//! Floors, lowest first; a module imports only from floors below its own:
//!
//! 1. `demo_pki`, `output`, `standard_input`
//! 2. `api_client`, `mutual_tls`
//! 3. `local`
//! 4. `bench`, `dev`, `verify_audit_log`, `verify_receipt`
//! 5. `command`

mod api_client;
mod bench;
mod command;
mod demo_pki;
mod dev;
mod local;
mod mutual_tls;
mod output;
mod standard_input;
mod verify_audit_log;
mod verify_receipt;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::run(command::CommandLine::parse())
}
