//! The payload: JSON of exactly the size that was asked for.

use bytes::Bytes;

/// Media type of [`of_size`].
pub(crate) const CONTENT_TYPE: &str = "application/json";

/// A JSON text (RFC 8259) of `size` bytes, which are two at least.
pub(crate) fn of_size(size: usize) -> Bytes {
    let letters = (b'a'..=b'z').cycle().take(size.saturating_sub(2));
    let quoted = std::iter::once(b'"').chain(letters).chain([b'"']);
    quoted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_of_the_size() {
        for size in [2, 3, 1024] {
            let made = of_size(size);
            assert_eq!(made.len(), size);
            assert!(serde_json::from_slice::<String>(&made).is_ok());
        }
    }
}
