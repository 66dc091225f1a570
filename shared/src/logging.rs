//! Logs: one line an event on standard error, for people or as JSON for programs.

use std::{io::IsTerminal as _, str::FromStr};

use thiserror::Error;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("is neither 'human' nor 'json'"),
        }
    }
}

/// Why logging can't start.
#[derive(Debug, Error)]
#[error(
    "log filter '{filter}' is not understood: use a level (info) or targets (warn,countersign_agent=debug)"
)]
pub struct LogError {
    filter: String,
}

/// Whether `filter` is one that [`init`] takes.
pub fn is_filter(filter: &str) -> bool {
    EnvFilter::try_new(filter).is_ok()
}

/// Starts logging to standard error. A second call changes nothing.
///
/// # Errors
/// [`LogError`] when `filter` is not understood.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|_| LogError {
        filter: filter.to_owned(),
    })?;
    // Colours are for people at a terminal, not for files (https://no-color.org).
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let registry = tracing_subscriber::registry().with(filter);
    // The error says that logging has started already, as in `countersign dev`.
    let _ = match format {
        LogFormat::Human => registry.with(lines.with_target(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(())
}
