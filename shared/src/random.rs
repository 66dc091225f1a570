//! Randomness: the one place that makes it, always from the operating system. Keys are drawn one by
//! one; what is drawn several times for every delivery, and is no secret once it is used (ids, nonces,
//! jitter), comes from a block of each thread's.

use std::{cell::RefCell, time::Duration};

use uuid::Uuid;
use zeroize::Zeroize as _;

use crate::{secret::SecretBytes, time::Timestamp};

/// Bytes that a thread draws at once.
const BLOCK: usize = 512;

/// What is left of a thread's block: its end. What was given out is zero.
struct Block {
    bytes: [u8; BLOCK],
    used: usize,
}

thread_local! {
    static OF_THREAD: RefCell<Block> = const {
        RefCell::new(Block { bytes: [0; BLOCK], used: BLOCK })
    };
}

/// As [`bytes()`], at a small part of its cost: for what is no secret once it is used. At most 512.
///
/// # Panics
/// As [`bytes()`].
pub fn unique<const N: usize>() -> [u8; N] {
    const { assert!(N <= BLOCK) };
    OF_THREAD.with_borrow_mut(|block| {
        if block.used + N > BLOCK {
            *block = Block {
                bytes: bytes(),
                used: 0,
            };
        }
        let mut out = [0; N];
        let drawn = &mut block.bytes[block.used..block.used + N];
        out.copy_from_slice(drawn);
        drawn.zeroize();
        block.used += N;
        out
    })
}

/// Random bytes.
///
/// # Panics
/// When the operating system has no randomness to give. Linux's `getrandom(2)` fails only where the
/// kernel lacks it (before 3.17) or a sandbox forbids it; nothing safe can be done without keys.
#[allow(clippy::panic)] // see above: going on with predictable keys would be worse
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    #[allow(clippy::disallowed_methods)] // this is the place
    if let Err(error) = getrandom::fill(&mut out) {
        panic!("the operating system gives no randomness: {error}");
    }
    out
}

/// A random secret of `N` bytes, zeroized when dropped.
pub fn secret<const N: usize>() -> SecretBytes {
    let raw = zeroize::Zeroizing::new(bytes::<N>());
    SecretBytes::from(raw.to_vec())
}

/// A UUID of version 7 (RFC 9562 section 5.7): `now` in milliseconds, then 74 random bits.
pub fn uuid_v7(now: Timestamp) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(now.as_unix_millis(), &unique()).into_uuid()
}

/// A number in `0.0..1.0`, evenly spread.
pub fn fraction() -> f64 {
    // 53 bits: as many as a double holds exactly.
    let bits = u64::from_le_bytes(unique()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

/// A time in `0..window`: full jitter.
pub fn full_jitter(window: Duration) -> Duration {
    window.mul_f64(fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_stay_in_range_and_differ() {
        let draws: Vec<f64> = (0..1000).map(|_| fraction()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "mean {mean}");
    }

    #[test]
    fn what_is_drawn_from_a_block_is_drawn_once() {
        let drawn: std::collections::HashSet<[u8; 12]> = (0..10_000).map(|_| unique()).collect();
        assert_eq!(drawn.len(), 10_000);
        let whole: [u8; BLOCK] = unique();
        assert_ne!(whole, unique(), "a block as large as can be");
        OF_THREAD.with_borrow(|block| assert!(block.bytes[..block.used].iter().all(|it| *it == 0)));
    }

    #[test]
    fn uuids_sort_by_time() {
        let early = uuid_v7(Timestamp::from_unix_seconds(1_000));
        let late = uuid_v7(Timestamp::from_unix_seconds(1_001));
        assert!(early < late);
        assert_eq!(early.get_version_num(), 7);
    }
}
