//! The test clip of `testdata/` as frames on a room's timeline.
//!
//! In: `testdata/clip.flv`, through this crate's own FLV reader. Out: a configuration and frames, the
//! way the timeline would place them. Built for tests only.

use bytes::Bytes;

use crate::codec::{aac::AudioConfig, avc};
use crate::flv::reader::Reader;
use crate::flv::{Body, TagKind, audio, video};
use crate::frame::Frame;
use crate::manifest::Config;
use crate::track::TrackId;

/// Ticks of a video frame: 30 fps.
pub(crate) const VIDEO_FRAME: u64 = 3_000;
/// Ticks of an audio frame.
pub(crate) const AUDIO_FRAME: u64 = 1_024;

pub(crate) const FLV: &[u8] = include_bytes!("../testdata/clip.flv");

/// The clip's configuration and its frames in arrival order.
pub(crate) fn clip() -> (Config, Vec<Frame>) {
    let mut reader = Reader::new();
    reader.push(FLV);
    let (mut tracks, mut frames, mut audio_frames) = (Vec::new(), Vec::new(), 0);
    while let Some(tag) = reader.next_tag().unwrap() {
        let body = match tag.kind {
            TagKind::Video => video::parse(&tag.body).unwrap(),
            TagKind::Audio => audio::parse(&tag.body).unwrap(),
            TagKind::Script => continue,
        };
        match (tag.kind, body) {
            (TagKind::Video, Body::SequenceHeader { config, .. }) => {
                tracks.push(avc::DecoderConfig::parse(&config).unwrap().track());
            }
            (TagKind::Audio, Body::SequenceHeader { config, .. }) => {
                tracks.push(AudioConfig::parse(&config).unwrap().track());
            }
            (TagKind::Video, Body::Frame { cts_ms, payload, .. }) => frames.push(Frame {
                track: TrackId::Video,
                dts: on_grid(u64::from(tag.timestamp_ms)),
                cts: on_grid(cts_ms as u64) as i32,
                key: avc::is_key(&payload).unwrap(),
                payload,
            }),
            (TagKind::Audio, Body::Frame { payload, .. }) => {
                let dts = audio_frames * AUDIO_FRAME;
                audio_frames += 1;
                frames.push(Frame { track: TrackId::Audio, dts, cts: 0, key: true, payload });
            }
            _ => {}
        }
    }
    tracks.sort_by_key(|t| t.id);
    (Config { id: 1, tracks }, frames)
}

fn on_grid(ms: u64) -> u64 {
    (ms * 90 + VIDEO_FRAME / 2) / VIDEO_FRAME * VIDEO_FRAME
}

/// Only one of the clip's tracks.
pub(crate) fn only(track: TrackId) -> (Config, Vec<Frame>) {
    let (mut config, mut frames) = clip();
    config.tracks.retain(|t| t.id == track);
    frames.retain(|f| f.track == track);
    (config, frames)
}

/// A payload that is a frame of nothing, for tests that never decode.
pub(crate) fn blank(len: usize) -> Bytes {
    Bytes::from(vec![0x5a; len])
}
