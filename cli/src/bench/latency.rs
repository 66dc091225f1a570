//! Latencies in short: percentiles by nearest rank, so that each is a value that was measured.

use serde::Serialize;

/// Percentiles of a latency, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// Half of them took this at most.
    pub(crate) p50: f64,
    /// Nine of ten.
    pub(crate) p90: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
    /// 999 of 1000.
    pub(crate) p999: f64,
    /// All of them.
    pub(crate) max: f64,
}

impl Latency {
    /// Of latencies in microseconds, in any order; `None` when there are none.
    pub(crate) fn of(mut micros: Vec<u64>) -> Option<Self> {
        micros.sort_unstable();
        let max = *micros.last()?;
        let at = |per_mille| milliseconds(nearest_rank(&micros, per_mille).unwrap_or(max));
        Some(Self {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: milliseconds(max),
        })
    }
}

/// The smallest of `sorted` that at least `per_mille` thousandths of them do not exceed.
fn nearest_rank(sorted: &[u64], per_mille: usize) -> Option<u64> {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let shuffled: Vec<u64> = (1..=1000).map(|n| (n * 7919) % 1009).collect();
        let mut sorted = shuffled.clone();
        sorted.sort_unstable();
        let latency = Latency::of(shuffled).unwrap();
        assert_eq!(latency.p50, milliseconds(sorted[499]));
        assert_eq!(latency.p90, milliseconds(sorted[899]));
        assert_eq!(latency.p99, milliseconds(sorted[989]));
        assert_eq!(latency.p999, milliseconds(sorted[998]));
        assert_eq!(latency.max, milliseconds(sorted[999]));
    }

    #[test]
    fn few_and_none() {
        assert_eq!(Latency::of(Vec::new()), None);
        let one = Latency::of(vec![1500]).unwrap();
        assert_eq!((one.p50, one.p999, one.max), (1.5, 1.5, 1.5));
        let two = Latency::of(vec![2000, 1000]).unwrap();
        assert_eq!((two.p50, two.p90), (1.0, 2.0));
    }
}
