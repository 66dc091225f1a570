//! Rate limits: a token bucket without a clock of its own, in one number (the generic cell rate
//! algorithm, ITU-T I.371). It holds one second's worth.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use countersign_shared::time::Timestamp;

/// How much may come at once: what a second allows.
const BURST_NANOS: i64 = 1_000_000_000;

/// A bucket that refills at a steady rate.
#[derive(Debug)]
pub struct Bucket {
    /// Nanoseconds that one call costs.
    cost: i64,
    /// When the bucket will be full again, in nanoseconds since 1970.
    full_at: AtomicI64,
}

impl Bucket {
    /// A full one for so many calls a second; 0 counts as 1.
    pub fn per_second(calls: u32) -> Self {
        Self {
            cost: BURST_NANOS / i64::from(calls.max(1)),
            full_at: AtomicI64::new(0),
        }
    }

    /// Takes one call out of the bucket.
    ///
    /// # Errors
    /// When it is empty: how long until it no longer is. Nothing is taken then.
    pub fn take(&self, now: Timestamp) -> Result<(), Duration> {
        let now = now.as_unix_micros().saturating_mul(1000);
        let mut seen = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = after_one_more(seen, now, self.cost)?;
            let swapped = self.full_at.compare_exchange_weak(
                seen,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(()),
                Err(changed) => seen = changed,
            }
        }
    }
}

/// When a bucket that would be full at `full_at` is full again after one more call.
fn after_one_more(full_at: i64, now: i64, cost: i64) -> Result<i64, Duration> {
    // A clock that was set back empties the bucket, and does not close it for longer than that.
    let full_at = full_at.clamp(now, now.saturating_add(BURST_NANOS));
    let next = full_at.saturating_add(cost);
    let over = next.saturating_sub(now.saturating_add(BURST_NANOS));
    if over <= 0 {
        return Ok(next);
    }
    Err(Duration::from_nanos(over.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_micros(1_700_000_000_000_000 + millis * 1000)
    }

    fn taken(bucket: &Bucket, now: Timestamp) -> usize {
        (0..1000).take_while(|_| bucket.take(now).is_ok()).count()
    }

    #[test]
    fn it_gives_a_seconds_worth_at_once_and_then_the_rate() {
        let bucket = Bucket::per_second(10);
        assert_eq!(taken(&bucket, at(0)), 10);
        assert_eq!(bucket.take(at(0)), Err(Duration::from_millis(100)));
        assert_eq!(taken(&bucket, at(99)), 0);
        assert_eq!(taken(&bucket, at(100)), 1);
        assert_eq!(taken(&bucket, at(600)), 5);
        assert_eq!(taken(&bucket, at(60_000)), 10, "no more than a second's");
        assert_eq!(taken(&Bucket::per_second(1), at(0)), 1);
    }

    #[test]
    fn a_clock_set_back_closes_it_for_a_second_at_most() {
        let bucket = Bucket::per_second(10);
        assert_eq!(taken(&bucket, at(3_600_000)), 10);
        assert_eq!(taken(&bucket, at(0)), 0);
        assert!(bucket.take(at(0)).unwrap_err() <= Duration::from_secs(1));
        assert_eq!(taken(&Bucket::per_second(u32::MAX), at(0)), 1000);
    }
}
