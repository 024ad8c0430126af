//! The binary `tidewater`. Everything is in the library, so that tests can start nodes in-process.

use std::process::ExitCode;

/// Long-lived processes with many short-lived buffers: mimalloc fragments less than glibc's malloc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    node::cli::main()
}
