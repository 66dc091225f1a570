//! Placeholders: SQLite's `?` and `?1` as PostgreSQL's `$1`.

use std::fmt::Write as _;

/// The statement with PostgreSQL's placeholders. A `?` without a number is the next one.
pub(super) fn with_dollars(statement: &str) -> String {
    let mut out = String::with_capacity(statement.len() + 16);
    let (mut quoted, mut next) = (false, 1);
    let mut rest = statement.chars().peekable();
    while let Some(char) = rest.next() {
        quoted ^= char == '\'';
        if quoted || char != '?' {
            out.push(char);
            continue;
        }
        out.push('$');
        if !rest.peek().is_some_and(char::is_ascii_digit) {
            // Writing to a string never fails.
            let _ = write!(out, "{next}");
            next += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_and_quoted_ones_left_alone() {
        for (sqlite, postgres) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT ?, ? WHERE x = ?", "SELECT $1, $2 WHERE x = $3"),
            ("SELECT ?2, ?1, ?12", "SELECT $2, $1, $12"),
            ("SELECT '?', 'it''s ?', ?", "SELECT '?', 'it''s ?', $1"),
        ] {
            assert_eq!(with_dollars(sqlite), postgres);
        }
    }
}
