//! `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.

use std::time::Duration;

use countersign_shared::time::Timestamp;
use time::{PrimitiveDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// The longest wait that is believed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// RFC 9110 section 5.6.7: the preferred form, and `asctime`'s. The obsolete form with a year of two
/// digits is not understood: nothing that answers webhooks today is old enough to send it.
const FORMS: [&[BorrowedFormatItem<'_>]; 2] = [
    format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    ),
    format_description!(
        "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
    ),
];

/// How long to wait from `now`, at most a day; `None` when the value says nothing.
pub fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too long for a number is longer than a day.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let date = FORMS
        .iter()
        .find_map(|form| PrimitiveDateTime::parse(value, form).ok())?;
    let wait = Timestamp::from(date.assume_utc()).since(now);
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const EXAMPLE: i64 = 784_111_777;

    #[test]
    fn seconds_and_dates() {
        let now = Timestamp::from_unix_seconds(EXAMPLE - 90);
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("86401", Some(86_400)),
            ("99999999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(90)),
            ("Sun Nov  6 08:49:37 1994", Some(90)),
            ("Sun, 06 Nov 1994 00:00:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(86_400)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(parse(value, now), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn it_never_panics_and_never_waits_for_more_than_a_day(value in ".{0,60}") {
            let now = Timestamp::from_unix_seconds(EXAMPLE);
            prop_assert!(parse(&value, now).is_none_or(|wait| wait <= LONGEST));
        }
    }
}
