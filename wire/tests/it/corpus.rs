//! Replays the committed fuzz corpora: every input a fuzzer found worth keeping stays a test.
//!
//! In: `fuzz/corpus/{target}/`. Out: nothing but the absence of panics. The fuzzers themselves run
//! from `wire/fuzz` with `cargo fuzz run -s none`.

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        body(&std::fs::read(file.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}

#[test]
fn frame() {
    replay("frame", bodies::frame);
}

#[test]
fn hello() {
    replay("hello", bodies::hello);
}

#[test]
fn control() {
    replay("control", bodies::control);
}

#[test]
fn replica() {
    replay("replica", bodies::replica);
}

#[test]
fn contribute() {
    replay("contribute", bodies::contribute);
}

#[test]
fn events() {
    replay("events", bodies::events);
}

#[test]
fn inquiry() {
    replay("inquiry", bodies::inquiry);
}

#[test]
fn room() {
    replay("room", bodies::room);
}

#[test]
fn id() {
    replay("id", bodies::id);
}
