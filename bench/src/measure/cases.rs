//! Which measurements there are, what each means, and what was promised.
//!
//! In: what a run found. Out: figures with names and units. The scenarios are the files in `presets/`.

use super::Outcome;
use crate::report::{Quantiles, Report, Row};

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
    /// What runs.
    pub(crate) setting: Setting,
    /// The figures of a run; none when it gave too little data.
    pub(crate) figures: fn(&Outcome) -> Option<Vec<Figure>>,
}

/// What runs under a measurement.
pub(crate) enum Setting {
    /// One home, one edge.
    Cluster,
    /// The same, and after it a bare send loop at this interval.
    BesideSendLoop {
        /// Milliseconds between two sends to a viewer.
        interval_ms: u64,
    },
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) name: &'static str,
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

/// All measurements, in the order of `RESULTS.md`.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "flv-idle",
        about: "age of a frame at an HTTP-FLV viewer, pushed to the home and carried to the edge; 10 viewers",
        preset: include_str!("../../presets/flv-idle.toml"),
        setting: Setting::Cluster,
        figures: |o| latency(o, Some(AtMost(20.0)), Some(AtMost(60.0))),
    },
    Case {
        name: "flv-1000",
        about: "the same with 1,000 viewers of 2 Mbit/s, for whom the edge collects up to 350 ms",
        preset: include_str!("../../presets/flv-1000.toml"),
        setting: Setting::Cluster,
        figures: |o| latency(o, None, Some(AtMost(500.0))),
    },
    Case {
        name: "playlist-100",
        about: "part complete at the home to the last byte of the held playlist; 100 LL-HLS viewers waiting",
        preset: include_str!("../../presets/playlist-100.toml"),
        setting: Setting::Cluster,
        figures: |o| reload(o, AtMost(5.0)),
    },
    Case {
        name: "playlist-1000",
        about: "the same with 1,000 waiting",
        preset: include_str!("../../presets/playlist-1000.toml"),
        setting: Setting::Cluster,
        figures: |o| reload(o, AtMost(25.0)),
    },
    Case {
        name: "llhls-1000",
        about: "1,000 LL-HLS viewers of 2 Mbit/s with blocking reload and the hinted part asked ahead",
        preset: include_str!("../../presets/llhls-1000.toml"),
        setting: Setting::Cluster,
        figures: low_latency,
    },
    Case {
        name: "cold-edge",
        about: "2,000 HTTP-FLV viewers within one second at an edge that has nothing",
        preset: include_str!("../../presets/cold-edge.toml"),
        setting: Setting::Cluster,
        figures: cold_edge,
    },
    Case {
        name: "memory-1000",
        about: "growth of the edge's resident memory for each of 1,000 HTTP-FLV viewers",
        preset: include_str!("../../presets/memory-1000.toml"),
        setting: Setting::Cluster,
        figures: memory,
    },
    Case {
        name: "memory-5000",
        about: "the same with 5,000",
        preset: include_str!("../../presets/memory-5000.toml"),
        setting: Setting::Cluster,
        figures: memory,
    },
    Case {
        name: "memory-10000",
        about: "the same with 10,000",
        preset: include_str!("../../presets/memory-10000.toml"),
        setting: Setting::Cluster,
        figures: memory,
    },
    Case {
        name: "ingest",
        about: "CPU of the home for each of 20 publishers of 2 Mbit/s, replicating all to one edge",
        preset: include_str!("../../presets/ingest.toml"),
        setting: Setting::Cluster,
        figures: ingest,
    },
    Case {
        name: "fanout-100",
        about: "HTTP-FLV to 100 viewers of 2 Mbit/s, a write for each frame, against a bare send loop",
        preset: include_str!("../../presets/fanout-100.toml"),
        setting: Setting::BesideSendLoop { interval_ms: 33 },
        figures: |o| fanout(o, AtLeast(0.85)),
    },
    Case {
        name: "fanout-1000",
        about: "HTTP-FLV to 1,000 viewers of 2 Mbit/s, a write each 350 ms, against a bare send loop",
        preset: include_str!("../../presets/flv-1000.toml"),
        setting: Setting::BesideSendLoop { interval_ms: 350 },
        figures: |o| fanout(o, AtLeast(0.7)),
    },
];

fn figure(name: &'static str, value: f64, unit: &'static str, promise: Option<Promise>) -> Figure {
    Figure { name, value, unit, promise }
}

fn first(outcome: &Outcome) -> Option<&Row> {
    outcome.report.rows.first()
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
    figures.push(figure("sent", per_cpu(&outcome.report, EDGE)?, "MB per edge CPU-s", None));
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
    let edge = outcome.report.servers.get(EDGE)?;
    let viewers = f64::from(first(outcome)?.viewers);
    let grown = (edge.rss as f64 - edge.rss_before as f64) / viewers / 1024.0;
    Some(vec![figure("memory", grown, "KiB per viewer", Some(AtMost(24.0)))])
}

fn ingest(outcome: &Outcome) -> Option<Vec<Figure>> {
    let report = &outcome.report;
    let publishers = f64::from(report.publishers.0);
    let each = |process: usize| {
        let cpu = report.servers.get(process)?.cpu_s;
        Some(cpu / report.window.as_secs_f64() * 60.0 / publishers)
    };
    let unit = "CPU-s per minute and stream";
    Some(vec![figure("home", each(HOME)?, unit, None), figure("edge", each(EDGE)?, unit, None)])
}

fn fanout(outcome: &Outcome, ratio: Promise) -> Option<Vec<Figure>> {
    let bound = outcome.bound.as_ref()?;
    let (edge, bare) = (per_cpu(&outcome.report, EDGE)?, per_cpu(bound, 0)?);
    let all = outcome.report.bytes_per_cpu_s()? / 1e6;
    Some(vec![
        figure("edge", edge, "MB per CPU-s", None),
        figure("edge and home", all, "MB per CPU-s", None),
        figure("send loop", bare, "MB per CPU-s", None),
        figure("edge ÷ send loop", edge / bare, "", Some(ratio)),
    ])
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
            assert!(scenario.publishers > 0, "{}", case.name);
        }
        let mut names: Vec<_> = CASES.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
