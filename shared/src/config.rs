//! Configuration files: TOML, read once, every mistake reported at once.
//!
//! A [`Reader`] takes settings out of a table one by one; each wrong one becomes a [`Mistake`], and
//! whatever nobody asked for is an unknown setting. The caller then has either a whole configuration
//! or the whole list of what is wrong with it.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use toml::{Table, Value};

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Which setting, dotted.
    pub setting: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

/// Every mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// Where the configuration came from.
    pub source: String,
    /// What is wrong, at least one.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.list.len() == 1 { "" } else { "s" };
        write!(f, "{}: {} mistake{plural}", self.source, self.list.len())?;
        self.list
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// Takes settings out of a TOML table and collects what is wrong with them.
#[derive(Debug)]
pub struct Reader {
    source: String,
    table: Table,
    known: Vec<&'static str>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Parses `text`; `source` names it in messages. `overrides` are dotted settings with values
    /// that replace the file's, as flags do.
    pub fn new(source: &str, text: &str, overrides: Vec<(&'static str, Value)>) -> Self {
        let mut reader = Self {
            source: source.to_owned(),
            table: Table::new(),
            known: Vec::new(),
            mistakes: Vec::new(),
        };
        match text.parse::<Table>() {
            Ok(table) => reader.table = flatten(table),
            Err(error) => reader.mistake(source, error.to_string().trim().replace('\n', " ")),
        }
        for (setting, value) in overrides {
            reader.table.insert(setting.to_owned(), value);
        }
        reader
    }

    /// Notes a mistake that the caller found.
    pub fn mistake(&mut self, setting: &str, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            setting: setting.to_owned(),
            problem: problem.into(),
        });
    }

    /// How many mistakes there are so far.
    pub fn mistakes(&self) -> usize {
        self.mistakes.len()
    }

    fn take(&mut self, setting: &'static str) -> Option<Value> {
        self.known.push(setting);
        self.table.remove(setting)
    }

    /// A text.
    pub fn text(&mut self, setting: &'static str) -> Option<String> {
        match self.take(setting)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(setting, "a text", &other);
                None
            }
        }
    }

    /// A path. Relative ones are relative to the working directory.
    pub fn path(&mut self, setting: &'static str) -> Option<PathBuf> {
        self.text(setting).map(PathBuf::from)
    }

    /// Anything that parses from a text; the parser's error says what is allowed.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, setting: &'static str) -> Option<T> {
        let text = self.text(setting)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(setting, format!("'{text}' {error}"));
                None
            }
        }
    }

    /// A list of what parses from texts; every wrong one is a mistake of its own.
    pub fn parsed_list<T: FromStr<Err: fmt::Display>>(
        &mut self,
        setting: &'static str,
    ) -> Option<Vec<T>> {
        let mut list = Vec::new();
        for text in self.texts(setting)? {
            match text.parse() {
                Ok(value) => list.push(value),
                Err(error) => self.mistake(setting, format!("'{text}' {error}")),
            }
        }
        Some(list)
    }

    /// An address and port to listen at, such as `127.0.0.1:8443`. Port 0: any free one.
    pub fn listen_address(&mut self, setting: &'static str) -> Option<SocketAddr> {
        let text = self.text(setting)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let problem =
                format!("'{text}' is not an address and port, such as 127.0.0.1:8443 or [::]:8443");
            self.mistake(setting, problem);
        }
        parsed
    }

    /// A whole number within `range`.
    pub fn number(
        &mut self,
        setting: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.take(setting)?;
        let number = value
            .as_integer()
            .and_then(|number| u64::try_from(number).ok());
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let problem = format!(
                    "{value} is not a whole number from {} to {}",
                    range.start(),
                    range.end()
                );
                self.mistake(setting, problem);
                None
            }
        }
    }

    /// A time in whole seconds within `range`.
    pub fn seconds(
        &mut self,
        setting: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<Duration> {
        self.number(setting, range).map(Duration::from_secs)
    }

    /// A list of texts.
    pub fn texts(&mut self, setting: &'static str) -> Option<Vec<String>> {
        let value = self.take(setting)?;
        let list = value.as_array().map(|items| {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        match list {
            Some(Some(texts)) => Some(texts),
            _ => {
                self.wrong_type(setting, "a list of texts", &value);
                None
            }
        }
    }

    /// A list of tables, `[[setting]]`, each read by `read`; what is wrong in one is a mistake of
    /// `setting[number]`, counted from 1.
    pub fn tables<T>(
        &mut self,
        setting: &'static str,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Vec<T> {
        let items = match self.take(setting) {
            None => return Vec::new(),
            Some(Value::Array(items)) if items.iter().all(Value::is_table) => items,
            Some(other) => {
                self.wrong_type(setting, "a list of tables", &other);
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for (number, item) in items.into_iter().enumerate() {
            let table = item.as_table().cloned().unwrap_or_default();
            let mut reader = Self {
                source: self.source.clone(),
                table: flatten(table),
                known: Vec::new(),
                mistakes: Vec::new(),
            };
            let item = read(&mut reader);
            match reader.finish(|| item) {
                Ok(item) => found.push(item),
                Err(mistakes) => {
                    for Mistake {
                        setting: inner,
                        problem,
                    } in mistakes.list
                    {
                        let name = format!("{setting}[{}].{inner}", number + 1);
                        self.mistake(&name, problem);
                    }
                }
            }
        }
        found
    }

    /// Notes that a setting without a default is missing, unless it is there.
    pub fn required<T>(&mut self, setting: &'static str, value: Option<T>) -> Option<T> {
        let said = self
            .mistakes
            .iter()
            .any(|mistake| mistake.setting == setting);
        if value.is_none() && !said {
            self.mistake(setting, "is required");
        }
        value
    }

    fn wrong_type(&mut self, setting: &str, expected: &str, got: &Value) {
        self.mistake(
            setting,
            format!("must be {expected}, not {}", got.type_str()),
        );
    }

    /// The end: `build` makes the configuration from what was read, unless there were mistakes.
    ///
    /// # Errors
    /// [`Mistakes`]: all of them, unknown settings included.
    pub fn finish<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T, Mistakes> {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for setting in unknown {
            let problem = match self.nearest(&setting) {
                Some(known) => format!("unknown setting; did you mean '{known}'?"),
                None => format!("unknown setting; known are: {}", self.known.join(", ")),
            };
            self.mistake(&setting, problem);
        }
        match build() {
            Some(config) if self.mistakes.is_empty() => Ok(config),
            _ => Err(Mistakes {
                source: self.source,
                list: self.mistakes,
            }),
        }
    }

    fn nearest(&self, setting: &str) -> Option<&'static str> {
        self.known
            .iter()
            .map(|known| (distance(known, setting), *known))
            .min()
            .filter(|(distance, _)| *distance <= 3)
            .map(|(_, known)| known)
    }
}

/// `[a] b = 1` becomes `a.b = 1`.
fn flatten(table: Table) -> Table {
    let mut flat = Table::new();
    let mut open = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            match value {
                Value::Table(inner) => open.push((format!("{name}."), inner)),
                other => {
                    flat.insert(name, other);
                }
            }
        }
    }
    flat
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (at, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (to, b) in right.chars().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[to + 1];
            row[to + 1] = substituted.min(diagonal + 1).min(row[to] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_mistakes_are_reported_as_five() {
        let text = r#"
            data_dir = 7
            [listen]
            api = "localhost"
            agnets = "127.0.0.1:1"
            [delivery]
            lease_seconds = 100000
            zzzzzzzzzzzz = true
        "#;
        let mut reader = Reader::new("c.toml", text, Vec::new());
        reader.path("data_dir");
        reader.listen_address("listen.api");
        reader.listen_address("listen.agents");
        reader.seconds("delivery.lease_seconds", 10..=3600);
        let mistakes = reader.finish(|| Some(())).unwrap_err();
        assert_eq!(mistakes.list.len(), 5, "{mistakes}");
        let text = mistakes.to_string();
        assert!(text.contains("c.toml: 5 mistakes"), "{text}");
        assert!(text.contains("did you mean 'listen.agents'?"), "{text}");
        assert!(text.contains("from 10 to 3600"), "{text}");
    }

    #[test]
    fn overrides_win_and_missing_is_said_once() {
        let overrides = vec![("a", Value::String("flag".into()))];
        let mut reader = Reader::new("c.toml", "a = 'file'", overrides);
        assert_eq!(reader.text("a").as_deref(), Some("flag"));
        let missing = reader.text("b");
        assert_eq!(reader.required("b", missing), None);
        let mistakes = reader.finish(|| None::<()>).unwrap_err();
        assert_eq!(mistakes.list.len(), 1);
    }

    #[test]
    fn every_wrong_item_of_a_list_is_a_mistake() {
        let mut reader = Reader::new("c.toml", "a = ['1', 'x', 'y']\nb = '1'", Vec::new());
        assert_eq!(reader.parsed_list::<u8>("a"), Some(vec![1]));
        assert_eq!(reader.parsed_list::<u8>("b"), None);
        let mistakes = reader.finish(|| Some(())).unwrap_err();
        assert_eq!(mistakes.list.len(), 3, "{mistakes}");
    }

    #[test]
    fn tables_are_read_one_by_one_and_their_mistakes_say_which() {
        let text = "[[a]]\nb = '1'\n[[a]]\nb = 'x'\nc = 1\n[[a]]\n";
        let mut reader = Reader::new("c.toml", text, Vec::new());
        let read = |reader: &mut Reader| {
            let b = reader.parsed::<u8>("b");
            reader.required("b", b)
        };
        assert_eq!(reader.tables("a", read), [1]);
        assert!(reader.tables("none", read).is_empty());
        let mistakes = reader.finish(|| Some(())).unwrap_err();
        let named: Vec<_> = mistakes.list.iter().map(|it| it.setting.as_str()).collect();
        assert_eq!(named, ["a[2].b", "a[2].c", "a[3].b"]);
        let mut reader = Reader::new("c.toml", "a = [1]", Vec::new());
        assert!(reader.tables("a", read).is_empty());
        assert!(reader.finish(|| Some(())).is_err());
    }

    #[test]
    fn broken_toml_is_a_mistake_with_its_place() {
        let mistakes = Reader::new("c.toml", "a = ", Vec::new())
            .finish(|| Some(()))
            .unwrap_err();
        assert!(mistakes.to_string().contains("line 1"), "{mistakes}");
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
