//! A reader's place among the frames of a feed, strictly in order.

use std::sync::Arc;

use crate::frame::Frame;
use crate::manifest::{Config, Epoch, Msn, TrackTimes};

/// Where a cursor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the newest key frame here (any newest frame when there is no video): a full picture at
    /// once, at the price of up to one GOP of latency.
    LatestKey,
    /// After the newest frame; the reader waits for the next key frame by itself.
    NextKey,
}

/// The place of the next frame to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The segment.
    pub msn: Msn,
    /// The index of the frame in it.
    pub index: u32,
    /// The epoch that opened that segment, once it was read from. The same segment of another home
    /// is read from its start.
    pub(super) epoch: Option<Epoch>,
    /// The decode times of the last frames read. After a take-over of the stream by another home,
    /// frames come again that the earlier one had sent and not yet said to be a part.
    pub(super) seen: TrackTimes,
}

impl Cursor {
    /// A place that nothing was read at yet.
    #[must_use]
    pub fn at(msn: Msn, index: u32) -> Self {
        Self { msn, index, epoch: None, seen: TrackTimes::default() }
    }
}

/// A frame with what a muxer needs to know about its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// The frame.
    pub frame: Frame,
    /// The segment it belongs to.
    pub msn: Msn,
    /// The configuration it needs; compare by [`Config::id`] and tracks to see a change.
    pub config: Arc<Config>,
    /// Whether it is the first frame of a segment that follows a discontinuity.
    pub discontinuity: bool,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Frames in order; the cursor stands after the last.
    Frames(Vec<Timed>),
    /// Nothing new yet.
    Waiting,
    /// The segment at the cursor lacks bytes while a later one has some. A live reader waits a
    /// moment, then skips.
    Stalled,
    /// The segment at the cursor has left the feed: skip.
    Behind,
    /// The stream is over and everything was read.
    Ended,
}
