//! Black-box tests: one promise a test, real processes, real sockets.

mod access;
mod audit;
mod backend;
mod crowd;
mod documents;
mod events;
mod homes;
mod hostile;
mod hostile_members;
mod joining;
mod lifecycle;
mod light;
mod members;
mod metrics;
mod moves;
mod operations;
mod places;
mod players;
mod repo;
mod rooms;
mod separate;
