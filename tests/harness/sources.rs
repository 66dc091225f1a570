//! Reads Rust sources far enough to tell which modules of its own crate a file refers to.
//!
//! Comments, texts and test modules are left out. `crate::a`, `use crate::{a, b::c}` and `super::a`
//! count, wherever they stand. Names that macros put together are not seen.

use std::collections::BTreeSet;

/// The first names after the crate's root that `source` refers to: modules, and whatever else is
/// defined in the root. `path` is the file's own module path: `["ca", "profile"]` for
/// `ca/profile.rs`.
pub fn references(source: &str, path: &[&str]) -> BTreeSet<String> {
    let tokens = without_tests(&tokens(source));
    let mut found = BTreeSet::new();
    let mut depth = Depth::new(path.len());
    for (at, token) in tokens.iter().enumerate() {
        depth.step(&tokens, at);
        let rest = &tokens[at + 1..];
        // `$crate::a` in a macro and `crate::a` mean the same here.
        if token == "crate" && rest.first().is_some_and(|next| next == "::") {
            names_after(&rest[1..], &mut found);
        }
        let starts_path = at == 0 || tokens[at - 1] != "::";
        if token == "super" && starts_path {
            let ups = 1 + rest
                .chunks(2)
                .take_while(|pair| *pair == ["::", "super"])
                .count();
            if ups == depth.modules() && rest.get(2 * ups - 2).is_some_and(|next| next == "::") {
                names_after(&rest[2 * ups - 1..], &mut found);
            }
        }
    }
    found
}

/// Names at the start of `a::b`, or of each branch of `{a::b, c}`.
fn names_after(tokens: &[String], found: &mut BTreeSet<String>) {
    if tokens.first().is_some_and(|first| first != "{") {
        found.insert(tokens[0].clone());
        return;
    }
    let mut open = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => open += 1,
            "}" => open -= 1,
            _ if open == 1 && matches!(tokens[at - 1].as_str(), "{" | ",") => {
                found.insert(token.clone());
            }
            _ => {}
        }
        if open == 0 {
            return;
        }
    }
}

/// How many modules deep a place is: the file's own path and the modules written out in it.
struct Depth {
    file: usize,
    braces: usize,
    /// Brace depth at which each written-out module began.
    inline: Vec<usize>,
}

impl Depth {
    fn new(file: usize) -> Self {
        Self {
            file,
            braces: 0,
            inline: Vec::new(),
        }
    }

    fn step(&mut self, tokens: &[String], at: usize) {
        match tokens[at].as_str() {
            "{" => {
                if at >= 2 && tokens[at - 2] == "mod" {
                    self.inline.push(self.braces);
                }
                self.braces += 1;
            }
            "}" => {
                self.braces = self.braces.saturating_sub(1);
                if self.inline.last() == Some(&self.braces) {
                    self.inline.pop();
                }
            }
            _ => {}
        }
    }

    fn modules(&self) -> usize {
        self.file + self.inline.len()
    }
}

/// `#[cfg(test)] mod tests { … }` is left out, and so is any other item with that attribute.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&ATTRIBUTE.map(str::to_owned)) {
            at += ATTRIBUTE.len();
            at += item_length(&tokens[at..]);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// How many tokens an item has: up to its `;`, or to the end of its braces.
fn item_length(tokens: &[String]) -> usize {
    let mut open = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" | "(" | "[" => open += 1,
            "}" | ")" | "]" => open = open.saturating_sub(1),
            _ => {}
        }
        let ends = token == ";" || token == "}";
        if ends && open == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Whether `#![cfg(test)]` makes all of a file a test.
pub fn is_test_only(source: &str) -> bool {
    source.lines().any(|line| line.trim() == "#![cfg(test)]")
}

/// The modules that `source` declares for tests alone: `#[cfg(test)] mod name;`.
pub fn test_modules(source: &str) -> BTreeSet<String> {
    let tokens = tokens(source);
    let windows = tokens.windows(5);
    let declared = windows.filter(|w| w[0] == ")" && w[1] == "]" && w[2] == "mod" && w[4] == ";");
    let names = declared.map(|window| window[3].clone());
    let kept: BTreeSet<String> = without_tests(&tokens)
        .windows(3)
        .filter(|window| window[0] == "mod" && window[2] == ";")
        .map(|window| window[1].clone())
        .collect();
    names.filter(|name| !kept.contains(name)).collect()
}

/// Identifiers, `::`, and single characters; no comments, no texts.
fn tokens(source: &str) -> Vec<String> {
    let characters: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        let (length, token) = next_token(rest);
        tokens.extend(token);
        at += length;
    }
    tokens
}

/// The length of what comes next, and the token that it is, if any.
fn next_token(rest: &[char]) -> (usize, Option<String>) {
    let next = rest.get(1).copied().unwrap_or(' ');
    match rest[0] {
        '/' if next == '/' => (line_length(rest), None),
        '/' if next == '*' => (block_comment_length(rest), None),
        '"' => (text_length(rest), None),
        '\'' => (character_length(rest), None),
        ':' if next == ':' => (2, Some("::".to_owned())),
        first if first.is_whitespace() => (1, None),
        first if is_word(first) => {
            let word: String = rest.iter().take_while(|c| is_word(**c)).collect();
            let length = word.chars().count();
            match raw_text_length(&word, &rest[length..]) {
                Some(text) => (length + text, None),
                None => (length, Some(word)),
            }
        }
        other => (1, Some(other.to_string())),
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn line_length(rest: &[char]) -> usize {
    rest.iter().take_while(|c| **c != '\n').count()
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut at, mut open) = (0, 0_usize);
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            ('/', '*') => (at, open) = (at + 2, open + 1),
            ('*', '/') => (at, open) = (at + 2, open - 1),
            _ => at += 1,
        }
        if open == 0 {
            return at;
        }
    }
    rest.len()
}

fn text_length(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `r"…"`, `br#"…"#` and so on, after their prefix.
fn raw_text_length(prefix: &str, rest: &[char]) -> Option<usize> {
    if !matches!(prefix, "r" | "br" | "cr") {
        return None;
    }
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
    let inside = &rest[hashes + 1..];
    let length = inside.windows(end.len()).position(|window| window == end);
    Some(hashes + 1 + length.map_or(inside.len(), |length| length + end.len()))
}

/// `'a'`, `'\n'`, or a lifetime, of which only the quote is taken.
fn character_length(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, more @ ..] => 3 + more.iter().take_while(|c| **c != '\'').count() + 1,
        ['\'', _, '\'', ..] => 3,
        _ => 1,
    }
}
