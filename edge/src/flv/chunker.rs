//! Collects frames into chunks. Pure: time comes in as an argument.
//!
//! In: frames in the order of the feed. Out: [`Chunk`]s, closed where a key frame or another
//! configuration begins, where one is full, and where the caller says so.

use std::collections::VecDeque;
use std::sync::Arc;

use media::feed::Timed;
use media::flv::writer;
use media::manifest::{Config, TrackTimes};
use media::track::TrackId;
use tokio::time::Instant;

use super::chunk::{Chunk, FrameBuffer, Preamble};

/// A chunk goes out when it has this many bytes, whatever the flush interval: at 25 Mbit/s after
/// 80 ms. It holds at least one frame, however large.
const FULL_BYTES: usize = 256 * 1024;

/// Why the stream cannot go on in one FLV response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// There are other tracks than before, or another codec in one: players fix both at the start.
    Tracks,
    /// Time went back: the room began anew without its past.
    Timeline,
    /// A frame or configuration has no FLV form.
    Unwritable(media::Error),
}

/// The chunk being collected, and what it follows.
#[derive(Debug)]
pub(super) struct Chunker {
    finished: VecDeque<Chunk>,
    open: Option<Open>,
    preamble: Option<Arc<Preamble>>,
    last: TrackTimes,
    /// Frames are passed over until decoding can start.
    needs_key: bool,
    sequence: u64,
    offset: u64,
}

#[derive(Debug)]
struct Open {
    buffer: FrameBuffer,
    key: bool,
    timestamp_ms: u32,
}

impl Chunker {
    pub(super) fn new() -> Self {
        Self {
            finished: VecDeque::new(),
            open: None,
            preamble: None,
            last: TrackTimes::default(),
            needs_key: true,
            sequence: 0,
            offset: 0,
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// When no viewer's response can go on with it. What came before stays as it is.
    pub(super) fn push(
        &mut self,
        timed: &Timed,
        frame_rate_milli: Option<u32>,
        now: Instant,
    ) -> Result<(), Broken> {
        let frame = &timed.frame;
        let preamble = self.preamble_for(&timed.config, frame_rate_milli, now)?;
        if self.last.get(frame.track).is_some_and(|last| frame.dts < last) {
            return Err(Broken::Timeline);
        }
        self.last.set(frame.track, frame.dts);
        let has_video = timed.config.track(TrackId::Video).is_some();
        let key = frame.key && (frame.track == TrackId::Video || !has_video);
        if self.needs_key && !key {
            return Ok(());
        }
        self.needs_key = false;
        let Some(track) = timed.config.track(frame.track) else { return Ok(()) };
        // Without video every frame is a key frame, and a chunk may hold many.
        if (key && has_video) || self.open.as_ref().is_some_and(|o| o.buffer.len() >= FULL_BYTES) {
            self.seal(now);
        }
        let open = self.open.get_or_insert_with(|| Open {
            buffer: FrameBuffer::with_capacity(writer::tag_len(frame)),
            key,
            timestamp_ms: writer::timestamp_ms(track, frame.dts),
        });
        debug_assert!(Arc::ptr_eq(self.preamble.as_ref().unwrap_or(&preamble), &preamble));
        open.buffer.tags().reserve(writer::tag_len(frame));
        writer::write_tag(open.buffer.tags(), track, frame).map_err(Broken::Unwritable)
    }

    /// The frames that follow come after a gap: passes over what cannot be decoded.
    pub(super) fn jump(&mut self) {
        self.needs_key = true;
    }

    /// Whether no frame waits in the open chunk.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// Closes the open chunk, if there is one.
    pub(super) fn seal(&mut self, now: Instant) {
        let (Some(open), Some(preamble)) = (self.open.take(), &self.preamble) else { return };
        let chunk = Chunk::new(
            (self.sequence, self.offset),
            (open.key, open.timestamp_ms),
            Arc::clone(preamble),
            now,
            open.buffer.finish(),
        );
        self.sequence += 1;
        self.offset += chunk.len() as u64;
        self.finished.push_back(chunk);
    }

    /// Takes the closed chunks.
    pub(super) fn finished(&mut self) -> impl Iterator<Item = Chunk> + '_ {
        self.finished.drain(..)
    }

    /// The preamble for frames of `config`; another one closes the open chunk.
    fn preamble_for(
        &mut self,
        config: &Arc<Config>,
        frame_rate_milli: Option<u32>,
        now: Instant,
    ) -> Result<Arc<Preamble>, Broken> {
        let generation = match &self.preamble {
            None => 0,
            Some(now) if Arc::ptr_eq(&now.config, config) || now.config.tracks == config.tracks => {
                return Ok(Arc::clone(now));
            }
            Some(now) if kinds(&now.config) != kinds(config) => return Err(Broken::Tracks),
            Some(now) => now.generation + 1,
        };
        self.seal(now);
        let preamble = Preamble::new(generation, Arc::clone(config), frame_rate_milli)
            .map(Arc::new)
            .map_err(Broken::Unwritable)?;
        self.preamble = Some(Arc::clone(&preamble));
        Ok(preamble)
    }
}

/// What a player fixes when it begins.
fn kinds(config: &Config) -> Vec<(TrackId, media::codec::Codec)> {
    config.tracks.iter().map(|t| (t.id, t.codec)).collect()
}
