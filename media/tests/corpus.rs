//! Replays the committed fuzz corpora: every input a fuzzer found worth keeping stays a test.
//!
//! In: `fuzz/corpus/{target}/`. Out: nothing but the absence of panics. The fuzzers themselves run with
//! `make fuzz`.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

#[expect(clippy::disallowed_methods, reason = "a test reads its inputs")]
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
fn flv() {
    replay("flv", bodies::flv);
}

#[test]
fn flv_stream() {
    replay("flv_stream", bodies::flv_stream);
}

#[test]
fn avc_config() {
    replay("avc_config", bodies::avc_config);
}

#[test]
fn aac_config() {
    replay("aac_config", bodies::aac_config);
}

#[test]
fn manifest_entry() {
    replay("manifest_entry", bodies::manifest_entry);
}
