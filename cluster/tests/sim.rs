//! Seeds of the simulation, and the bugs it is shown to find.
//!
//! `TIDEWATER_SEEDS=20000 cargo test -p cluster --test sim` runs more of them, `TIDEWATER_SEED=17`
//! prints what happens in one.

#![expect(clippy::unwrap_used, reason = "a test ends where an expectation fails")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::sim::{Bug, Counts, Report, run, run_traced};

/// Seeds run unless the environment says otherwise.
const SEEDS: u64 = 2000;
/// Within so many seeds a planted bug must be found.
const BUG_SEEDS: u64 = 2000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all cores until one breaks a promise. Returns it, and what happened in all.
fn search(seeds: std::ops::Range<u64>, bug: Option<Bug>) -> (Option<Report>, Counts, u64) {
    let next = AtomicU64::new(seeds.start);
    let found: Mutex<Option<Report>> = Mutex::new(None);
    let total = Mutex::new((Counts::default(), 0));
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || found.lock().unwrap().is_some() {
                        return;
                    }
                    let report = run(seed, bug);
                    let mut total = total.lock().unwrap();
                    total.1 += 1;
                    add(&mut total.0, &report.counts);
                    if report.violation.is_some() {
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|other| other.seed > report.seed) {
                            *found = Some(report);
                        }
                    }
                }
            });
        }
    });
    let (counts, ran) = total.into_inner().unwrap();
    (found.into_inner().unwrap(), counts, ran)
}

fn add(total: &mut Counts, counts: &Counts) {
    total.events += counts.events;
    total.answers += counts.answers;
    total.grants += counts.grants;
    total.leaders += counts.leaders;
    total.crashes += counts.crashes;
    total.changes += counts.changes;
    total.fetches += counts.fetches;
    total.faults += counts.faults;
}

#[test]
fn all_seeds_keep_the_promises() {
    if let Some(seed) = from_environment("TIDEWATER_SEED") {
        let report = run_traced(seed, None, true);
        assert_eq!(report.violation, None, "{report:?}");
        return;
    }
    let first = from_environment("TIDEWATER_FIRST_SEED").unwrap_or(0);
    let seeds = from_environment("TIDEWATER_SEEDS").unwrap_or(SEEDS);
    let (found, counts, ran) = search(first..first + seeds, None);
    println!("{ran} seeds: {counts:?}");
    assert_eq!(found, None);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..6 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
    assert_ne!(run(0, None).digest, run(1, None).digest);
}

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let (found, _, ran) = search(0..BUG_SEEDS, Some(bug));
        match found {
            Some(report) => println!(
                "{bug:?}: seed {} after {ran} seeds: {}",
                report.seed,
                report.violation.unwrap()
            ),
            None => missed.push(bug),
        }
    }
    assert_eq!(missed, []);
}
