//! Pages: sizes within limits, and tokens that only we make.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::violations::Violations;
use crate::model::Page;

const DEFAULT_SIZE: usize = 50;
const MAX_SIZE: usize = 1000;

/// How many items were asked for: 50 unless told, at most 1000.
pub(super) fn size(violations: &mut Violations, asked: i32) -> usize {
    match usize::try_from(asked) {
        Ok(0) => DEFAULT_SIZE,
        Ok(size) => size.min(MAX_SIZE),
        Err(_) => {
            violations.add("page_size", "must not be negative");
            DEFAULT_SIZE
        }
    }
}

/// After what to go on: what [`token`] was given. `kind` says of which list.
pub(super) fn after(violations: &mut Violations, kind: &str, token: &str) -> String {
    if token.is_empty() {
        return String::new();
    }
    let text = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|raw| String::from_utf8(raw).ok());
    let last = text
        .as_deref()
        .and_then(|text| text.strip_prefix(kind)?.strip_prefix(':'));
    if last.is_none() {
        violations.add(
            "page_token",
            "is not one that this list gave: start without one",
        );
    }
    last.unwrap_or_default().to_owned()
}

/// The token for the page after this one; empty when it is the last.
pub(super) fn token<T>(page: &Page<T>, kind: &str, last: impl Fn(&T) -> String) -> String {
    match page.items.last() {
        Some(item) if page.more => URL_SAFE_NO_PAD.encode(format!("{kind}:{}", last(item))),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_for_its_own_list_only() {
        let page = Page::cut(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 2);
        let token = token(&page, "accounts", Clone::clone);
        let mut good = Violations::default();
        assert_eq!(after(&mut good, "accounts", &token), "b");
        assert!(good.check().is_ok());
        for (kind, token) in [
            ("agents", token.as_str()),
            ("accounts", "!"),
            ("accounts", "b"),
        ] {
            let mut bad = Violations::default();
            after(&mut bad, kind, token);
            assert!(bad.check().is_err());
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let mut violations = Violations::default();
        assert_eq!(size(&mut violations, 0), 50);
        assert_eq!(size(&mut violations, 7), 7);
        assert_eq!(size(&mut violations, 100_000), 1000);
        assert!(violations.check().is_ok());
        let mut violations = Violations::default();
        size(&mut violations, -1);
        assert!(violations.check().is_err());
    }
}
