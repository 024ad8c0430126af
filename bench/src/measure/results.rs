//! `RESULTS.md`: one table, a row for each figure, replaced measurement by measurement.
//!
//! In: figures of several runs. Out: Markdown that says where and how they were taken. Rows of measurements
//! not made this time are kept as they are.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::cases::{CASES, Case, Figure, Promise};
use crate::process;

const HEADING: &str = "# Results\n\n\
    Written by `make bench` (all rows) and `make compare` (those beside servers of other makes). What each\n\
    measurement is stands in `bench measure --list`, its scenario in `presets/`; one alone is taken again by\n\
    `make bench BENCH_ARGS=\"NAME --runs 5\"`. Medians; all runs stand beside them. Home and edge are separate\n\
    processes on one core, the load generator is on another. Where servers are held against each other they\n\
    run one after the other on that core, alternating, under the same drivers, and the figure is per\n\
    CPU-second of the server's process, so that a busy machine disturbs both alike; absolute times it does\n\
    disturb: see the load. MB are 10^6 bytes. A row is marked doubtful where the load generator's core was\n\
    over 85 % busy or data was missing in some run.\n\n";
/// How the line begins that says where rows were taken.
const TAKEN_ON: &str = "Taken on ";
const TABLE: &str = "| measurement | figure | median | runs | wanted | kept | load |\n\
    |---|---|---|---|---|---|---|\n";

/// The rows of a measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row(Vec<String>);

impl Row {
    /// From the figures of each run, of which some had problems.
    pub(crate) fn of(case: &Case, runs: &[Vec<Figure>], problems: usize) -> Self {
        let Some(first) = runs.first() else { return Self(Vec::new()) };
        let load = format!("{:.1}", process::load().unwrap_or_default());
        let mark = if problems == 0 { "" } else { " (doubtful)" };
        let line = |(index, figure): (usize, &Figure)| {
            let mut values: Vec<f64> =
                runs.iter().filter_map(|run| run.get(index)).map(|f| f.value).collect();
            let all = values.iter().map(|v| short(*v)).collect::<Vec<_>>().join(", ");
            values.sort_by(f64::total_cmp);
            let median = values[values.len() / 2];
            let (promised, kept) = match figure.promise {
                None => (String::new(), ""),
                Some(promise) => {
                    let kept = if promise.holds(median) { "yes" } else { "**no**" };
                    (said(promise), kept)
                }
            };
            let (name, unit, value) = (&figure.name, figure.unit, short(median));
            let case = case.name;
            let value = format!("{value} {unit}");
            let value = value.trim();
            format!("| {case} | {name} | {value}{mark} | {all} | {promised} | {kept} | {load} |")
        };
        Self(first.iter().enumerate().map(line).collect())
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Results {
    rows: Vec<String>,
    /// Where the newest rows were taken.
    taken_on: String,
    /// What people wrote behind the table.
    notes: String,
}

impl Results {
    /// Reads the table in `path`; an empty one if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn parse(text: &str) -> Self {
        let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| measurement");
        let taken_on = text.lines().find(|line| line.starts_with(TAKEN_ON)).unwrap_or_default();
        let rows = text.lines().filter(is_row).map(str::to_owned).collect();
        let notes = text.split_once("\n## ").map_or(String::new(), |(_, n)| format!("\n## {n}"));
        Self { rows, taken_on: taken_on.to_owned(), notes }
    }

    /// Puts new rows in the place of a measurement's old ones.
    pub(crate) fn replace(&mut self, case: &Case, row: Row) {
        let starts = format!("| {} |", case.name);
        self.rows.retain(|line| !line.starts_with(&starts));
        self.rows.extend(row.0);
        let place = |line: &str| {
            let name = line.split('|').nth(1).unwrap_or_default().trim();
            CASES.iter().position(|case| case.name == name)
        };
        self.rows.sort_by_key(|line| place(line));
    }

    /// Notes where, and with which versions, rows are taken.
    pub(crate) fn taken_here(&mut self, versions: &[String]) {
        self.taken_on = format!("{TAKEN_ON}{}. {}.", machine(), versions.join(", "));
    }

    /// The whole file.
    pub(crate) fn text(&self) -> String {
        let mut out = HEADING.to_owned();
        if !self.taken_on.is_empty() {
            let _ = writeln!(out, "{}\n", self.taken_on);
        }
        out += TABLE;
        for row in &self.rows {
            let _ = writeln!(out, "{row}");
        }
        out + &self.notes
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.text()).with_context(|| path.display().to_string())
    }
}

fn said(promise: Promise) -> String {
    match promise {
        Promise::AtMost(bound) => format!("≤ {}", short(bound)),
        Promise::AtLeast(bound) => format!("≥ {}", short(bound)),
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v == 0.0 || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// Where the figures are from: processor, kernel, compiler.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cpu = field("model name").unwrap_or_default();
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    let rustc = Command::new("rustc").arg("-V").output().ok();
    let rustc = rustc.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let rustc = rustc.split(' ').nth(1).unwrap_or("?");
    format!("{cores} × {cpu}, Linux {kernel}, rustc {rustc}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: f64) -> Vec<Figure> {
        let promise = Some(Promise::AtMost(5.0));
        vec![Figure { name: "p99".into(), value, unit: "ms", promise }]
    }

    #[test]
    fn rows_hold_medians_and_replace_their_own() {
        let (one, two) = (&CASES[0], &CASES[1]);
        let mut results = Results::default();
        results.replace(two, Row::of(two, &[run(1.0), run(9.0), run(4.0)], 0));
        results.replace(one, Row::of(one, &[run(6.0)], 1));
        let text = results.text() + "\n## By hand\n\n| not | ours |\n";
        let mut again = Results::parse(&text);
        assert_eq!(again.rows.len(), 3, "a hand-written table is a row: keep notes in prose");
        again = Results::parse(&results.text());
        assert_eq!(again.text(), results.text());
        assert!(text.contains("| p99 | 4 ms | 1, 9, 4 | ≤ 5 | yes |"), "{text}");
        assert!(text.contains("| p99 | 6 ms (doubtful) | 6 | ≤ 5 | **no** |"), "{text}");
        assert!(text.find(one.name).unwrap() < text.find(two.name).unwrap());
    }

    #[test]
    fn numbers_keep_three_digits() {
        let all = [0.0, 0.0512, 1.0, 12.345, 99.94, 1234.5].map(short);
        assert_eq!(all, ["0", "0.051", "1", "12.3", "99.9", "1234"]);
    }
}
