//! Black-box tests: one promise a test, real processes, real sockets.

mod documents;
mod hostile;
mod lifecycle;
mod light;
mod metrics;
mod players;
mod repo;
mod separate;
