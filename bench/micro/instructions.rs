//! How many instructions the pure functions take, counted by callgrind: `make bench-instructions`.
//!
//! In: `check` or `bless`. Out: a table, and exit code 1 if a count grew by over [`TOLERANCE_PERCENT`] since
//! the baseline of the same compiler, C library and target; with another key the counts are printed and
//! pass. The baseline is `instructions.json` beside this file. A function's count is the difference
//! between a process that calls it [`MANY`] times and one that calls it [`FEW`] times, so that start-up
//! and input do not count.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

#[path = "work.rs"]
mod work;

const TOLERANCE_PERCENT: f64 = 3.0;
const FEW: u64 = 2;
const MANY: u64 = 12;

/// Counts by function, under the key they hold for.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline(BTreeMap<String, BTreeMap<String, u64>>);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> =
        args.iter().map(String::as_str).filter(|a| !a.starts_with("--")).collect();
    let done = match words.as_slice() {
        ["call", name, times] => call(name, times),
        ["check"] => count(false),
        ["bless"] => count(true),
        // `cargo test --benches` comes by without words: see that everything runs.
        _ => {
            work::all().iter_mut().for_each(|work| (work.run)());
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What callgrind runs: one function, so many times.
fn call(name: &str, times: &str) -> Result<bool> {
    let mut all = work::all();
    let work =
        all.iter_mut().find(|work| work.name == name).context("there is no such function")?;
    for _ in 0..times.parse()? {
        (work.run)();
    }
    Ok(true)
}

fn count(bless: bool) -> Result<bool> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("micro/instructions.json");
    let mut baseline: Baseline = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).context("micro/instructions.json")?,
        Err(_) => Baseline::default(),
    };
    let key = key()?;
    let known = baseline.0.get(&key);
    if known.is_none() {
        println!("no baseline for {key}: counts are shown, not judged");
    }
    let mut counts = BTreeMap::new();
    let mut grown = false;
    println!(
        "{:<16}{:>14}{:>10}{:>14}{:>9}",
        "function", "instructions", "per byte", "baseline", "change"
    );
    for (name, bytes) in work::all().iter().map(|work| (work.name, work.bytes)) {
        let each = (callgrind(name, MANY)? - callgrind(name, FEW)?) / (MANY - FEW);
        counts.insert(name.to_owned(), each);
        let per_byte = match bytes {
            0 => "-".to_owned(),
            bytes => format!("{:.3}", each as f64 / bytes as f64),
        };
        print!("{name:<16}{each:>14}{per_byte:>10}");
        match known.and_then(|known| known.get(name)) {
            Some(before) => {
                let change = (each as f64 / *before as f64 - 1.0) * 100.0;
                grown |= change > TOLERANCE_PERCENT;
                println!("{before:>14}{change:>+8.1}%");
            }
            None => println!("{:>14}{:>9}", "-", "-"),
        }
    }
    if bless {
        baseline.0.insert(key, counts);
        let text = serde_json::to_string_pretty(&baseline)?;
        std::fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
        return Ok(true);
    }
    if grown {
        println!(
            "over +{TOLERANCE_PERCENT} %: find the cause, or make bless-instructions and say why"
        );
    }
    Ok(!grown)
}

/// Instructions of a process that calls the function so often.
fn callgrind(name: &str, times: u64) -> Result<u64> {
    let own = std::env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["call", name, &times.to_string()])
        .env_clear()
        .output()
        .context("valgrind is needed")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    line.and_then(|(_, count)| count.trim().parse().ok()).with_context(|| format!("{name}: {said}"))
}

/// What a count depends on besides the code: compiler, C library (its copies), target.
fn key() -> Result<String> {
    let said = |program: &str, arg: &str| -> Result<String> {
        let output = Command::new(program).arg(arg).output().with_context(|| program.to_owned())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let rustc = said("rustc", "-vV")?;
    let field = |name: &str| rustc.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?");
    let libc = said("getconf", "GNU_LIBC_VERSION").unwrap_or_else(|_| "another libc".to_owned());
    Ok(format!("rustc {}, {}, {}", field("release: "), libc.trim(), field("host: ")))
}
