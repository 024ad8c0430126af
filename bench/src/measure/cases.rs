//! Which measurements there are, what each means, and what was promised.
//!
//! In: what a run found. Out: figures with names and units. The scenarios are the files in `presets/`.

mod room;

use super::Outcome;
use crate::report::{Quantiles, Report, Row};
use crate::requests::Answered;

/// The edge's and the home's place among the server's processes.
const EDGE: usize = 0;
const HOME: usize = 1;

/// One measurement.
pub(crate) struct Case {
    /// What it is called on the command line and in `RESULTS.md`.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) about: &'static str,
    /// Its scenario.
    pub(crate) preset: &'static str,
    /// What our servers are told besides, as `--set` takes it.
    pub(crate) settings: &'static [&'static str],
    /// What runs.
    pub(crate) setting: Setting,
    /// How often at most: what hardly varies need not be repeated.
    pub(crate) max_runs: u32,
    /// The figures of a run; none when it gave too little data.
    pub(crate) figures: fn(&Outcome) -> Option<Vec<Figure>>,
}

/// What runs under a measurement.
pub(crate) enum Setting {
    /// One home, one edge.
    Cluster,
    /// The same, and after it each of these under the same load.
    Beside(&'static [Peer]),
    /// Requests for a document of the cluster, and for the same bytes at nginx.
    Requests(Document),
}

/// What our servers are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A bare send loop.
    SendLoop {
        /// Milliseconds between two sends to a viewer.
        interval_ms: u64,
    },
    /// nginx with its RTMP module: a push, played by RTMP.
    NginxRtmp {
        /// Whether it writes HLS of what is pushed.
        hls: bool,
    },
    /// node-media-server: a push, watched by HTTP-FLV.
    NodeMediaServer,
    /// A bare repeater of messages.
    Repeater {
        /// How it repeats, as `bench repeater --by` takes it.
        by: &'static str,
    },
    /// A room on npm ws.
    Ws,
    /// A room on picows and uvloop.
    Picows,
    /// nginx with nchan.
    Nchan,
}

impl Peer {
    /// Its name in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SendLoop { .. } => "send loop",
            Self::NginxRtmp { .. } => "nginx-rtmp",
            Self::NodeMediaServer => "node-media-server",
            Self::Repeater { by: "tokio" } => "tokio broadcast",
            Self::Repeater { .. } => "send loop",
            Self::Ws => "npm ws",
            Self::Picows => "picows",
            Self::Nchan => "nchan",
        }
    }
}

/// What is asked for over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// The media playlist.
    Playlist,
    /// A part.
    Part,
    /// A segment.
    Segment,
}

impl Case {
    /// Whether servers of other makes run in it.
    pub(crate) fn compares(&self) -> bool {
        match self.setting {
            Setting::Cluster => false,
            Setting::Beside(peers) => peers
                .iter()
                .any(|peer| !matches!(peer, Peer::SendLoop { .. } | Peer::Repeater { .. })),
            Setting::Requests(_) => true,
        }
    }
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
    /// What it is to be.
    pub(crate) promise: Option<Promise>,
}

/// A bound on a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Promise {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Promise {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

use Promise::{AtLeast, AtMost};

/// As many runs as the command line says.
const ALL: u32 = u32::MAX;

const PLAIN: Case = Case {
    name: "",
    about: "",
    preset: "",
    settings: &[],
    setting: Setting::Cluster,
    max_runs: ALL,
    figures: |_| None,
};

/// All measurements, in the order of `RESULTS.md`.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "fanout-33",
        about: "HTTP-FLV to 1,000 viewers of 2 Mbit/s, chunks of 33 ms, against a bare send loop",
        preset: include_str!("../../presets/flv-1000.toml"),
        settings: &["http.flv_max_flush=33ms"],
        setting: Setting::Beside(&[Peer::SendLoop { interval_ms: 33 }]),
        figures: |o| fanout(o, &[AtLeast(0.85)]),
        ..PLAIN
    },
    Case {
        name: "fanout-350",
        about: "the same with chunks of up to 350 ms, as an edge makes them for that many; against a send loop and others",
        preset: include_str!("../../presets/flv-1000.toml"),
        setting: Setting::Beside(&[
            Peer::SendLoop { interval_ms: 350 },
            Peer::NginxRtmp { hls: false },
            Peer::NodeMediaServer,
        ]),
        figures: |o| fanout(o, &[AtLeast(0.7), AtLeast(3.0), AtLeast(3.0)]),
        ..PLAIN
    },
    Case {
        name: "carry-3000",
        about: "HTTP-FLV to 3,000 viewers of 2 Mbit/s, and how many one core would carry by that",
        preset: include_str!("../../presets/flv-3000.toml"),
        figures: carry,
        ..PLAIN
    },
    Case {
        name: "request-playlist",
        about: "requests for the media playlist, kept connections, against nginx with the same bytes in a file",
        preset: include_str!("../../presets/requests.toml"),
        setting: Setting::Requests(Document::Playlist),
        figures: |o| requests(o, AtLeast(1.2)),
        ..PLAIN
    },
    Case {
        name: "request-part",
        about: "the same for a part of 50 KB",
        preset: include_str!("../../presets/requests.toml"),
        setting: Setting::Requests(Document::Part),
        figures: |o| requests(o, AtLeast(1.0)),
        ..PLAIN
    },
    Case {
        name: "request-segment",
        about: "the same for a segment of 500 KB",
        preset: include_str!("../../presets/requests.toml"),
        setting: Setting::Requests(Document::Segment),
        figures: |o| requests(o, AtLeast(0.95)),
        ..PLAIN
    },
    Case {
        name: "ingest",
        about: "CPU of the home for each of 20 publishers of 2 Mbit/s, replicating all to one edge, against nginx-rtmp with HLS",
        preset: include_str!("../../presets/ingest.toml"),
        setting: Setting::Beside(&[Peer::NginxRtmp { hls: true }]),
        figures: ingest,
        ..PLAIN
    },
    Case {
        name: "flv-idle",
        about: "age of a frame at an HTTP-FLV viewer, pushed to the home and carried to the edge; 10 viewers",
        preset: include_str!("../../presets/flv-idle.toml"),
        figures: |o| latency(o, Some(AtMost(20.0)), Some(AtMost(60.0))),
        ..PLAIN
    },
    Case {
        name: "playlist-100",
        about: "part complete at the home to the last byte of the held playlist; 100 LL-HLS viewers waiting",
        preset: include_str!("../../presets/playlist-100.toml"),
        figures: |o| reload(o, AtMost(5.0)),
        ..PLAIN
    },
    Case {
        name: "playlist-1000",
        about: "the same with 1,000 waiting",
        preset: include_str!("../../presets/playlist-1000.toml"),
        figures: |o| reload(o, AtMost(25.0)),
        ..PLAIN
    },
    Case {
        name: "playlist-5000",
        about: "the same with 5,000 waiting",
        preset: include_str!("../../presets/playlist-5000.toml"),
        figures: |o| reload(o, AtMost(90.0)),
        ..PLAIN
    },
    Case {
        name: "llhls-1000",
        about: "1,000 LL-HLS viewers of 2 Mbit/s with blocking reload and the hinted part asked ahead",
        preset: include_str!("../../presets/llhls-1000.toml"),
        figures: low_latency,
        ..PLAIN
    },
    Case {
        name: "cold-edge",
        about: "2,000 HTTP-FLV viewers within one second at an edge that has nothing",
        preset: include_str!("../../presets/cold-edge.toml"),
        figures: cold_edge,
        ..PLAIN
    },
    Case {
        name: "memory-1000",
        about: "growth of the edge's resident memory for each of 1,000 HTTP-FLV viewers",
        preset: include_str!("../../presets/memory-1000.toml"),
        max_runs: 1,
        figures: memory,
        ..PLAIN
    },
    Case {
        name: "memory-10000",
        about: "the same with 10,000",
        preset: include_str!("../../presets/memory-10000.toml"),
        max_runs: 1,
        figures: memory,
        ..PLAIN
    },
    Case {
        name: "room-1000",
        about: "deliveries to 1,000 members of a room, 200 bytes, one message in a write, against others",
        preset: include_str!("../../presets/room-1000.toml"),
        settings: AT_ONCE,
        setting: Setting::Beside(ROOM_PEERS),
        figures: |o| room::fanout(o, 0.9, 1.0),
        ..PLAIN
    },
    Case {
        name: "room-1000-8",
        about: "the same with eight messages on their way, which may share a write",
        preset: include_str!("../../presets/room-1000-8.toml"),
        settings: AT_ONCE,
        setting: Setting::Beside(ROOM_PEERS),
        figures: |o| room::fanout(o, 0.9, 1.2),
        ..PLAIN
    },
    Case {
        name: "room-5000",
        about: "deliveries to 5,000 members of a room, 200 bytes, one message in a write, against a send loop",
        preset: include_str!("../../presets/room-5000.toml"),
        settings: AT_ONCE,
        setting: Setting::Beside(&[Peer::Repeater { by: "loop" }]),
        figures: |o| room::fanout(o, 0.9, 1.0),
        ..PLAIN
    },
    Case {
        name: "room-20",
        about: "20 messages a second to 1,000 members of a room, from an edge through the home and back",
        preset: include_str!("../../presets/room-20-per-second.toml"),
        figures: room::talk,
        ..PLAIN
    },
    Case {
        name: "room-mix",
        about: "talk, likes, gifts and returns in a room of 1,000",
        preset: include_str!("../../presets/room-mix.toml"),
        settings: &["room.open_gifts=true"],
        figures: room::talk,
        ..PLAIN
    },
    Case {
        name: "members-10000",
        about: "growth of the edge's resident memory for each of 10,000 members who say nothing",
        preset: include_str!("../../presets/members-idle-10000.toml"),
        max_runs: 1,
        figures: room::memory,
        ..PLAIN
    },
    Case {
        name: "reconnect-storm",
        about: "5,000 members lose their connection at once and resume within half a second",
        preset: include_str!("../../presets/reconnect-storm.toml"),
        figures: room::storm,
        ..PLAIN
    },
];

/// Ticks as short as they go and chat unsampled, as the others have it.
const AT_ONCE: &[&str] = &["room.max_tick=5ms", "room.chat_per_second=1000"];
const ROOM_PEERS: &[Peer] = &[
    Peer::Repeater { by: "loop" },
    Peer::Repeater { by: "tokio" },
    Peer::Ws,
    Peer::Picows,
    Peer::Nchan,
];

fn figure(
    name: impl Into<String>,
    value: f64,
    unit: &'static str,
    promise: Option<Promise>,
) -> Figure {
    Figure { name: name.into(), value, unit, promise }
}

fn first(outcome: &Outcome) -> Option<&Row> {
    outcome.report.as_ref()?.rows.first()
}

fn pair(
    names: [&'static str; 2],
    quantiles: Quantiles,
    promises: [Option<Promise>; 2],
) -> Vec<Figure> {
    vec![
        figure(names[0], quantiles.p50, "ms", promises[0]),
        figure(names[1], quantiles.p99, "ms", promises[1]),
    ]
}

fn latency(outcome: &Outcome, p50: Option<Promise>, p99: Option<Promise>) -> Option<Vec<Figure>> {
    let quantiles = first(outcome)?.latency_ms?;
    Some(pair(["latency p50", "latency p99"], quantiles, [p50, p99]))
}

fn reload(outcome: &Outcome, p99: Promise) -> Option<Vec<Figure>> {
    let quantiles = first(outcome)?.reload_ms?;
    Some(pair(["playlist p50", "playlist p99"], quantiles, [None, Some(p99)]))
}

fn low_latency(outcome: &Outcome) -> Option<Vec<Figure>> {
    let row = first(outcome)?;
    let mut figures = pair(["latency p50", "latency p99"], row.latency_ms?, [None, None]);
    figures.extend(pair(["playlist p50", "playlist p99"], row.reload_ms?, [None, None]));
    figures.push(figure(
        "sent",
        per_cpu(outcome.report.as_ref()?, EDGE)?,
        "MB per edge CPU-s",
        None,
    ));
    figures.push(figure("stalls", row.stalls as f64, "", Some(AtMost(0.0))));
    Some(figures)
}

fn cold_edge(outcome: &Outcome) -> Option<Vec<Figure>> {
    let quantiles = first(outcome)?.first_byte_ms?;
    let names = ["first byte p50", "first byte p99"];
    let mut figures = pair(names, quantiles, [None, Some(AtMost(800.0))]);
    figures.push(figure("upstreams", outcome.upstreams, "", Some(AtMost(1.0))));
    Some(figures)
}

fn memory(outcome: &Outcome) -> Option<Vec<Figure>> {
    let edge = outcome.report.as_ref()?.servers.get(EDGE)?;
    let viewers = f64::from(first(outcome)?.viewers);
    let grown = (edge.rss as f64 - edge.rss_before as f64) / viewers / 1024.0;
    Some(vec![figure("memory", grown, "KiB per viewer", Some(AtMost(24.0)))])
}

fn ingest(outcome: &Outcome) -> Option<Vec<Figure>> {
    let report = outcome.report.as_ref()?;
    let each = |report: &Report, process: usize| {
        let cpu = report.servers.get(process)?.cpu_s;
        Some(cpu / report.window.as_secs_f64() * 60.0 / f64::from(report.publishers.0))
    };
    let unit = "CPU-s per minute and stream";
    let home = each(report, HOME)?;
    let mut figures =
        vec![figure("home", home, unit, None), figure("edge", each(report, EDGE)?, unit, None)];
    for (peer, report) in &outcome.peers {
        let other = each(report, 0)?;
        figures.push(figure(peer.name(), other, unit, None));
        let ratio = format!("home ÷ {}", peer.name());
        figures.push(figure(ratio, home / other, "", Some(AtMost(1.0))));
    }
    Some(figures)
}

fn fanout(outcome: &Outcome, ratios: &[Promise]) -> Option<Vec<Figure>> {
    let report = outcome.report.as_ref()?;
    let unit = "MB per CPU-s";
    let edge = per_cpu(report, EDGE)?;
    let mut figures = vec![figure("edge", edge, unit, None)];
    figures.push(figure("edge and home", report.bytes_per_cpu_s()? / 1e6, unit, None));
    figures.extend(latency(outcome, None, Some(AtMost(500.0)))?);
    let memory = memory(outcome)?.pop()?;
    figures.push(Figure { name: "edge: memory".into(), ..memory });
    for ((peer, report), ratio) in outcome.peers.iter().zip(ratios) {
        let other = per_cpu(report, 0)?;
        figures.push(figure(peer.name(), other, unit, None));
        if !matches!(peer, Peer::SendLoop { .. }) {
            let memory = report.rss_per_viewer()? / 1024.0;
            figures.push(figure(
                format!("{}: memory", peer.name()),
                memory,
                "KiB per viewer",
                None,
            ));
        }
        figures.push(figure(format!("edge ÷ {}", peer.name()), edge / other, "", Some(*ratio)));
    }
    Some(figures)
}

fn carry(outcome: &Outcome) -> Option<Vec<Figure>> {
    let report = outcome.report.as_ref()?;
    let row = first(outcome)?;
    let share = report.servers.get(EDGE)?.cpu_s / report.window.as_secs_f64();
    let due = f64::from(row.viewers) * 2e6 / 8.0 * report.window.as_secs_f64();
    let mut figures = latency(outcome, None, Some(AtMost(500.0)))?;
    figures.push(figure("sent ÷ due", row.bytes as f64 / due, "", Some(AtLeast(0.95))));
    figures.push(figure("edge's core used", share * 100.0, "%", None));
    let carried = f64::from(row.viewers) / share;
    figures.push(figure("one core, extrapolated", carried, "viewers", Some(AtLeast(6000.0))));
    Some(figures)
}

fn requests(outcome: &Outcome, ratio: Promise) -> Option<Vec<Figure>> {
    let (ours, theirs) = outcome.answered.as_ref()?;
    let rate = |a: &Answered| (a.cpu_s > 0.0).then(|| a.requests as f64 / a.cpu_s);
    let (edge, nginx) = (rate(ours)?, rate(theirs)?);
    let unit = "requests per CPU-s";
    let mut figures = vec![
        figure("edge", edge, unit, None),
        figure("nginx", nginx, unit, None),
        figure("edge ÷ nginx", edge / nginx, "", Some(ratio)),
    ];
    let size = ours.bytes as f64 / ours.requests as f64;
    figures.push(figure("size", size / 1e3, "KB", None));
    figures.push(figure("edge: p99", ours.times?.p99, "ms", None));
    figures.push(figure("nginx: p99", theirs.times?.p99, "ms", None));
    Some(figures)
}

/// Megabytes received for each CPU-second of one process.
fn per_cpu(report: &Report, process: usize) -> Option<f64> {
    let bytes: u64 = report.rows.iter().map(|r| r.bytes).sum();
    let cpu = report.servers.get(process)?.cpu_s;
    (cpu > 0.0).then(|| bytes as f64 / 1e6 / cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Options, Scenario};

    #[test]
    fn every_preset_is_a_scenario() {
        for case in CASES {
            let mut options: Options = toml::from_str(case.preset).unwrap();
            options.target = vec!["http://edge".into()];
            options.rtmp = Some("rtmp://home".into());
            let scenario = Scenario::new(options).unwrap();
            assert!(scenario.publishers > 0 || !scenario.viewers.is_empty(), "{}", case.name);
        }
        let mut names: Vec<_> = CASES.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
