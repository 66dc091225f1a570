//! What of a delivery is sealed: the sender's headers and the payload, in one piece, because both may be
//! personal.
//!
//! Two bytes say how long the headers are (big endian); each is `name:value` and a line feed, which
//! neither can contain; the payload follows.

use std::borrow::Cow;

use bytes::{Buf as _, Bytes};
use countersign_shared::headers::{Headers, MAX_HEADER_BYTES, MAX_HEADERS};

const LENGTH: usize = 2;
// A colon and a line feed for each.
const _: () = assert!(MAX_HEADER_BYTES + 2 * MAX_HEADERS <= u16::MAX as usize);

/// What goes in front of the payload.
pub fn head(headers: &Headers) -> Cow<'static, [u8]> {
    if headers.is_empty() {
        return Cow::Borrowed(&[0; LENGTH]);
    }
    let mut head = vec![0; LENGTH];
    for (name, value) in headers.iter() {
        for part in [name, ":", value, "\n"] {
            head.extend_from_slice(part.as_bytes());
        }
    }
    // See the assertion above: it always fits.
    let length = u16::try_from(head.len() - LENGTH).unwrap_or(u16::MAX);
    head[..LENGTH].copy_from_slice(&length.to_be_bytes());
    Cow::Owned(head)
}

/// Takes headers and payload apart; `None` when they were not put together here.
pub fn split(mut content: Bytes) -> Option<(Headers, Bytes)> {
    let length = content.first_chunk::<LENGTH>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    content.advance(LENGTH);
    if length > content.len() {
        return None;
    }
    let lines = content.split_to(length);
    if lines.is_empty() {
        return Some((Headers::default(), content));
    }
    let lines = std::str::from_utf8(&lines).ok()?.lines();
    let pairs = lines.map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let headers = Headers::new(pairs.collect::<Option<Vec<_>>>()?).ok()?;
    Some((headers, content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(headers: &Headers, payload: &[u8]) -> Bytes {
        [&head(headers), payload].concat().into()
    }

    #[test]
    fn what_is_cut_short_is_noticed() {
        let headers = Headers::new([("x-a".to_owned(), "1: 2".to_owned())]).unwrap();
        let packed = pack(&headers, b"");
        assert_eq!(split(packed.clone()), Some((headers, Bytes::new())));
        for length in 0..packed.len() {
            assert_eq!(split(packed.slice(..length)), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn headers_and_payload_come_back_as_they_were(
            given in proptest::collection::hash_map("x-[a-z]{1,8}", "[!-~]([ -~]{0,20}[!-~])?", 0..8),
            payload: Vec<u8>,
        ) {
            let headers = Headers::new(given).unwrap();
            let packed = pack(&headers, &payload);
            prop_assert_eq!(split(packed), Some((headers, Bytes::from(payload))));
        }
    }
}
