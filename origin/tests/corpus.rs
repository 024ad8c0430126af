//! Replays the committed fuzz corpora: every input a fuzzer found worth keeping stays a test.
//!
//! In: `fuzz/corpus/{target}/`. Out: nothing but the absence of panics. The fuzzers themselves run with
//! `make fuzz`.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for file in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let path = file.expect("a readable folder").path();
        body(&std::fs::read(&path).expect("a readable file"));
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}

#[test]
fn rtmp_session() {
    replay("rtmp_session", bodies::rtmp_session);
}

#[test]
fn amf0() {
    replay("amf0", bodies::amf0);
}
