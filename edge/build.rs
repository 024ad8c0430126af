//! Has the crate built again when the web pages were, if they are there. Needs no Node.
//!
//! A release build embeds `web/dist`; a development build reads it from the source tree as it runs.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if release || Path::new("../web/dist").exists() {
        println!("cargo:rerun-if-changed=../web/dist");
    }
}
