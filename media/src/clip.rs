//! The test clip of `testdata/` as frames on a room's timeline.
//!
//! In: `testdata/clip.flv`, through this crate's own FLV reader. Out: a configuration and frames, the
//! way the timeline would place them. Built for tests only.

use bytes::Bytes;

use crate::codec::{aac::AudioConfig, avc};
use crate::flv::reader::Reader;
use crate::flv::{Body, TagKind, audio, video};
use crate::frame::Frame;
use crate::manifest::{Config, TrackTimes};
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

/// One part of the clip: where it starts and ends, and its frames.
pub(crate) struct Cut {
    pub(crate) start: TrackTimes,
    pub(crate) end: TrackTimes,
    pub(crate) frames: Vec<Frame>,
}

/// Cuts frames into parts of six video frames' time, as a segmenter would: audio goes with the part in
/// whose time it starts.
pub(crate) fn cut(config: &Config, frames: &[Frame]) -> Vec<Cut> {
    let part_of = |f: &Frame| {
        let scale = u64::from(config.track(f.track).unwrap().timescale);
        f.dts * 5 / scale
    };
    let last = frames.iter().map(part_of).max().unwrap();
    let mut cuts = Vec::new();
    let mut start = TrackTimes { video: Some(0), audio: Some(0) };
    for number in 0..=last {
        let frames: Vec<_> = frames.iter().filter(|f| part_of(f) == number).cloned().collect();
        let mut end = TrackTimes::default();
        for frame in &frames {
            let length = match frame.track {
                TrackId::Video => VIDEO_FRAME,
                TrackId::Audio => AUDIO_FRAME,
            };
            end.set(frame.track, frame.dts + length);
        }
        cuts.push(Cut { start, end, frames });
        start.video = end.video.or(start.video);
        start.audio = end.audio.or(start.audio);
    }
    cuts
}

/// Runs ffprobe over a stream and returns its answer, one `key=value` a line. A complaint of any decoder
/// is a failure.
pub(crate) fn probe(stream: &[u8], entries: &str) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("ffprobe")
        .args(["-v", "warning", "-count_frames", "-count_packets", "-show_entries", entries])
        .args(["-of", "default=noprint_wrappers=1", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ffprobe is installed by `make setup`");
    // Its answer fits into the pipe, so it reads all of its input before anybody reads the answer.
    child.stdin.take().unwrap().write_all(stream).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "ffprobe: {complaints}");
    String::from_utf8(output.stdout).unwrap()
}
