//! A published part: its frames, and its fMP4 form rendered once on first demand.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::error::Error;
use crate::fmp4;
use crate::frame::Frame;
use crate::manifest::{Config, Epoch, PartMeta, TrackTimes};

/// A part whose bytes are all here. Shared by all readers of an edge.
#[derive(Debug)]
pub struct Part {
    /// The epoch its name carries.
    pub epoch: Epoch,
    /// What the manifest says of it.
    pub meta: PartMeta,
    /// Where it starts on each track's clock.
    pub start: TrackTimes,
    /// The configuration of its samples.
    pub config: Arc<Config>,
    /// Its frames in arrival order.
    pub frames: Vec<Frame>,
    fmp4: OnceLock<Result<Bytes, Error>>,
}

impl Part {
    pub(super) fn new(
        epoch: Epoch,
        meta: PartMeta,
        start: TrackTimes,
        config: Arc<Config>,
        frames: Vec<Frame>,
    ) -> Self {
        Self { epoch, meta, start, config, frames, fmp4: OnceLock::new() }
    }

    /// The CMAF chunk (`moof` and `mdat`) of this part; rendered at most once.
    ///
    /// # Errors
    /// When the frames cannot be expressed; the home's segmenter never produces such.
    pub fn fmp4(&self) -> Result<Bytes, Error> {
        self.fmp4
            .get_or_init(|| {
                fmp4::part(&self.config, self.meta.part, self.start, self.meta.end, &self.frames)
            })
            .clone()
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.meta == other.meta && self.frames == other.frames
    }
}
impl Eq for Part {}
