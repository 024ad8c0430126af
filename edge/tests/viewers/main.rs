//! An edge as viewers meet it: a real listener on a free port, feeds filled by hand behind a test
//! source, and clients that speak what players speak.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail where it stands")]

mod direct;
mod endings;
mod flv;
mod hls;
mod hostile;
mod http;
mod support;
