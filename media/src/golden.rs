//! The exact bytes that this build's render version stands for.
//!
//! In: the test clip. Out: comparison with the files under `testdata/render-N/`, byte for byte. Two
//! edges of different builds serve the same viewer, so a change here is a new render version, never a
//! new golden file for an old one. `TIDEWATER_BLESS=1` writes the files of a version in the making.

use std::path::Path;

use bytes::{Bytes, BytesMut};

use crate::clip::{self, cut};
use crate::flv::writer;
use crate::fmp4;
use crate::manifest::{
    Config, Constants, Entry, Epoch, Header, Manifest, Msn, PartEnd, PartNumber, RENDER_VERSION,
    SegmentClose, SegmentOpen, TrackTimes, WindowStart,
};
use crate::playlist::{self, Form};
use crate::track::TrackId;

/// 2026-11-22T12:34:56.789Z.
const ANCHOR_MS: u64 = 1_795_350_896_789;

#[expect(clippy::disallowed_methods, reason = "golden files are read, and written when asked for")]
fn golden(name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(format!("render-{RENDER_VERSION}"));
    let path = folder.join(name);
    if std::env::var_os("TIDEWATER_BLESS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let expected = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let differs = expected.iter().zip(bytes).position(|(a, b)| a != b);
    let same = differs.is_none() && expected.len() == bytes.len();
    assert!(
        same,
        "{name} is no longer what render version {RENDER_VERSION} stands for: {} bytes, was {}, \
         first difference at {differs:?}",
        bytes.len(),
        expected.len()
    );
}

#[test]
fn init_segments_and_parts() {
    for (name, (config, frames)) in [
        ("av", clip::clip()),
        ("video", clip::only(TrackId::Video)),
        ("audio", clip::only(TrackId::Audio)),
    ] {
        let init = fmp4::init(&config).unwrap();
        golden(&format!("{name}-init.mp4"), &init);
        golden(&format!("{name}-init-name.txt"), fmp4::init_name(&init).as_bytes());
        let c = &cut(&config, &frames)[1];
        let part = fmp4::part(&config, PartNumber(4_294_967_298), c.start, c.end, &c.frames);
        golden(&format!("{name}-part.m4s"), &part.unwrap());
    }
}

#[test]
fn flv() {
    let (config, frames) = clip::clip();
    let mut out = BytesMut::new();
    writer::write_preamble(&mut out, &config, Some(30_000), 0).unwrap();
    for frame in &frames[..40] {
        writer::write_tag(&mut out, config.track(frame.track).unwrap(), frame).unwrap();
    }
    golden("stream.flv", &out);
}

#[test]
fn playlists() {
    let manifest = manifest();
    golden("main.m3u8", playlist::media(&manifest, Form::Full).unwrap().as_bytes());
    golden("main-delta.m3u8", playlist::media(&manifest, Form::Delta).unwrap().as_bytes());
    let index = playlist::multivariant(&manifest, "c", Some("token=t")).unwrap();
    golden("index.m3u8", index.as_bytes());
    let mut ended = manifest;
    ended.apply(&Entry::End).unwrap();
    golden("main-ended.m3u8", playlist::media(&ended, Form::Full).unwrap().as_bytes());
}

/// Twenty segments under two epochs with a discontinuity between them, one cut without a key frame, and
/// an open one.
fn manifest() -> Manifest {
    let (config, _) = clip::clip();
    let mut audio = clip::only(TrackId::Audio).0;
    audio.id = 2;
    let header = |epoch| Header {
        epoch: Epoch(epoch),
        generation: 5,
        render_version: RENDER_VERSION,
        constants: Some(Constants { target_duration_s: 2, part_target_ms: 211 }),
        bandwidth_bps: 2_345_678,
        average_bandwidth_bps: 2_100_001,
        frame_rate_milli: Some(29_970),
    };
    let mut m = Manifest::new(header(41));
    let mut say = |entry: Entry| m.apply(&entry).unwrap();
    say(Entry::Config(config.clone()));
    say(Entry::Window(WindowStart { first: Msn(9_000), discontinuity_sequence: 12 }));
    let (mut part, mut ticks) = (PartNumber(70_000), 0);
    for index in 0..21 {
        let epoch = if index < 10 { 41 } else { 57 };
        if index == 10 {
            say(Entry::Header(header(57)));
        }
        if index == 18 {
            say(Entry::Config(Config::clone(&audio)));
        }
        let msn = Msn(9_000 + index);
        say(Entry::Open(SegmentOpen {
            msn,
            epoch: Epoch(epoch),
            config: if index < 18 { 1 } else { 2 },
            discontinuity: index == 10 || index == 18,
            pdt_ms: ANCHOR_MS + ticks / 90 + if index < 10 { 0 } else { 1_500 },
            start: TrackTimes { video: Some(ticks), audio: None },
            first_part: part,
        }));
        let from = ticks;
        let last = if index == 20 { 3 } else { 5 };
        for piece in 0..last {
            ticks += 18_018;
            let end = TrackTimes { video: Some(ticks), audio: None };
            say(Entry::Part(PartEnd {
                msn,
                part,
                frames_end: 6 * (piece + 1),
                duration: 18_018,
                independent: piece == 0 && index != 15,
                end,
            }));
            part = part.next();
        }
        if index < 20 {
            say(Entry::Close(SegmentClose { msn, duration: (ticks - from) as u32 }));
        }
    }
    say(Entry::Window(WindowStart { first: Msn(9_003), discontinuity_sequence: 12 }));
    m
}

#[test]
fn a_stream_of_parts_is_what_the_frames_were() {
    // Guards the golden files themselves: they must describe media that plays.
    let (config, frames) = clip::clip();
    let mut out = BytesMut::new();
    writer::write_preamble(&mut out, &config, Some(30_000), 0).unwrap();
    for frame in &frames {
        writer::write_tag(&mut out, config.track(frame.track).unwrap(), frame).unwrap();
    }
    let stream: Bytes = out.freeze();
    let answer = clip::probe(&stream, "stream=codec_name,nb_read_frames");
    assert_eq!(answer, "codec_name=h264\nnb_read_frames=60\ncodec_name=aac\nnb_read_frames=95\n");
}
