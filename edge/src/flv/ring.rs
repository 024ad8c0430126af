//! The chunks of a room that viewers may still need: the GOP cache, and a little more for those who
//! lag. Pure.
//!
//! In: chunks in order. Out: chunks by sequence number, where to join, where to skip to. Cloning is
//! cheap: chunks are shared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::chunk::{Chunk, Preamble};
use super::cursor::{MAX_LAG, MAX_LAG_BYTES};
use crate::metrics::Close;

/// How long chunks before the newest key chunk stay: a viewer that lags more is moved on anyway.
const KEEP: Duration = MAX_LAG.saturating_add(Duration::from_secs(1));

/// Bytes of chunks kept at most, 10 s of a 25 Mbit/s stream. A GOP longer than that cannot be joined
/// in the middle: who comes waits for the next key frame.
pub(super) const MAX_RING_BYTES: u64 = 32 << 20;

/// A window of chunks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ring {
    chunks: VecDeque<Arc<Chunk>>,
    next: u64,
    end_offset: u64,
    key: Option<u64>,
    preamble: Option<Arc<Preamble>>,
    ended: Option<Close>,
}

impl Ring {
    /// Adds the next chunk and drops what nobody needs.
    pub(super) fn push(&mut self, chunk: Chunk, now: Instant) {
        debug_assert_eq!(chunk.sequence, self.next);
        self.next = chunk.sequence + 1;
        self.end_offset = chunk.offset + chunk.len() as u64;
        self.preamble = Some(Arc::clone(&chunk.preamble));
        if chunk.key {
            self.key = Some(chunk.sequence);
        }
        self.chunks.push_back(Arc::new(chunk));
        let key = self.key.unwrap_or(self.next);
        while let Some(oldest) = self.chunks.front() {
            let bytes = self.end_offset - oldest.offset;
            let expired = oldest.sequence < key
                && (now.saturating_duration_since(oldest.made) > KEEP || bytes > 2 * MAX_LAG_BYTES);
            if !expired && bytes <= MAX_RING_BYTES {
                break;
            }
            if self.key == Some(oldest.sequence) {
                self.key = None;
            }
            self.chunks.pop_front();
        }
    }

    /// Nothing follows.
    pub(super) fn end(&mut self, why: Close) {
        self.ended.get_or_insert(why);
    }

    /// Why nothing follows, if nothing does.
    pub(crate) fn ended(&self) -> Option<Close> {
        self.ended
    }

    /// What the newest chunk needs; none before the first.
    pub(super) fn preamble(&self) -> Option<&Arc<Preamble>> {
        self.preamble.as_ref()
    }

    /// The chunk with this number.
    pub(super) fn get(&self, sequence: u64) -> Option<&Arc<Chunk>> {
        let first = self.chunks.front()?.sequence;
        self.chunks.get(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// The number the next chunk will have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The newest chunk at which decoding can start.
    pub(super) fn newest_key(&self) -> Option<u64> {
        self.key
    }

    /// Bytes from the start of `chunk` to the end of the newest.
    pub(super) fn bytes_from(&self, chunk: &Chunk) -> u64 {
        self.end_offset - chunk.offset
    }
}
