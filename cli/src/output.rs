//! What the command says: the one place that writes to standard output and standard error.
//!
//! It writes with `writeln!` and lets errors pass, where `println!` would panic: when whoever reads
//! the output goes away, the work still ends in order.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::ProgressBar;

/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(80);

/// Where text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Stream {
    fn is_terminal(self) -> bool {
        match self {
            Self::Output => io::stdout().is_terminal(),
            Self::Error => io::stderr().is_terminal(),
        }
    }

    fn write(self, text: &str) {
        let _ = match self {
            Self::Output => writeln!(io::stdout().lock(), "{text}"),
            Self::Error => writeln!(io::stderr().lock(), "{text}"),
        };
    }
}

/// Writes a line for programs to standard output.
pub(crate) fn result(text: &str) {
    Stream::Output.write(text);
}

/// Writes a line for people to standard error.
pub(crate) fn error(text: &str) {
    Stream::Error.write(text);
}

/// Lines for people, with a spinner below them while something is awaited.
#[derive(Debug)]
pub(crate) struct Console {
    stream: Stream,
    colour: bool,
    /// On standard error; only while something is awaited, and only on a terminal.
    spinner: Option<ProgressBar>,
}

impl Console {
    /// Writes to `stream`.
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            colour: colour_wanted(stream.is_terminal(), |name| env::var_os(name)),
            spinner: None,
        }
    }

    /// Whether lines may be coloured.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Writes a text of one or more lines.
    pub(crate) fn say(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| self.stream.write(text)),
            None => self.stream.write(text),
        }
    }

    /// Shows what is awaited until [`Console::idle`].
    pub(crate) fn busy(&mut self, what: &'static str) {
        self.progress(|| format!("waiting for {what}"));
    }

    /// Whether anybody sees [`Console::progress`].
    pub(crate) fn shows_progress(&self) -> bool {
        Stream::Error.is_terminal()
    }

    /// Shows how far it is until [`Console::idle`], on a terminal only.
    pub(crate) fn progress(&mut self, text: impl FnOnce() -> String) {
        if let Some(spinner) = self.spinner() {
            spinner.set_message(text());
        }
    }

    /// The spinner, when there is a terminal for it.
    fn spinner(&mut self) -> Option<&ProgressBar> {
        Stream::Error.is_terminal().then(|| {
            &*self.spinner.get_or_insert_with(|| {
                let made = ProgressBar::new_spinner();
                made.enable_steady_tick(TICK);
                made
            })
        })
    }

    /// Takes the spinner away.
    pub(crate) fn idle(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

/// On a terminal, unless `NO_COLOR` is set and not empty (no-color.org) or the terminal is dumb.
fn colour_wanted(terminal: bool, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = variable("TERM").is_some_and(|value| value == "dumb");
    terminal && !refused && !dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_needs_a_terminal_that_wants_it() {
        let with = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.into())
        };
        assert!(colour_wanted(true, |_| None));
        assert!(!colour_wanted(false, |_| None));
        assert!(!colour_wanted(true, with("NO_COLOR", "1")));
        assert!(colour_wanted(true, with("NO_COLOR", "")));
        assert!(!colour_wanted(true, with("TERM", "dumb")));
    }
}
