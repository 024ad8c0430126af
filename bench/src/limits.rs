//! What this process may use: open files and cores.
//!
//! In: how much a run needs. Out: limits raised, or an error that says what to do.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Open files besides the viewers' sockets.
const SPARE_FILES: u64 = 64;

/// Makes room for `sockets` open sockets.
///
/// # Errors
/// When the limit is too low and cannot be raised.
pub(crate) fn allow_sockets(sockets: u64) -> Result<()> {
    let needed = sockets + SPARE_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum });
    raised.with_context(|| {
        let allowed = limit.maximum.map_or(String::new(), |m| format!(", {m} at most"));
        format!("this run needs {needed} open files{allowed}: raise it with ulimit -n")
    })
}

/// Keeps this process, threads started later included, on one core.
///
/// # Errors
/// When there is no such core.
pub(crate) fn pin(core: usize) -> Result<()> {
    ensure!(core < CpuSet::MAX_CPU, "there is no core {core}");
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot run on core {core}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_enough_for_little() {
        assert!(allow_sockets(1).is_ok());
    }

    #[test]
    fn cores_that_do_not_exist_are_refused() {
        assert!(pin(100_000).unwrap_err().to_string().contains("100000"));
    }
}
