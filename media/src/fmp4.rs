//! Fragmented MP4 (ISO/IEC 14496-12, CMAF): init segments and parts, from the manifest and frames.

use bytes::Bytes;

use crate::error::Error;
use crate::frame::Frame;
use crate::manifest::{Config, PartNumber, TrackTimes};

/// Placeholder until the box writer lands.
///
/// # Errors
/// Always, for now.
pub fn part(
    _config: &Config,
    _number: PartNumber,
    _start: TrackTimes,
    _end: TrackTimes,
    _frames: &[Frame],
) -> Result<Bytes, Error> {
    Err(Error::Unsupported { what: "fmp4", name: "part".into() })
}
