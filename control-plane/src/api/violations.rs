//! What is wrong with a request: every bad field is found before anything is answered.

use std::{collections::HashMap, fmt::Display, str::FromStr};

use countersign_shared::{name::Id, random, time::Timestamp};
use prost_types::FieldMask;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Longest `request_id`.
const MAX_REQUEST_ID: usize = 100;
/// Longest name for people.
const MAX_DISPLAY_NAME: usize = 200;

/// How many bytes an answer has for bad fields and their problems, and how many characters for one field and its
/// problem. Errors travel in HTTP/2 headers, which clients refuse when they are large (many at 8 KiB), and then
/// nobody sees them; and each is told three times: as text, and twice as details in base64.
const SHOWN: usize = 1800;
/// What a field takes beside its name and its problem.
const EACH: usize = 12;
const FIELD: usize = 80;
const PROBLEM: usize = 200;

/// Collects bad fields.
#[derive(Debug, Default)]
pub(super) struct Violations(Vec<(String, String)>);

impl Violations {
    /// `field` is bad.
    pub(super) fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push((field.into(), problem.into()));
    }

    /// Parses a field; a failure is noted under its name.
    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(field, error.to_string());
                None
            }
        }
    }

    /// An id that the client chooses, or one that we make when it is empty.
    pub(super) fn id(&mut self, field: &str, text: &str, now: Timestamp) -> Option<Id> {
        if text.is_empty() {
            return Some(Id::from(random::uuid_v7(now)));
        }
        self.optional_id(field, text)
    }

    /// An id that the client chooses; empty: none.
    pub(super) fn optional_id(&mut self, field: &str, text: &str) -> Option<Id> {
        if text.is_empty() {
            return None;
        }
        match Id::chosen(text) {
            Ok(id) => Some(id),
            Err(error) => {
                self.add(field, error.to_string());
                None
            }
        }
    }

    /// A name for people.
    pub(super) fn display_name(&mut self, field: &str, text: &str) {
        if text.chars().count() > MAX_DISPLAY_NAME || text.chars().any(char::is_control) {
            let problem = format!(
                "must have at most {MAX_DISPLAY_NAME} characters, without control characters"
            );
            self.add(field, problem);
        }
    }

    /// A text of at most `most` visible ASCII characters and spaces.
    pub(super) fn visible_ascii(&mut self, field: &str, text: &str, most: usize) {
        let visible = |byte: u8| (b' '..=b'~').contains(&byte);
        if text.len() > most || !text.bytes().all(visible) {
            self.add(
                field,
                format!("must have at most {most} visible ASCII characters"),
            );
        }
    }

    /// A request id.
    pub(super) fn request_id(&mut self, text: &str) {
        self.visible_ascii("request_id", text, MAX_REQUEST_ID);
    }

    /// An etag that was given back; empty: any.
    pub(super) fn etag(text: &str) -> Option<u64> {
        if text.is_empty() {
            return None;
        }
        // One that we never made matches nothing, as one that is old.
        Some(text.parse().unwrap_or(u64::MAX))
    }

    /// Which fields to change: those of the mask, or every one that `is_set`. Unknown and immutable
    /// ones are bad.
    pub(super) fn mask<'a>(
        &mut self,
        mask: Option<&FieldMask>,
        known: &[&'a str],
        is_set: impl Fn(&str) -> bool,
    ) -> Vec<&'a str> {
        let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else {
            return known
                .iter()
                .copied()
                .filter(|field| is_set(field))
                .collect();
        };
        let mut wanted = Vec::new();
        for path in &mask.paths {
            match known.iter().find(|field| **field == path) {
                Some(field) => wanted.push(*field),
                None => {
                    let known = known.join(", ");
                    self.add(
                        "update_mask",
                        format!("'{path}' can't be changed; {known} can"),
                    );
                }
            }
        }
        wanted
    }

    /// Fails when anything was noted.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with every bad field.
    pub(super) fn check(self) -> Result<(), Status> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "INVALID_FIELDS",
            "countersign",
            HashMap::<String, String>::new(),
        );
        let (mut message, mut room, mut more) = (Vec::new(), SHOWN, 0);
        for (field, problem) in self.0 {
            let (field, problem) = (clipped(&field, FIELD), clipped(&problem, PROBLEM));
            let Some(left) = room.checked_sub(field.len() + problem.len() + EACH) else {
                more += 1;
                continue;
            };
            room = left;
            message.push(format!("{field}: {problem}"));
            details.add_bad_request_violation(field, problem);
        }
        if more > 0 {
            message.push(format!("and {more} more"));
        }
        let message = message.join("; ");
        Err(Status::with_error_details(
            Code::InvalidArgument,
            message,
            details,
        ))
    }

    /// The value of a field that was parsed, or the failure with everything that was noted.
    ///
    /// # Errors
    /// INVALID_ARGUMENT.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Status> {
        self.check()?;
        // Every parser that gives nothing has noted why, so this is not reached.
        value.ok_or_else(|| Status::invalid_argument("a required field is missing"))
    }
}

/// At most so many characters of a text.
pub(super) fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Parses the one name of a request.
pub(super) fn name<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, Status> {
    let mut violations = Violations::default();
    let name = violations.parse(field, text);
    violations.finish(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fits_into_headers_however_much_is_wrong() {
        for length in [1, 10, 100, 1000] {
            let mut violations = Violations::default();
            for number in 0..1000 {
                violations.add(format!("field_{number}"), "x".repeat(length));
            }
            let status = violations.check().unwrap_err();
            let headers = status.message().len() + status.details().len().div_ceil(3) * 4;
            assert!(headers < 8000, "{headers} bytes for problems of {length}");
            let details = status.get_error_details();
            let named = details.bad_request().unwrap().field_violations.len();
            let more = format!("and {} more", 1000 - named);
            assert!(named > 5 && status.message().ends_with(&more));
        }
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let mut violations = Violations::default();
        violations.id("account_id", "Not An Id", Timestamp::default());
        violations.display_name("account.display_name", "a\nb");
        violations.request_id(&"x".repeat(101));
        let mask = FieldMask {
            paths: vec!["name".into()],
        };
        violations.mask(Some(&mask), &["url"], |_| true);
        let status = violations.check().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let bad = details.bad_request().unwrap();
        let fields: Vec<_> = bad
            .field_violations
            .iter()
            .map(|bad| bad.field.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "account_id",
                "account.display_name",
                "request_id",
                "update_mask"
            ]
        );
    }
}
