//! The timeline: what happened, when, and the facts, aligned for reading. Text only; printing it is
//! for others.

use std::{fmt::Write as _, time::Duration};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    headline: String,
    facts: Vec<(&'static str, String)>,
}

impl Entry {
    /// An entry without facts.
    pub(crate) fn new(headline: impl Into<String>) -> Self {
        Self {
            headline: headline.into(),
            facts: Vec::new(),
        }
    }

    /// With one fact more. An empty value is left out.
    #[must_use]
    pub(crate) fn fact(mut self, label: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.facts.push((label, value));
        }
        self
    }

    /// The entry as lines, `elapsed` after the start.
    pub(crate) fn render(&self, elapsed: Duration, colour: bool) -> String {
        let paint = Paint(colour);
        let time = paint.dim(&format!("{:>8.3} s", elapsed.as_secs_f64()));
        let mut text = format!("{time}  {}", paint.bold(&harmless(&self.headline)));
        let labels = self.facts.iter().map(|(label, _)| label.chars().count());
        let width = labels.max().unwrap_or_default();
        for (label, value) in &self.facts {
            let label = paint.dim(&format!("{label:<width$}"));
            // Writing to a String can't fail.
            let _ = write!(text, "\n{:14}{label}  {}", "", harmless(value));
        }
        text
    }
}

/// Text from a connection must not steer the terminal.
fn harmless(text: &str) -> String {
    let replace = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(replace).collect()
}

struct Paint(bool);

impl Paint {
    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry::new("Receiver got it")
            .fact("TLS version", "TLSv1.3")
            .fact("empty", "")
            .fact("cipher suite", "TLS_AES_256_GCM_SHA384")
    }

    #[test]
    fn without_colour_it_is_plain_and_aligned() {
        let expected = "   1.234 s  Receiver got it\n\
            \x20             TLS version   TLSv1.3\n\
            \x20             cipher suite  TLS_AES_256_GCM_SHA384";
        assert_eq!(
            entry().render(Duration::from_micros(1_234_400), false),
            expected
        );
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let plain = entry().render(Duration::from_secs(2), false);
        let coloured = entry().render(Duration::from_secs(2), true);
        assert!(coloured.contains('\u{1b}') && !plain.contains('\u{1b}'));
        let stripped = ["\u{1b}[1m", "\u{1b}[2m", "\u{1b}[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(stripped, plain);
    }

    #[test]
    fn what_a_peer_says_does_not_steer_the_terminal() {
        let entry = Entry::new("a").fact("user agent", "x\u{1b}[2Jy\nz");
        let text = entry.render(Duration::ZERO, false);
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(text.lines().count(), 2);
    }
}
