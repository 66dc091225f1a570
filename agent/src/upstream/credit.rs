//! Credit: how many more jobs and bytes the control plane may send. What is in hand, what waits for
//! its acknowledgement and what was granted but not used never exceed the limits together.

use countersign_proto::v1;

/// What the agent takes at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Jobs, unacknowledged outcomes included.
    pub jobs: u32,
    /// Payload bytes; one job may exceed it.
    pub bytes: u64,
}

/// What was granted and not yet used. Negative: the last job was larger than what was left.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Granted {
    jobs: i64,
    bytes: i64,
}

impl Granted {
    /// A job came.
    pub(super) fn used(&mut self, bytes: usize) {
        self.jobs -= 1;
        self.bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// What to grant now, with `jobs` and `bytes` in hand: all that the limits leave, once it is
    /// worth a message or nothing is left to the control plane.
    pub(super) fn more(&mut self, limits: Limits, jobs: usize, bytes: u64) -> Option<v1::Credit> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (most_jobs, most_bytes) = (i64::from(limits.jobs), signed(limits.bytes));
        let more_jobs = (most_jobs - signed(jobs as u64) - self.jobs).max(0);
        let more_bytes = most_bytes
            .saturating_sub(signed(bytes))
            .saturating_sub(self.bytes)
            .max(0);
        let worth = |more: i64, most: i64, left: i64| more > 0 && (more >= most / 16 || left <= 0);
        if !worth(more_jobs, most_jobs, self.jobs) && !worth(more_bytes, most_bytes, self.bytes) {
            return None;
        }
        self.jobs += more_jobs;
        self.bytes = self.bytes.saturating_add(more_bytes);
        Some(v1::Credit {
            jobs: i32::try_from(more_jobs).unwrap_or(i32::MAX),
            bytes: more_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        jobs: 1024,
        bytes: 1 << 20,
    };

    #[test]
    fn all_is_granted_first_and_then_what_became_free() {
        let mut granted = Granted::default();
        let first = granted.more(LIMITS, 24, 0).unwrap();
        assert_eq!((first.jobs, first.bytes), (1000, 1 << 20));
        assert_eq!(granted.more(LIMITS, 24, 0), None);
        for _ in 0..100 {
            granted.used(10);
        }
        // In hand, so nothing is free; then half of them are done.
        assert_eq!(granted.more(LIMITS, 124, 1000), None);
        assert_eq!(granted.more(LIMITS, 100, 500), None);
        let next = granted.more(LIMITS, 50, 500).unwrap();
        assert_eq!((next.jobs, next.bytes), (74, 500));
    }

    #[test]
    fn a_job_larger_than_the_limit_is_paid_back() {
        let mut granted = Granted::default();
        granted.more(LIMITS, 0, 0);
        granted.used(3 << 20);
        assert_eq!(granted.more(LIMITS, 1, 3 << 20), None);
        let next = granted.more(LIMITS, 0, 0).unwrap();
        assert_eq!((next.jobs, next.bytes), (1, 3 << 20));
    }

    proptest! {
        #[test]
        fn the_job_limit_holds_and_work_never_stops(steps in prop::collection::vec(any::<bool>(), 0..2000)) {
            let limits = Limits { jobs: 40, bytes: 1 << 20 };
            let (mut granted, mut credit, mut in_hand) = (Granted::default(), 0_i64, 0_usize);
            for take in steps {
                if let Some(more) = granted.more(limits, in_hand, 0) {
                    credit += i64::from(more.jobs);
                }
                prop_assert!(credit + in_hand as i64 <= 40);
                prop_assert!(credit > 0 || in_hand > 0);
                if take && credit > 0 {
                    credit -= 1;
                    in_hand += 1;
                    granted.used(0);
                } else {
                    in_hand = in_hand.saturating_sub(1);
                }
            }
        }
    }
}
