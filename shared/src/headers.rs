//! Headers of a sender's own that go along with a delivery: few, small, and none that the product or
//! HTTP itself has a say in.

use std::fmt;

use thiserror::Error;

/// Most headers of a delivery.
pub const MAX_HEADERS: usize = 32;
/// Most bytes of all names and values of a delivery.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;

/// What the agent sets itself, what belongs to one connection alone (RFC 9110 section 7.6.1), and what
/// tells where a message ends or goes to.
const RESERVED: [&str; 17] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
/// The names of Standard Webhooks begin so.
const RESERVED_PREFIX: &str = "webhook-";

/// Why headers are refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// Too many.
    #[error("there are {0}; at most {MAX_HEADERS} are allowed")]
    TooMany(usize),
    /// Too large.
    #[error("names and values have {0} bytes in all; at most {MAX_HEADER_BYTES} are allowed")]
    TooLarge(usize),
    /// Not a token.
    #[error("'{0}' is not the name of a header: use letters, digits and -")]
    Name(String),
    /// Ours to set, or HTTP's.
    #[error("'{0}' is set by the agent or belongs to HTTP: choose another name")]
    Reserved(String),
    /// The same name in upper and in lower case.
    #[error("'{0}' is given twice")]
    Twice(String),
    /// Not a value.
    #[error(
        "the value of '{0}' must have visible ASCII characters, and spaces or tabs only between them"
    )]
    Value(String),
}

/// Headers within their limits, names in lower case and in order.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Checks names and values: tokens and field values of RFC 9110 (sections 5.1 and 5.5), without
    /// octets above ASCII.
    ///
    /// # Errors
    /// [`HeaderError`]: the first that is found.
    pub fn new(given: impl IntoIterator<Item = (String, String)>) -> Result<Self, HeaderError> {
        let mut headers: Vec<(String, String)> = given.into_iter().collect();
        if headers.len() > MAX_HEADERS {
            return Err(HeaderError::TooMany(headers.len()));
        }
        let sizes = headers.iter().map(|(name, value)| name.len() + value.len());
        let bytes = sizes.sum();
        if bytes > MAX_HEADER_BYTES {
            return Err(HeaderError::TooLarge(bytes));
        }
        for (name, value) in &mut headers {
            if !is_token(name) {
                return Err(HeaderError::Name(name.escape_debug().to_string()));
            }
            name.make_ascii_lowercase();
            if RESERVED.contains(&name.as_str()) || name.starts_with(RESERVED_PREFIX) {
                return Err(HeaderError::Reserved(name.clone()));
            }
            if !is_value(value) {
                return Err(HeaderError::Value(name.clone()));
            }
        }
        headers.sort();
        let twice = headers.windows(2).find(|pair| pair[0].0 == pair[1].0);
        match twice {
            Some(pair) => Err(HeaderError::Twice(pair[0].0.clone())),
            None => Ok(Self(headers)),
        }
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names, in lower case and in order, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.0.iter();
        headers.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Names only: values may be personal, or secret.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(of_token)
}

fn is_value(value: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
    let trimmed = value.trim_matches([' ', '\t']);
    trimmed.len() == value.len() && value.bytes().all(inside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(headers: &[(&str, &str)]) -> Result<Headers, HeaderError> {
        let owned = headers.iter();
        Headers::new(owned.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn order_and_case_make_no_difference() {
        let one = of(&[("X-Tenant", "a b"), ("authorization", "Basic eA==")]).unwrap();
        let other = of(&[("Authorization", "Basic eA=="), ("x-tenant", "a b")]).unwrap();
        assert_eq!(one, other);
        let listed: Vec<_> = one.iter().collect();
        assert_eq!(
            listed,
            [("authorization", "Basic eA=="), ("x-tenant", "a b")]
        );
        assert_eq!(format!("{one:?}"), r#"["authorization", "x-tenant"]"#);
    }

    #[test]
    fn what_is_ours_or_http_s_is_refused_in_any_case() {
        for name in RESERVED.into_iter().chain(["webhook-id", "Webhook-Other"]) {
            let upper = name.to_ascii_uppercase();
            let lower = name.to_ascii_lowercase();
            assert_eq!(of(&[(&upper, "x")]), Err(HeaderError::Reserved(lower)));
        }
        assert!(of(&[("webhooks", "x"), ("x-host", "x")]).is_ok());
    }

    #[test]
    fn what_could_smuggle_is_refused() {
        for name in ["", "a b", "a:b", "a\r\nb", "ä", ":path", "a\0"] {
            assert!(
                matches!(of(&[(name, "x")]), Err(HeaderError::Name(_))),
                "{name:?}"
            );
        }
        for value in ["a\r\nb: c", "a\n", "\0", " a", "a\t", "ü", "\u{7f}"] {
            let refused = of(&[("x", value)]);
            assert_eq!(
                refused,
                Err(HeaderError::Value("x".to_owned())),
                "{value:?}"
            );
        }
        assert!(of(&[("x", "")]).is_ok(), "an empty value is one");
        let twice = of(&[("X-A", "1"), ("x-a", "2")]);
        assert_eq!(twice, Err(HeaderError::Twice("x-a".to_owned())));
    }

    #[test]
    fn limits_are_the_last_that_is_taken() {
        let many = |count: usize| {
            Headers::new((0..count).map(|number| (format!("x-{number}"), String::new())))
        };
        assert!(many(MAX_HEADERS).is_ok());
        assert_eq!(many(MAX_HEADERS + 1), Err(HeaderError::TooMany(33)));
        let large = |size: usize| Headers::new([("x".to_owned(), "v".repeat(size - 1))]);
        assert!(large(MAX_HEADER_BYTES).is_ok());
        let refused = large(MAX_HEADER_BYTES + 1);
        assert_eq!(refused, Err(HeaderError::TooLarge(MAX_HEADER_BYTES + 1)));
    }

    proptest! {
        #[test]
        fn nothing_that_is_taken_has_a_line_break(name: String, value: String) {
            if let Ok(headers) = Headers::new([(name, value)]) {
                for (name, value) in headers.iter() {
                    prop_assert!(!name.contains(['\r', '\n', ':', ' ']));
                    prop_assert!(!value.contains(['\r', '\n', '\0']));
                }
            }
        }
    }
}
