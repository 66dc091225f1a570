//! What the benchmark's own child processes have in common: a runtime, a few log lines, an exit
//! status.

use std::{fmt::Display, process::ExitCode};

use countersign_shared::{
    logging::{self, LogFormat},
    tls,
};

use crate::output;

/// Runs `work` to its end; an error goes to the log.
pub(crate) fn run<E: Display>(name: &str, work: impl Future<Output = Result<(), E>>) -> ExitCode {
    tls::install_default_provider();
    let _ = logging::init(LogFormat::Human, "warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(work).map_err(|error| error.to_string()),
        Err(error) => Err(format!("can't start: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{name}: {error}"));
            ExitCode::FAILURE
        }
    }
}
