//! How busy this node is, told to the control plane.
//!
//! In: the counters of the roles, the process's CPU time. Out: the [`LoadCell`] that every heartbeat
//! carries; placement and `cluster status` read it there. One task per node, ended with its handle.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cluster::LoadCell;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

/// How often the figures are taken; heartbeats go more often and repeat them.
const EVERY: Duration = Duration::from_secs(1);
/// Clock ticks per second in /proc: USER_HZ, 100 on every Linux architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is counted.
pub(crate) struct Sources {
    /// The origin's rooms, if the node is one.
    pub(crate) rooms: Option<origin::Rooms>,
    /// The edge's viewers, if the node is one.
    pub(crate) edge: Option<edge::Usage>,
    /// The rooms the edge receives.
    pub(crate) upstreams: Option<Arc<edge::upstream::Upstreams>>,
}

/// Figures that only differences say something about.
struct Totals {
    at: Instant,
    sent_bytes: u64,
    cpu_s: f64,
}

/// Keeps `cell` up to date until the handle is dropped.
pub(crate) fn keep(cell: Arc<LoadCell>, sources: Sources) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut last = sources.totals();
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            last = sources.write(&cell, &last);
        }
    }))
}

impl Sources {
    fn totals(&self) -> Totals {
        Totals {
            at: Instant::now(),
            sent_bytes: self.edge.as_ref().map_or(0, edge::Usage::sent_bytes),
            cpu_s: cpu_seconds().unwrap_or_default(),
        }
    }

    fn write(&self, cell: &LoadCell, last: &Totals) -> Totals {
        let now = self.totals();
        let rooms = self.rooms.as_ref().map_or(0, |rooms| rooms.all().len());
        let viewers = self.edge.as_ref().map_or(0, edge::Usage::viewers);
        cell.rooms.store(u32::try_from(rooms).unwrap_or(u32::MAX), Ordering::Relaxed);
        cell.viewers.store(u32::try_from(viewers).unwrap_or(u32::MAX), Ordering::Relaxed);
        let made = self.rooms.as_ref().map_or(0, origin::Rooms::next_msn);
        let shown = self.upstreams.as_ref().map_or(0, |upstreams| upstreams.next_msn());
        cell.raise_head(made.max(shown));
        let passed_s = now.at.duration_since(last.at).as_secs_f64();
        if passed_s > 0.0 {
            let bits = now.sent_bytes.saturating_sub(last.sent_bytes) * 8;
            cell.egress_bps.store((bits as f64 / passed_s) as u64, Ordering::Relaxed);
            let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
            let share = (now.cpu_s - last.cpu_s) / passed_s / cores;
            cell.cpu_permille.store((share * 1000.0).clamp(0.0, 1000.0) as u16, Ordering::Relaxed);
        }
        now
    }
}

/// CPU time of this process so far; of all its nodes, where it runs several.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in parentheses and may hold spaces (proc(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some((user.parse::<f64>().ok()? + system.parse::<f64>().ok()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_used_its_cpu() {
        let before = cpu_seconds().expect("Linux says so");
        let mut sum = 0_u64;
        while cpu_seconds().unwrap() <= before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
