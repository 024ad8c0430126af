//! Fragmented MP4 (ISO/IEC 14496-12): the init segment of a configuration, and parts.
//!
//! In: a [`Config`], frames and the numbers the manifest gives them. Out: the bytes HLS players fetch.
//! A part is one `moof` and its `mdat`; a segment is the concatenation of its parts, so nothing here
//! joins them. Equal input gives equal bytes in every build that knows the render version; golden
//! files hold that.

mod boxes;
mod init;
mod part;

use bytes::Bytes;

pub use init::init;
pub use part::part;

use crate::manifest::Config;
use crate::track::TrackId;

/// The URL name of an init segment, `init-{hash}.mp4`: 64 bits of the SHA-1 of its bytes, so that one
/// name never means two contents whatever home, epoch or build rendered it.
#[must_use]
pub fn init_name(init: &Bytes) -> String {
    let digest = sha1_smol::Sha1::from(init).digest().bytes();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    format!("init-{:016x}.mp4", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// The media type of init segments, parts and segments of this configuration.
#[must_use]
pub fn content_type(config: &Config) -> &'static str {
    if config.track(TrackId::Video).is_some() { "video/mp4" } else { "audio/mp4" }
}

/// The `track_ID` of a track, the same whatever other tracks there are.
fn track_number(track: TrackId) -> u32 {
    match track {
        TrackId::Video => 1,
        TrackId::Audio => 2,
    }
}

#[cfg(test)]
mod tests;
