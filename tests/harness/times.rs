//! Times as the API gives them in JSON (RFC 3339 in UTC), and the present, to be compared with what
//! servers log.

use countersign_shared::time::{Clock as _, SystemClock};

/// Seconds since the Unix epoch, now.
pub fn now() -> f64 {
    // A double is exact to a microsecond for a century.
    SystemClock.now().as_unix_micros() as f64 / 1e6
}

/// Seconds since the Unix epoch of a time such as `2026-02-01T03:04:05.678Z`.
///
/// # Panics
/// When it is not one.
pub fn seconds(text: &str) -> f64 {
    let whole = text.strip_suffix('Z').expect("a time in UTC");
    let (date, time) = whole.split_once('T').expect("a date and a time");
    let mut parts = date.split('-').map(|part| part.parse::<i64>());
    let mut next = || parts.next().expect("a part").expect("a number");
    let (year, month, day) = (next(), next(), next());
    let mut parts = time.split(':').map(|part| part.parse::<f64>());
    let mut next = || parts.next().expect("a part").expect("a number");
    let (hour, minute, second) = (next(), next(), next());
    // Days since 1970-01-01, counted in years that begin in March, so that a leap day ends one.
    let (years, months) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let leap_days = years / 4 - years / 100 + years / 400;
    let days = 365 * years + leap_days + (153 * months + 2) / 5 + day - 1 - 719_468;
    days as f64 * 86_400.0 + hour * 3600.0 + minute * 60.0 + second
}
