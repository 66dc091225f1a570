//! Ids and resource names: what a person types into grpcurl, parsed once into types.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;
use uuid::Uuid;

use crate::time::Timestamp;

/// Longest id, in characters.
pub const MAX_ID_LENGTH: usize = 63;

/// Why a text is no id or no resource name.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum NameError {
    /// An id with the wrong length or characters.
    #[error(
        "'{0}' is not an id: use 1 to 63 of a-z, 0-9 and '-', starting with a letter and not \
         ending with '-'"
    )]
    Id(String),
    /// A resource name with another shape.
    #[error("'{got}' is not a resource name of the form {expected}")]
    Shape {
        /// What was given, cut to 200 characters.
        got: String,
        /// The form that is needed.
        expected: &'static str,
    },
}

/// What is shown of a bad name: enough to recognise it, not enough to flood a log.
fn excerpt(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The last part of a resource name: 1 to 63 of `a-z 0-9 -`. Ids that clients choose start with a
/// letter; ids that the server makes are UUIDs and may start with a digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Arc<str>);

impl Id {
    /// Parses an id that a client chooses.
    ///
    /// # Errors
    /// [`NameError::Id`] when it is not 1 to 63 of `a-z 0-9 -`, starts with anything but a letter,
    /// or ends with `-`.
    pub fn chosen(text: &str) -> Result<Self, NameError> {
        let starts_with_letter = text.starts_with(|first: char| first.is_ascii_lowercase());
        if !starts_with_letter {
            return Err(NameError::Id(excerpt(text)));
        }
        Self::existing(text)
    }

    /// Parses an id in the name of something that may exist: as [`Id::chosen`], but it may start
    /// with a digit, as those that the server makes do.
    ///
    /// # Errors
    /// [`NameError::Id`].
    pub fn existing(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    /// Whether [`Id::existing`] would take it.
    fn check(text: &str) -> Result<(), NameError> {
        let alphabet =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=MAX_ID_LENGTH).contains(&text.len())
            && text.bytes().all(alphabet)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits {
            Ok(())
        } else {
            Err(NameError::Id(excerpt(text)))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// UUIDs in their usual text form fit the alphabet.
impl From<Uuid> for Id {
    fn from(value: Uuid) -> Self {
        Self(value.hyphenated().to_string().into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Splits `text` along `pattern`, a resource name with `{}` for each id.
///
/// # Errors
/// [`NameError::Shape`] when a fixed part differs, with `pattern` as the expected form.
pub fn split<'a, const N: usize>(
    text: &'a str,
    pattern: &'static str,
) -> Result<[&'a str; N], NameError> {
    let wrong = || NameError::Shape {
        got: excerpt(text),
        expected: pattern,
    };
    let mut ids = [""; N];
    let mut found = 0;
    let mut parts = text.split('/');
    for expected in pattern.split('/') {
        let part = parts.next().ok_or_else(wrong)?;
        if expected.starts_with('{') {
            *ids.get_mut(found).ok_or_else(wrong)? = part;
            found += 1;
        } else if part != expected {
            return Err(wrong());
        }
    }
    if parts.next().is_some() || found != N || ids.iter().any(|id| id.is_empty()) {
        return Err(wrong());
    }
    Ok(ids)
}

/// Defines a resource name of one id.
macro_rules! one_id_name {
    ($type:ident, $pattern:literal, $prefix:literal, $what:literal) => {
        #[doc = concat!("Resource name of ", $what, ": `", $pattern, "`.")]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Id);

        impl $type {
            /// The id in it.
            pub fn id(&self) -> &Id {
                &self.0
            }
        }

        impl From<Id> for $type {
            fn from(id: Id) -> Self {
                Self(id)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let [id] = split(text, $pattern)?;
                Ok(Self(Id::existing(id)?))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "/{}"), self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

one_id_name!(AccountName, "accounts/{account}", "accounts", "an account");
one_id_name!(ApiKeyName, "apiKeys/{key}", "apiKeys", "an API key");
one_id_name!(AlertName, "alerts/{alert}", "alerts", "an alert");
one_id_name!(AgentName, "agents/{agent}", "agents", "an agent");
one_id_name!(
    JoinTokenName,
    "joinTokens/{token}",
    "joinTokens",
    "a join token"
);

/// Resource name of a destination: `accounts/{account}/destinations/{destination}`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationName(Arc<str>);

impl DestinationName {
    const PATTERN: &'static str = "accounts/{account}/destinations/{destination}";
    const ACCOUNTS: &'static str = "accounts/";
    const DESTINATIONS: &'static str = "/destinations/";

    /// Of its two ids.
    pub fn new(account: &Id, destination: &Id) -> Self {
        Self(format!("accounts/{account}/destinations/{destination}").into())
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The account's id.
    pub fn account(&self) -> &str {
        let account = self.account_text().get(Self::ACCOUNTS.len()..);
        account.unwrap_or_default()
    }

    /// The account's resource name, as text: what this one begins with.
    pub fn account_text(&self) -> &str {
        self.0.get(..self.account_end()).unwrap_or_default()
    }

    /// The account's resource name.
    pub fn account_name(&self) -> AccountName {
        // An id already: every constructor has checked it.
        AccountName(Id(self.account().into()))
    }

    /// The destination's id.
    pub fn destination(&self) -> &str {
        let from = self.account_end() + Self::DESTINATIONS.len();
        self.0.get(from..).unwrap_or_default()
    }

    /// Every constructor makes four parts, and no id has a '/' in it.
    fn account_end(&self) -> usize {
        let ids = self.0.bytes().skip(Self::ACCOUNTS.len());
        Self::ACCOUNTS.len() + ids.take_while(|byte| *byte != b'/').count()
    }
}

impl FromStr for DestinationName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let ids: [&str; 2] = split(text, Self::PATTERN)?;
        for id in ids {
            Id::check(id)?;
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A delivery's id, a UUID of version 7. Its text is also the `webhook-id` header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// When the delivery was accepted, to the millisecond (RFC 9562 section 5.7).
    pub fn accepted_at(&self) -> Timestamp {
        let [a, b, c, d, e, f, ..] = *self.as_bytes();
        let millis = i64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Timestamp::from_unix_micros(millis * 1000)
    }

    /// From 16 bytes; `None` for another length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl From<Uuid> for DeliveryId {
    fn from(value: Uuid) -> Self {
        Self(value)
    }
}

impl FromStr for DeliveryId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        // Only the usual form: one delivery has one name.
        match Uuid::try_parse(text) {
            Ok(id) if id.hyphenated().to_string() == text => Ok(Self(id)),
            _ => Err(NameError::Shape {
                got: excerpt(text),
                expected: "a delivery id (a lower-case UUID)",
            }),
        }
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_keep_to_their_alphabet_and_length() {
        for good in ["a", "acme", "a-1", &"a".repeat(63)] {
            assert!(Id::chosen(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "A",
            "1a",
            "-a",
            "a-",
            "a_b",
            "a/b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(Id::chosen(bad).is_err(), "{bad}");
        }
        assert!(Id::existing("0192f0c1-7e63-7000-8000-000000000000").is_ok());
    }

    #[test]
    fn names_say_which_form_is_needed() {
        let name: DestinationName = "accounts/acme/destinations/orders".parse().unwrap();
        assert_eq!((name.account(), name.destination()), ("acme", "orders"));
        assert_eq!(name.account_text(), name.account_name().to_string());
        let error = "accounts/acme/destination/orders"
            .parse::<DestinationName>()
            .unwrap_err();
        assert!(
            error.to_string().ends_with(DestinationName::PATTERN),
            "{error}"
        );
        assert!(
            "accounts/acme/destinations/"
                .parse::<DestinationName>()
                .is_err()
        );
        assert!(
            "accounts/acme/destinations/o/x"
                .parse::<DestinationName>()
                .is_err()
        );
        assert!(
            "accounts/Acme/destinations/o"
                .parse::<DestinationName>()
                .is_err()
        );
    }

    #[test]
    fn a_delivery_id_has_one_spelling() {
        let text = "0192f0c1-7e63-7000-8000-0000000000ab";
        let id: DeliveryId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert!(text.to_uppercase().parse::<DeliveryId>().is_err());
        assert!(text.replace('-', "").parse::<DeliveryId>().is_err());
    }

    proptest! {
        #[test]
        fn a_destination_s_name_gives_its_ids_back(
            account in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", destination in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        ) {
            let text = format!("accounts/{account}/destinations/{destination}");
            let name: DestinationName = text.parse().unwrap();
            prop_assert_eq!(name.account(), &account);
            prop_assert_eq!(name.destination(), &destination);
            let ids = [&account, &destination].map(|id| Id::existing(id).unwrap());
            prop_assert_eq!(DestinationName::new(&ids[0], &ids[1]), name);
        }

        #[test]
        fn parsing_never_panics_and_round_trips(text in ".{0,80}") {
            if let Ok(name) = text.parse::<DestinationName>() {
                prop_assert_eq!(name.to_string(), text.clone());
            }
            if let Ok(name) = text.parse::<AccountName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
