//! What a run found: JSON lines for machines, a table for people, and what makes it invalid.
//!
//! In: tallies and usages at both ends of the window. Out: text. Latencies are milliseconds, sizes bytes;
//! megabytes are 10^6 bytes.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use crate::process::{OwnUsage, Usage};
use crate::publisher::Pushes;
use crate::scenario::Protocol;
use crate::stats::Tally;

mod room;

pub use room::RoomRow;

/// Share of the core above which the load generator measures itself.
pub const MAX_BUSY: f64 = 0.85;

/// Quantiles of a histogram in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// One in a hundred is above.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// How many there were.
    pub samples: u64,
}

impl Quantiles {
    /// None without samples.
    #[must_use]
    pub fn of(times: &Histogram<u64>) -> Option<Self> {
        let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        (!times.is_empty()).then(|| Self {
            p50: ms(0.5),
            p99: ms(0.99),
            max: times.max() as f64 / 1000.0,
            samples: times.len(),
        })
    }
}

/// What one protocol's viewers got.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which.
    pub protocol: Protocol,
    /// How many there were to be.
    pub viewers: u32,
    /// How many received anything.
    pub started: u64,
    /// Bytes of bodies within the window.
    pub bytes: u64,
    /// From frame sent to frame received.
    pub latency_ms: Option<Quantiles>,
    /// From arrival to the first byte of body.
    pub first_byte_ms: Option<Quantiles>,
    /// From part complete to the last byte of the playlist.
    pub reload_ms: Option<Quantiles>,
    /// From request to last byte of media that exists.
    pub fetch_ms: Option<Quantiles>,
    /// Requests answered in full.
    pub requests: u64,
    /// Freezes.
    pub stalls: u64,
    /// Frames or parts missed.
    pub skipped: u64,
    /// Frames or parts received twice.
    pub repeated: u64,
    /// Everything that went wrong.
    pub errors: u64,
    /// What went wrong how often.
    pub reasons: std::collections::BTreeMap<String, u64>,
    /// CPU-seconds of the server within the window: all of it, also where protocols are mixed.
    pub cpu_s: Option<f64>,
    /// What members of rooms found besides.
    #[serde(flatten)]
    pub room: Option<RoomRow>,
}

impl Row {
    /// From a tally whose viewers had `before` bytes when the window opened and `after` when it closed.
    #[must_use]
    pub fn new(tally: &Tally, before: u64, after: u64, cpu_s: Option<f64>) -> Self {
        Self {
            protocol: tally.protocol,
            viewers: tally.wanted,
            started: tally.started.load(Relaxed),
            bytes: after - before,
            latency_ms: Quantiles::of(&tally.latency.get()),
            first_byte_ms: Quantiles::of(&tally.first_byte.get()),
            reload_ms: Quantiles::of(&tally.reload.get()),
            fetch_ms: Quantiles::of(&tally.fetch.get()),
            requests: tally.requests.load(Relaxed),
            stalls: tally.stalls.load(Relaxed),
            skipped: tally.skipped.load(Relaxed),
            repeated: tally.repeated.load(Relaxed),
            errors: tally.errors(),
            reasons: tally.reasons(),
            cpu_s,
            room: tally.room.as_deref().map(|room| RoomRow::new(room, cpu_s)),
        }
    }
}

/// What one process of the server used.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// CPU-seconds within the window.
    pub cpu_s: f64,
    /// Resident bytes before the first viewer came.
    pub rss_before: u64,
    /// Resident bytes at the end.
    pub rss: u64,
}

/// Our own share in the run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Own {
    /// CPU-seconds of all threads.
    pub cpu_s: f64,
    /// Share of one core used, or wanted and not got.
    pub busy: f64,
    /// Of that, waiting for a core that something else had.
    pub waited: f64,
}

impl Own {
    /// Between two readings, `wall` apart.
    #[must_use]
    pub(crate) fn between(before: OwnUsage, after: OwnUsage, wall: Duration) -> Self {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let waited = after.waited.saturating_sub(before.waited).as_secs_f64();
        let wall = wall.as_secs_f64();
        Self { cpu_s: cpu, busy: (cpu + waited) / wall, waited: waited / wall }
    }
}

/// What was seen in one second of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the first viewer came.
    pub at_s: f64,
    /// Received by all viewers.
    pub mbit: f64,
    /// Viewers that have received media.
    pub viewers: u64,
    /// Publishers that are sending.
    pub publishers: u64,
    /// Freezes so far.
    pub stalls: u64,
    /// Errors so far.
    pub errors: u64,
    /// Cores the server's processes used.
    pub server_cores: f64,
    /// Their resident bytes.
    pub server_rss: u64,
}

/// What a run must have found to be whole.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Frames with stamps.
    pub stamps: bool,
    /// Pushes may be lost.
    pub lost_pushes: bool,
    /// Messages in rooms.
    pub chat: bool,
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct Report {
    /// One for each protocol.
    pub rows: Vec<Row>,
    /// How long the window was.
    pub window: Duration,
    /// The server's processes.
    pub servers: Vec<Server>,
    /// Our own share.
    pub own: Own,
    /// How many pushes there were to be, were live at the end, and were lost.
    pub publishers: (u32, u64, u64),
    /// How late frames were sent.
    pub late_ms: Option<Quantiles>,
    /// Each second from the first viewer on.
    pub samples: Vec<Sample>,
    /// From when to when was measured, in the samples' time.
    pub measured_s: (f64, f64),
    /// The load of the machine.
    pub load: Option<f64>,
    /// Why figures cannot be believed; empty if they can.
    pub problems: Vec<String>,
}

impl Report {
    /// Finds what makes the run partial or invalid.
    pub fn judge(&mut self, expected: Expected) {
        let mut problems = Vec::new();
        for row in &self.rows {
            let name = row.protocol.name();
            let is_room = row.room.is_some();
            let is_timed = if is_room { expected.chat } else { expected.stamps };
            if row.started < u64::from(row.viewers) {
                problems.push(format!(
                    "partial: {} of {} {name} viewers received anything",
                    row.started, row.viewers
                ));
            }
            if row.bytes == 0 && (expected.chat || !is_room) {
                problems.push(format!("partial: no byte of {name} while measuring"));
            }
            if is_timed && row.latency_ms.is_none() {
                problems.push(format!("partial: no {name} frame was timed"));
            }
        }
        let (wanted, live, lost) = self.publishers;
        if !expected.lost_pushes && (live < u64::from(wanted) || lost > 0) {
            problems
                .push(format!("partial: {live} of {wanted} publishers live, {lost} pushes lost"));
        }
        if self.own.busy > MAX_BUSY {
            problems.push(format!(
                "invalid: the load generator used or wanted {:.0} % of its core ({:.0} % waiting)",
                self.own.busy * 100.0,
                self.own.waited * 100.0
            ));
        }
        self.problems = problems;
    }

    /// CPU-seconds of the server's processes together.
    #[must_use]
    pub fn server_cpu_s(&self) -> Option<f64> {
        (!self.servers.is_empty()).then(|| self.servers.iter().map(|s| s.cpu_s).sum())
    }

    /// Bytes received by all viewers for each CPU-second of the server.
    #[must_use]
    pub fn bytes_per_cpu_s(&self) -> Option<f64> {
        let bytes: u64 = self.rows.iter().map(|r| r.bytes).sum();
        self.server_cpu_s().filter(|cpu| *cpu > 0.0).map(|cpu| bytes as f64 / cpu)
    }

    /// Growth of the server's resident memory for each viewer.
    #[must_use]
    pub fn rss_per_viewer(&self) -> Option<f64> {
        let viewers: u32 = self.rows.iter().map(|r| r.viewers).sum();
        let grown: f64 = self.servers.iter().map(|s| s.rss as f64 - s.rss_before as f64).sum();
        (viewers > 0 && !self.servers.is_empty()).then(|| grown / f64::from(viewers))
    }

    /// One object for each protocol and one for the whole.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        let mut lines: Vec<Value> = self.rows.iter().map(|row| json!(row)).collect();
        let (wanted, live, lost) = self.publishers;
        lines.push(json!({
            "summary": {
                "valid": self.problems.is_empty(),
                "problems": self.problems,
                "secs": self.window.as_secs_f64(),
                "publishers": { "wanted": wanted, "live": live, "lost": lost, "late_ms": self.late_ms },
                "servers": self.servers,
                "server_cpu_s": self.server_cpu_s(),
                "bytes_per_server_cpu_s": self.bytes_per_cpu_s(),
                "server_rss_bytes_per_viewer": self.rss_per_viewer(),
                "bench": self.own,
                "machine_load": self.load,
            }
        }));
        lines
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        self.write_rows(&mut out);
        self.write_costs(&mut out);
        for problem in &self.problems {
            let _ = writeln!(out, "{problem}");
        }
        out
    }

    fn write_rows(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "{:<9}{:>8}{:>12}{:>18}{:>18}{:>18}{:>8}{:>8}{:>8}",
            "protocol",
            "viewers",
            "Mbit/s",
            "latency p50/p99",
            "first byte",
            "playlist",
            "stalls",
            "skipped",
            "errors"
        );
        for row in &self.rows {
            let _ = writeln!(
                out,
                "{:<9}{:>8}{:>12.1}{:>18}{:>18}{:>18}{:>8}{:>8}{:>8}",
                row.protocol.name(),
                row.started,
                row.bytes as f64 * 8e-6 / self.window.as_secs_f64(),
                pair(row.latency_ms),
                pair(row.first_byte_ms),
                pair(row.reload_ms),
                row.stalls,
                row.skipped,
                row.errors
            );
            for (reason, count) in &row.reasons {
                let _ = writeln!(out, "         {count} × {reason}");
            }
            row.room.iter().for_each(|room| room.write(out, self.window));
        }
    }

    fn write_costs(&self, out: &mut String) {
        let secs = self.window.as_secs_f64();
        for server in &self.servers {
            let Server { pid, name, cpu_s, .. } = server;
            let rss = server.rss as f64 / 1e6;
            let grown = (server.rss as f64 - server.rss_before as f64) / 1e6;
            let _ = writeln!(
                out,
                "server {pid} ({name}): {cpu_s:.2} CPU-s in {secs:.1} s, {rss:.1} MB resident, \
                 {grown:+.1} MB since before the viewers"
            );
        }
        if let (Some(bytes), Some(rss)) = (self.bytes_per_cpu_s(), self.rss_per_viewer()) {
            let (mb, kb) = (bytes / 1e6, rss / 1e3);
            let _ =
                writeln!(out, "{mb:.0} MB per server-CPU-second, {kb:.1} KB resident per viewer");
        }
        let (wanted, live, lost) = self.publishers;
        if wanted > 0 {
            let late = pair(self.late_ms);
            let _ =
                writeln!(out, "publishers: {live} of {wanted} live, {lost} lost, {late} ms late");
        }
        let (busy, waited) = (self.own.busy * 100.0, self.own.waited * 100.0);
        let load = self.load.unwrap_or_default();
        let _ = writeln!(
            out,
            "load generator: {busy:.0} % of its core used or wanted, {waited:.0} % not had; machine \
             load {load:.1}"
        );
    }
}

/// Median and 99th percentile, in milliseconds.
pub(crate) fn pair(quantiles: Option<Quantiles>) -> String {
    quantiles.map_or("-".to_owned(), |q| format!("{:.1} / {:.1}", q.p50, q.p99))
}

/// The server's processes between two readings; `first` was taken before the viewers came.
#[must_use]
pub(crate) fn servers(
    pids: &[u32],
    (first, before, after): (&[Usage], &[Usage], &[Usage]),
) -> Vec<Server> {
    let usages = first.iter().zip(before).zip(after);
    pids.iter()
        .zip(usages)
        .map(|(pid, ((first, before), after))| Server {
            pid: *pid,
            name: crate::process::name(*pid),
            cpu_s: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
            rss_before: first.rss,
            rss: after.rss,
        })
        .collect()
}

/// How late publishers were.
#[must_use]
pub(crate) fn lateness(pushes: &Pushes) -> Option<Quantiles> {
    Quantiles::of(&pushes.late.get())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stats::Window;

    fn report(started: u64, latency: bool, busy: f64) -> Report {
        let window = Arc::new(Window::default());
        window.open();
        let tally = Tally::new(Protocol::Flv, 2, window);
        tally.started.store(started, Relaxed);
        if latency {
            tally.latency.record(12_000);
        }
        let mut report = Report {
            rows: vec![Row::new(&tally, 100, 1_000_100, Some(0.5))],
            window: Duration::from_secs(1),
            servers: servers(
                &[std::process::id()],
                (
                    &[Usage { rss: 1000, ..Usage::default() }],
                    &[Usage::default()],
                    &[Usage { cpu: Duration::from_millis(500), rss: 5000 }],
                ),
            ),
            own: Own { cpu_s: busy, busy, waited: 0.0 },
            publishers: (1, 1, 0),
            late_ms: None,
            samples: Vec::new(),
            measured_s: (0.0, 1.0),
            load: None,
            problems: Vec::new(),
        };
        report.judge(Expected { stamps: true, lost_pushes: false, chat: false });
        report
    }

    #[test]
    fn a_full_run_is_valid_and_says_what_it_found() {
        let report = report(2, true, 0.5);
        assert_eq!(report.problems, Vec::<String>::new());
        let lines = report.json();
        assert_eq!(lines[0]["protocol"], "flv");
        assert_eq!(lines[0]["bytes"], 1_000_000);
        assert_eq!(lines[0]["latency_ms"]["p50"].as_f64().unwrap().round(), 12.0);
        assert_eq!(lines[0]["cpu_s"], 0.5);
        let summary = &lines[1]["summary"];
        assert_eq!(summary["valid"], true);
        assert_eq!(summary["bytes_per_server_cpu_s"], 2_000_000.0);
        assert_eq!(summary["server_rss_bytes_per_viewer"], 2_000.0);
        assert!(report.table().contains("2 MB per server-CPU-second"));
    }

    #[test]
    fn partial_data_and_a_busy_core_are_problems() {
        assert!(report(1, true, 0.5).problems[0].contains("1 of 2 flv viewers"));
        assert!(report(2, false, 0.5).problems[0].contains("no flv frame was timed"));
        assert!(report(2, true, 0.9).problems[0].contains("90 %"));
    }
}
