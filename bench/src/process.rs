//! What processes cost, read from /proc: the server's CPU and memory, and our own.
//!
//! In: process ids. Out: CPU-seconds, resident bytes, and how long our own threads waited for a core.
//! Linux only, as is the server's own accounting.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time, to the hundredth of a second.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes.
    pub(crate) rss: u64,
}

/// What our own threads have used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OwnUsage {
    /// Time on a core, of the thread that used most.
    pub(crate) busiest: Duration,
    /// Time on a core, of all threads.
    pub(crate) cpu: Duration,
    /// Time ready to run while something else had the core, of all threads.
    pub(crate) waited: Duration,
}

/// The usage of `pid`.
///
/// # Errors
/// When there is no such process.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let gone = || format!("process {pid} is not there");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(gone)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(gone)?;
    parse(&stat, &status, rustix::param::clock_ticks_per_second()).with_context(gone)
}

/// The name of `pid` as the kernel keeps it.
#[must_use]
pub(crate) fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

/// A process whose parent is `pid`.
#[must_use]
pub(crate) fn child_of(pid: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find(|child| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // proc(5): the parent is the second field behind the name.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent.is_some_and(|parent| parent.parse() == Ok(pid))
    })
}

/// Our own usage; nothing where the kernel keeps no scheduler statistics.
#[must_use]
pub(crate) fn own_usage() -> OwnUsage {
    let mut own = OwnUsage::default();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return own };
    for task in tasks.flatten() {
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        // proc(5): time on the CPU and time waiting on a runqueue, in nanoseconds.
        let mut numbers = text.split_whitespace().map_while(|n| n.parse().ok());
        let ran = Duration::from_nanos(numbers.next().unwrap_or_default());
        own.cpu += ran;
        own.busiest = own.busiest.max(ran);
        own.waited += Duration::from_nanos(numbers.next().unwrap_or_default());
    }
    own
}

/// The one-minute load of the machine.
#[must_use]
pub(crate) fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<Usage> {
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // proc(5): utime and stime are fields 14 and 15, the first one here is field 3.
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = rss.map_or(Some(0), |r| r.trim().strip_suffix("kB")?.trim().parse().ok())?;
    let cpu = Duration::from_secs_f64(ticks as f64 / ticks_per_second.max(1) as f64);
    Some(Usage { cpu, rss: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a) b) R 1 1 1 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 3 0 100 1 2";
        let usage = parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\n", 100).unwrap();
        assert_eq!(usage, Usage { cpu: Duration::from_secs(2), rss: 2 * 1024 * 1024 });
        assert_eq!(parse("7 (a) R", "", 100), None);
    }

    #[test]
    fn this_process_is_there() {
        let own = usage(std::process::id()).unwrap();
        assert!(own.rss > 0);
        assert!(!name(std::process::id()).is_empty());
        assert!(usage(u32::MAX).is_err());
    }
}
