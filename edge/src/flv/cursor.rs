//! One viewer's place in a ring, and what it is sent next. Pure: time comes in as an argument.
//!
//! In: the ring, the time, and that everything sent before was taken. Out: a [`Step`]. The rules:
//! * It begins at the newest key chunk, or with `gop=0` at the next.
//! * A viewer who lags [`MAX_LAG`] or [`MAX_LAG_BYTES`] goes on at the newest key chunk, or waits for
//!   the next one: a player shows a jump, never a torn picture.
//! * The [`MAX_SKIPS`]th such skip within [`SKIP_WINDOW`] ends the response: the line is too slow for
//!   the stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::chunk::Chunk;
use super::ring::Ring;
use crate::metrics::Close;

/// The most a viewer may be behind the newest chunk.
pub(crate) const MAX_LAG: Duration = Duration::from_secs(3);
/// The same in bytes.
pub(crate) const MAX_LAG_BYTES: u64 = 4 << 20;
/// How long a viewer has to take the GOP it begins with, which may be older and larger than that.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Skips within [`SKIP_WINDOW`] that are too many.
const MAX_SKIPS: usize = 3;
/// See [`MAX_SKIPS`].
const SKIP_WINDOW: Duration = Duration::from_secs(30);

/// A place in a ring.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    next: u64,
    /// Waits for a key chunk at or after `next`.
    needs_key: bool,
    /// The configuration the viewer was told last; none before its first chunk.
    generation: Option<u64>,
    /// Lag is forgiven until then, or until the viewer has caught up once.
    forgiven_until: Option<Instant>,
    /// When the newest skips were.
    skips: [Option<Instant>; MAX_SKIPS - 1],
}

/// What a viewer is sent next.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// This chunk.
    Send {
        /// The chunk.
        chunk: &'a Arc<Chunk>,
        /// What goes before it.
        before: Before,
        /// Whether the viewer was moved on to it.
        skipped: bool,
    },
    /// Nothing now.
    Wait {
        /// Whether the viewer lost its place and waits for a key chunk since now.
        skipped: bool,
    },
    /// Nothing any more.
    Close(Close),
}

/// What goes before a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing.
    Nothing,
    /// The head of a response.
    Head,
    /// The sequence headers of another configuration.
    Headers,
}

impl Cursor {
    /// A place for a viewer who joins now; `gop` to begin with what is cached.
    pub(crate) fn join(ring: &Ring, gop: bool, now: Instant) -> Self {
        let cached = ring.newest_key().filter(|_| gop);
        Self {
            next: cached.unwrap_or(ring.next()),
            needs_key: cached.is_none(),
            generation: None,
            forgiven_until: Some(now + CATCH_UP),
            skips: [None; MAX_SKIPS - 1],
        }
    }

    /// What comes next, for a viewer who has taken everything before.
    pub(crate) fn step<'a>(&mut self, ring: &'a Ring, now: Instant) -> Step<'a> {
        let mut skipped = false;
        loop {
            if self.needs_key {
                match ring.newest_key().filter(|key| *key >= self.next) {
                    Some(key) => {
                        self.next = key;
                        self.needs_key = false;
                    }
                    None => return Self::wait(ring, skipped),
                }
            }
            if self.next >= ring.next() {
                self.forgiven_until = None;
                return Self::wait(ring, skipped);
            }
            match ring.get(self.next) {
                Some(chunk) if skipped || !self.lags(ring, chunk, now) => {
                    let before = match self.generation {
                        None => Before::Head,
                        Some(told) if told != chunk.preamble.generation => Before::Headers,
                        Some(_) => Before::Nothing,
                    };
                    self.generation = Some(chunk.preamble.generation);
                    self.next += 1;
                    return Step::Send { chunk, before, skipped };
                }
                _ => {}
            }
            // It lags, or its chunk has left the ring.
            if !self.may_skip(now) {
                return Step::Close(Close::Lagging);
            }
            skipped = true;
            self.needs_key = true;
            self.next += 1;
            self.forgiven_until = Some(now + MAX_LAG);
        }
    }

    fn wait(ring: &Ring, skipped: bool) -> Step<'static> {
        ring.ended().map_or(Step::Wait { skipped }, Step::Close)
    }

    fn lags(&self, ring: &Ring, chunk: &Chunk, now: Instant) -> bool {
        let forgiven = self.forgiven_until.is_some_and(|until| now < until);
        !forgiven
            && (now.saturating_duration_since(chunk.made) > MAX_LAG
                || ring.bytes_from(chunk) > MAX_LAG_BYTES)
    }

    /// Notes a skip; false when it is one too many.
    fn may_skip(&mut self, now: Instant) -> bool {
        let recent = |skip: &&mut Option<Instant>| {
            skip.is_none_or(|at| now.saturating_duration_since(at) >= SKIP_WINDOW)
        };
        match self.skips.iter_mut().find(recent) {
            Some(slot) => {
                *slot = Some(now);
                true
            }
            None => false,
        }
    }
}
