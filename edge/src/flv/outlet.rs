//! What one viewer is still to be sent, and what it says meanwhile, whatever carries it. Pure: time comes
//! in as an argument.
//!
//! In: the room's ring, and the bytes a viewer sends. Out: buffers to send in order, whole frames and
//! tags, and why to close.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::chunk::Framing;
use super::cursor::{Before, Cursor, Step};
use super::ring::Ring;
use crate::metrics::{Close, Metrics};
use crate::ws::frame::{self, Opcode, Reader, Status};

/// Buffers in one `writev`.
pub(super) const MAX_SLICES: usize = 32;
/// Bytes handed to a socket before the next viewer's turn.
pub(super) const MAX_BATCH_BYTES: usize = 1 << 20;
/// What an HTTP-FLV viewer may send behind its request, or a WebSocket viewer in all: players have
/// nothing to say.
const MAX_IGNORED_BYTES: usize = 64 * 1024;
/// Payload of a client's data frame.
const MAX_CLIENT_FRAME: usize = 4096;

/// What one viewer is still to be sent, whatever carries it.
#[derive(Debug)]
pub(crate) struct Outlet {
    framing: Framing,
    cursor: Cursor,
    pending: VecDeque<Bytes>,
    /// When bytes were last taken, or there were none to take.
    taken: Instant,
    incoming: Reader,
    ignored_bytes: usize,
    /// How the viewer broke the WebSocket protocol.
    violation: Option<Status>,
    /// Whether an answer to a ping waits to be taken.
    pong_waits: bool,
}

impl Outlet {
    /// For a response that begins with `head`.
    pub(crate) fn new(framing: Framing, cursor: Cursor, head: Bytes) -> Self {
        Self {
            framing,
            cursor,
            pending: VecDeque::from([head]),
            taken: Instant::now(),
            incoming: Reader::default(),
            ignored_bytes: 0,
            violation: None,
            pong_waits: false,
        }
    }

    /// Adds what the ring has next, as much as goes out at once. Returns why nothing follows.
    pub(crate) fn fill(&mut self, ring: &Ring, now: Instant, metrics: &Metrics) -> Option<Close> {
        let mut bytes = 0;
        self.taken = now;
        self.pong_waits = false;
        // Two buffers may come of a step.
        while self.pending.len() + 2 <= MAX_SLICES && bytes < MAX_BATCH_BYTES {
            match self.cursor.step(ring, now) {
                Step::Send { chunk, before, skipped } => {
                    metrics.flv_skips.inc_by(u64::from(skipped));
                    match before {
                        Before::Nothing => {}
                        Before::Head => self.pending.push_back(chunk.head(self.framing).clone()),
                        Before::Headers => {
                            self.pending.push_back(chunk.headers(self.framing).clone());
                        }
                    }
                    self.pending.push_back(chunk.bytes(self.framing).clone());
                    bytes += chunk.len();
                }
                Step::Wait { skipped } => {
                    metrics.flv_skips.inc_by(u64::from(skipped));
                    break;
                }
                Step::Close(why) => return Some(why),
            }
        }
        None
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The buffer to send next.
    pub(crate) fn front(&self) -> Option<&Bytes> {
        self.pending.front()
    }

    /// Puts the pending buffers into `out`; returns how many.
    pub(super) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slot, bytes) in out.iter_mut().zip(&self.pending) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Notes that this many bytes were taken.
    pub(crate) fn advance(&mut self, mut n: usize, now: Instant) {
        self.taken = now;
        while let Some(front) = self.pending.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.pending.pop_front();
        }
    }

    /// How long what is pending has waited to be taken.
    pub(super) fn untaken_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.taken)
    }

    /// Takes what the viewer sent. Returns why the response must end, if it must.
    pub(crate) fn received(&mut self, mut bytes: &[u8]) -> Option<Close> {
        self.ignored_bytes = self.ignored_bytes.saturating_add(bytes.len());
        if self.framing == Framing::Plain {
            return (self.ignored_bytes > MAX_IGNORED_BYTES).then_some(Close::Protocol);
        }
        loop {
            match self.incoming.next(&mut bytes, MAX_CLIENT_FRAME) {
                Ok(None) => break,
                Ok(Some(frame)) => match frame.opcode {
                    Opcode::Close => {
                        self.violation = Some(Status::Normal);
                        return Some(Close::Left);
                    }
                    // One answer may wait; pings that come meanwhile need none (RFC 6455, 5.5.3).
                    Opcode::Ping if !self.pong_waits => {
                        self.pong_waits = true;
                        let pong = frame::control(Opcode::Pong, &frame.payload);
                        self.pending.push_back(pong.into());
                        self.ignored_bytes = 0;
                    }
                    _ => {}
                },
                Err(violation) => {
                    self.violation = Some(violation.status());
                    return Some(Close::Protocol);
                }
            }
        }
        if self.ignored_bytes > MAX_IGNORED_BYTES {
            self.violation = Some(Status::TooBig);
            return Some(Close::Protocol);
        }
        None
    }

    /// The last frame of a WebSocket that closes between two frames.
    pub(crate) fn farewell(&self, why: Option<Close>) -> Option<Vec<u8>> {
        if self.framing == Framing::Plain || !self.pending.is_empty() {
            return None;
        }
        let status = self.violation.unwrap_or(match why? {
            Close::Shutdown => Status::GoingAway,
            Close::Changed | Close::Lagging | Close::Stuck | Close::Failed => Status::TryAgainLater,
            Close::Ended | Close::Left | Close::Protocol => Status::Normal,
            Close::Revoked => Status::PolicyViolation,
        });
        Some(frame::close(status))
    }
}
