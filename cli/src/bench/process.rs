//! What a process has cost so far, as Linux tells it in `/proc` (proc(5)). The parsing is pure.

use std::{fs, io, time::Duration};

/// Counters of a process since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// User and system time of all its threads, in steps of a clock tick (10 ms mostly).
    pub(crate) cpu: Duration,
    /// Bytes that it caused to be written to storage.
    pub(crate) bytes_written: u64,
    /// The most memory that it had resident, in bytes.
    pub(crate) peak_rss: u64,
}

impl Usage {
    /// Of the process with this id.
    ///
    /// # Errors
    /// When there is no such process or its files are not what they should be.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let ticks = rustix::param::clock_ticks_per_second();
        parse(&read("stat")?, &read("io")?, &read("status")?, ticks)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid} can't be understood")))
    }

    /// Of the process with this id, those that it started, and those that it has waited for.
    ///
    /// # Errors
    /// When there is no such process or its files are not what they should be.
    pub(crate) fn of_all(pid: u32) -> io::Result<Self> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let children = children.split_ascii_whitespace();
        let mut all = Self::of(pid)?;
        all.cpu += waited_for(pid)?;
        for child in children.filter_map(|child| child.parse().ok()) {
            // One that has just ended is waited for, and counted the next time.
            if let Ok(usage) = Self::of(child) {
                all = all.and(usage);
            }
        }
        Ok(all)
    }

    /// What came on top of `earlier`; the peak stays what it is.
    #[must_use]
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
            peak_rss: self.peak_rss,
        }
    }

    /// Both together; of the peaks, the sum.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            bytes_written: self.bytes_written + other.bytes_written,
            peak_rss: self.peak_rss + other.peak_rss,
        }
    }
}

/// User and system time of the processes that this one has waited for.
fn waited_for(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = rustix::param::clock_ticks_per_second();
    // cutime and cstime are fields 16 and 17.
    let time = || cpu(&stat, 13, ticks);
    time().ok_or_else(|| io::Error::other(format!("/proc/{pid} can't be understood")))
}

/// The sum of two neighbouring fields of `stat`, the first of them so many after the command's name.
fn cpu(stat: &str, first: usize, ticks_per_second: u64) -> Option<Duration> {
    // The second field is the command's name in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let user: u64 = fields.nth(first)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let micros = (user + system)
        .checked_mul(1_000_000)?
        .checked_div(ticks_per_second)?;
    Some(Duration::from_micros(micros))
}

fn parse(stat: &str, io: &str, status: &str, ticks_per_second: u64) -> Option<Usage> {
    Some(Usage {
        // utime and stime are fields 14 and 15, and the third is the first after the name.
        cpu: cpu(stat, 11, ticks_per_second)?,
        bytes_written: labelled(io, "write_bytes:")?,
        peak_rss: labelled(status, "VmHWM:")?.checked_mul(1024)?,
    })
}

/// The number after a label at the start of a line.
fn labelled(text: &str, label: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(label))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4217 (a b) c) S 1 4217 4217 0 -1 4194560 9 0 0 0 312 88 0 0 20 0 3 0 1 2 3";
    const IO: &str = "rchar: 1\nwchar: 2\nread_bytes: 0\nwrite_bytes: 40960\n\
        cancelled_write_bytes: 0\n";
    const STATUS: &str = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t   5120 kB\nVmRSS:\t 12 kB\n";

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let usage = parse(STAT, IO, STATUS, 100).unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(4));
        assert_eq!(usage.bytes_written, 40_960);
        assert_eq!(usage.peak_rss, 5120 * 1024);
    }

    #[test]
    fn what_is_cut_short_is_not_guessed() {
        assert_eq!(parse("4217 (a) S 1 2", IO, STATUS, 100), None);
        assert_eq!(parse(STAT, "rchar: 1\n", STATUS, 100), None);
        assert_eq!(parse(STAT, IO, "VmHWM:\n", 100), None);
        assert_eq!(parse(STAT, IO, STATUS, 0), None);
    }

    #[test]
    fn this_process_is_understood() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.peak_rss > 0);
        let more = usage.and(usage).since(usage);
        assert_eq!(more.cpu, usage.cpu);
        assert_eq!(more.peak_rss, 2 * usage.peak_rss);
    }
}
