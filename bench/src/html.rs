//! A run as one HTML page with plots: no script, no font and no style from elsewhere.
//!
//! In: a [`Report`] with what was noted each second. Out: HTML with inline SVG. Pure.

use std::fmt::Write as _;

use crate::report::{Quantiles, Report, Sample};

/// Size of a plot in user units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 200.0;
/// Room for the numbers beside the axes.
const LEFT: f64 = 64.0;
const BELOW: f64 = 24.0;
/// Lines that help to read a value.
const GRID: u32 = 4;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
    color:#1a2733}h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .3rem}\
    table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
    th,td{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid #dde4ea}\
    th:first-child,td:first-child{text-align:left}.bad{color:#a3231c;font-weight:600}\
    .good{color:#1c7a3d;font-weight:600}svg{width:100%;height:auto}svg text{font-size:11px;fill:#5a6b7a}\
    .axis{stroke:#c5d0d9;stroke-width:1}.line{fill:none;stroke:#0b6bcb;stroke-width:1.6}\
    .window{fill:#0b6bcb;opacity:.07}";

/// The page for `report`.
#[must_use]
pub(crate) fn page(report: &Report, title: &str) -> String {
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport \
         content=\"width=device-width\"><title>{0}</title><style>{STYLE}</style><h1>{0}</h1>",
        escaped(title)
    );
    verdict(&mut out, report);
    protocols(&mut out, report);
    costs(&mut out, report);
    type Plot = (&'static str, fn(&Sample) -> f64);
    let plots: [Plot; 5] = [
        ("Received, Mbit/s", |s| s.mbit),
        ("Viewers that have media", |s| s.viewers as f64),
        ("Server: CPU cores used", |s| s.server_cores),
        ("Server: resident MB", |s| s.server_rss as f64 / 1e6),
        ("Stalls and errors so far", |s| (s.stalls + s.errors) as f64),
    ];
    for (name, value) in plots {
        let points: Vec<_> = report.samples.iter().map(|s| (s.at_s, value(s))).collect();
        plot(&mut out, name, &points, report.measured_s);
    }
    out
}

fn verdict(out: &mut String, report: &Report) {
    if report.problems.is_empty() {
        let _ = write!(out, "<p class=good>The figures can be believed.</p>");
        return;
    }
    let _ = write!(out, "<p class=bad>The figures cannot be believed:</p><ul>");
    for problem in &report.problems {
        let _ = write!(out, "<li>{}</li>", escaped(problem));
    }
    let _ = write!(out, "</ul>");
}

fn protocols(out: &mut String, report: &Report) {
    let secs = report.window.as_secs_f64();
    let _ = write!(
        out,
        "<h2>Viewers</h2><table><tr><th>protocol<th>viewers<th>Mbit/s<th>latency p50<th>p99<th>first byte \
         p99<th>playlist p99<th>stalls<th>skipped<th>errors</tr>"
    );
    for row in &report.rows {
        let _ = write!(
            out,
            "<tr><td>{}<td>{} of {}<td>{:.1}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            row.protocol.name(),
            row.started,
            row.viewers,
            row.bytes as f64 * 8e-6 / secs,
            ms(row.latency_ms, |q| q.p50),
            ms(row.latency_ms, |q| q.p99),
            ms(row.first_byte_ms, |q| q.p99),
            ms(row.reload_ms, |q| q.p99),
            row.stalls,
            row.skipped,
            row.errors
        );
        for (reason, count) in &row.reasons {
            let _ = write!(out, "<tr><td colspan=10>{count} × {}</tr>", escaped(reason));
        }
    }
    let _ = write!(out, "</table>");
}

fn costs(out: &mut String, report: &Report) {
    let secs = report.window.as_secs_f64();
    let _ = write!(
        out,
        "<h2>Costs in {secs:.0} s</h2><table><tr><th>process<th>CPU-s<th>resident MB<th>grown MB</tr>"
    );
    for server in &report.servers {
        let grown = (server.rss as f64 - server.rss_before as f64) / 1e6;
        let _ = write!(
            out,
            "<tr><td>{} {}<td>{:.2}<td>{:.1}<td>{grown:+.1}</tr>",
            escaped(&server.name),
            server.pid,
            server.cpu_s,
            server.rss as f64 / 1e6
        );
    }
    let own = report.own;
    let _ = write!(
        out,
        "<tr><td>load generator<td>{:.2}<td><td></tr></table><p>Its core was {:.0} % used or wanted, \
         {:.0} % not had.",
        own.cpu_s,
        own.busy * 100.0,
        own.waited * 100.0
    );
    if let (Some(bytes), Some(rss)) = (report.bytes_per_cpu_s(), report.rss_per_viewer()) {
        let (mb, kb) = (bytes / 1e6, rss / 1e3);
        let _ = write!(out, " {mb:.0} MB per server-CPU-second, {kb:.1} KB resident per viewer.");
    }
    let _ = write!(out, "</p>");
}

/// A line over time; the measured stretch is shaded.
fn plot(out: &mut String, name: &str, points: &[(f64, f64)], measured: (f64, f64)) {
    let Some((last, _)) = points.last().copied() else { return };
    let top = nice(points.iter().map(|(_, v)| *v).fold(0.0, f64::max));
    let x = |at: f64| LEFT + at / last.max(1.0) * (WIDTH - LEFT);
    let y = |value: f64| HEIGHT * (1.0 - value / top) + 8.0;
    let (low, name) = (HEIGHT + 8.0, escaped(name));
    let _ = write!(
        out,
        "<h2>{name}</h2><svg viewBox=\"0 0 {WIDTH} {}\" role=img aria-label=\"{name}\"><rect class=window \
         x={:.1} y=8 width={:.1} height={HEIGHT} />",
        low + BELOW,
        x(measured.0),
        (x(measured.1.min(last)) - x(measured.0)).max(0.0)
    );
    for step in 0..=GRID {
        let value = top * f64::from(step) / f64::from(GRID);
        let at = y(value);
        let _ = write!(
            out,
            "<line class=axis x1={LEFT} x2={WIDTH} y1={at:.1} y2={at:.1} /><text x={} y={:.1} \
             text-anchor=end>{value:.2}</text>",
            LEFT - 6.0,
            at + 4.0
        );
        let second = last * f64::from(step) / f64::from(GRID);
        let _ = write!(
            out,
            "<text x={:.1} y={} text-anchor=middle>{second:.0} s</text>",
            x(second).min(WIDTH - 14.0),
            low + 16.0
        );
    }
    let line: Vec<_> = points.iter().map(|(at, v)| format!("{:.1},{:.1}", x(*at), y(*v))).collect();
    let _ = write!(out, "<polyline class=line points=\"{}\" /></svg>", line.join(" "));
}

/// The least of 1, 2 or 5 times a power of ten that is not below `value`.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

fn ms(quantiles: Option<Quantiles>, of: fn(Quantiles) -> f64) -> String {
    quantiles.map_or("–".to_owned(), |q| format!("{:.1} ms", of(q)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        let all = [0.0, 0.03, 1.0, 1.1, 4.0, 7.0, 990.0].map(nice);
        assert_eq!(all, [1.0, 0.05, 1.0, 2.0, 5.0, 10.0, 1000.0]);
    }

    #[test]
    fn a_plot_stays_within_its_frame_and_shows_every_point() {
        let mut out = String::new();
        plot(&mut out, "a < b", &[(1.0, 0.0), (2.0, 3.0), (4.0, 5.0)], (2.0, 9.0));
        assert!(out.contains("a &lt; b") && !out.contains("a < b"));
        let line = out.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let points: Vec<(f64, f64)> = line
            .split(' ')
            .map(|p| p.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(points.len(), 3);
        assert!(
            points.iter().all(|(x, y)| (LEFT..=WIDTH).contains(x) && (8.0..=208.0).contains(y))
        );
        assert_eq!(points[2], (WIDTH, 8.0), "the largest stands at the top");
    }
}
