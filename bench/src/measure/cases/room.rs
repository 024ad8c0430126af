//! The figures of measurements of rooms.
//!
//! In: what a run found. Out: figures; deliveries are per CPU-second of the process that has the members.

use super::super::Outcome;
use super::Promise::{AtLeast, AtMost};
use super::{EDGE, Figure, Peer, figure, pair};
use crate::report::{Report, RoomRow};

const UNIT: &str = "deliveries per CPU-s";

/// Against the bare loop, and against each of the others.
pub(super) fn fanout(outcome: &Outcome, loop_ratio: f64, ratio: f64) -> Option<Vec<Figure>> {
    let report = outcome.report.as_ref()?;
    let edge = per_cpu(report, EDGE)?;
    let both = row(report)?.deliveries_per_server_cpu_s?;
    let mut figures =
        vec![figure("edge", edge, UNIT, None), figure("edge and home", both, UNIT, None)];
    let window = report.window.as_secs_f64();
    figures.push(figure("sent", row(report)?.sent as f64 / window, "messages per s", None));
    figures.push(figure("size", frame_bytes(report)?, "bytes per frame", None));
    let latency = report.rows.first()?.latency_ms?;
    figures.extend(pair(["latency p50", "latency p99"], latency, [None, None]));
    figures.push(lost(report)?);
    for (peer, report) in &outcome.peers {
        let other = per_cpu(report, 0)?;
        figures.push(figure(peer.name(), other, UNIT, None));
        let is_loop = matches!(peer, Peer::Repeater { by: "loop" });
        let promise = AtLeast(if is_loop { loop_ratio } else { ratio });
        figures.push(figure(format!("edge ÷ {}", peer.name()), edge / other, "", Some(promise)));
    }
    Some(figures)
}

/// How late what is said is read.
pub(super) fn talk(outcome: &Outcome) -> Option<Vec<Figure>> {
    let report = outcome.report.as_ref()?;
    let room = row(report)?;
    let latency = report.rows.first()?.latency_ms?;
    let bounds = [Some(AtMost(120.0)), Some(AtMost(500.0))];
    let mut figures = pair(["latency p50", "latency p99"], latency, bounds);
    figures.extend(pair(["answer p50", "answer p99"], room.ack_ms?, [None, None]));
    figures.push(figure("edge", per_cpu(report, EDGE)?, UNIT, None));
    figures.push(lost(report)?);
    if let Some(resume) = room.resume_ms {
        figures.push(figure("resume p99", resume.p99, "ms", Some(AtMost(300.0))));
        figures.push(figure("resumed too late", room.not_recovered as f64, "", Some(AtMost(0.0))));
    }
    Some(figures)
}

/// What an idle member costs.
pub(super) fn memory(outcome: &Outcome) -> Option<Vec<Figure>> {
    let report = outcome.report.as_ref()?;
    let edge = report.servers.get(EDGE)?;
    let members = f64::from(report.rows.first()?.viewers);
    let grown = (edge.rss as f64 - edge.rss_before as f64) / members / 1024.0;
    let busy = edge.cpu_s / report.window.as_secs_f64() * 100.0;
    Some(vec![
        figure("memory", grown, "KiB per member", Some(AtMost(8.0))),
        figure("edge's core used", busy, "%", None),
    ])
}

/// How soon members are back.
pub(super) fn storm(outcome: &Outcome) -> Option<Vec<Figure>> {
    let report = outcome.report.as_ref()?;
    let room = row(report)?;
    let members = f64::from(report.rows.first()?.viewers);
    let mut figures = vec![figure("accepted", f64::from(room.connects_per_s), "in a second", None)];
    let resume = room.resume_ms?;
    figures.extend(pair(["resume p50", "resume p99"], resume, [None, Some(AtMost(300.0))]));
    figures.push(figure("resumed", room.recovered as f64, "", Some(AtLeast(members))));
    let cpu = report.servers.get(EDGE)?.cpu_s;
    figures.push(figure("edge", cpu / members * 1e6, "CPU-µs per return, talk included", None));
    figures.push(lost(report)?);
    Some(figures)
}

fn lost(report: &Report) -> Option<Figure> {
    let room = row(report)?;
    let bad = (room.lost + room.duplicated) as f64;
    Some(figure("lost or twice", bad, "messages", Some(AtMost(0.0))))
}

fn row(report: &Report) -> Option<&RoomRow> {
    report.rows.first()?.room.as_ref()
}

fn frame_bytes(report: &Report) -> Option<f64> {
    let frames = row(report)?.frames;
    (frames > 0).then(|| report.rows[0].bytes as f64 / frames as f64)
}

fn per_cpu(report: &Report, process: usize) -> Option<f64> {
    let cpu = report.servers.get(process)?.cpu_s;
    (cpu > 0.0).then(|| row(report).map(|room| room.deliveries as f64 / cpu))?
}
