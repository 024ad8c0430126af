//! Addresses of a test's own: every test process gets a part of 127.0.0.0/8, so that the well-known
//! ports are free in each.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

static NEXT: AtomicU8 = AtomicU8::new(1);

/// A loopback address no other test uses: 127.x.y.n with x and y from the process id and n counted.
///
/// The runner starts one process per test; process ids of processes alive together are distinct, and
/// their low 16 bits collide only once in 65,536.
#[must_use]
pub fn fresh() -> Ipv4Addr {
    let [_, _, x, y] = std::process::id().to_be_bytes();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    // 127.0.0.x is where everything else lives.
    Ipv4Addr::new(127, x.max(1), y, n)
}
