//! Tag bodies as publishers send them, and streams as viewers read them.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::reader::{Reader, Tag};
use super::{Body, TagKind, audio, video, writer};
use crate::amf0::{self, Amf0};
use crate::clip;
use crate::codec::{Codec, avc};
use crate::error::Error;
use crate::frame::Frame;
use crate::manifest::Config;
use crate::track::{Track, TrackId};

fn body(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}

fn video_of(parts: &[&[u8]]) -> Body {
    video::parse(&body(parts)).unwrap()
}

fn audio_of(parts: &[&[u8]]) -> Body {
    audio::parse(&body(parts)).unwrap()
}

fn avc_frame(key_flag: bool, cts_ms: i32, payload: &'static [u8]) -> Body {
    Body::Frame { codec: Codec::Avc, key_flag, cts_ms, payload: Bytes::from_static(payload) }
}

fn config(codec: Codec, config: &'static [u8]) -> Body {
    Body::SequenceHeader { codec, config: Bytes::from_static(config) }
}

#[test]
fn legacy_video() {
    assert_eq!(video_of(&[&[0x17, 0, 0, 0, 0], b"avcC"]), config(Codec::Avc, b"avcC"));
    assert_eq!(video_of(&[&[0x17, 1, 0, 0, 80], b"nalu"]), avc_frame(true, 80, b"nalu"));
    assert_eq!(video_of(&[&[0x27, 1, 0xff, 0xff, 0xd8], b"n"]), avc_frame(false, -40, b"n"));
    assert_eq!(video_of(&[&[0x17, 2, 0, 0, 0]]), Body::EndOfSequence);
    assert_eq!(video_of(&[&[0x27, 1, 0, 0, 0]]), Body::Ignored("an empty frame"));
    assert_eq!(video_of(&[&[0x57, 0]]), Body::Ignored("a video command"));
    assert_eq!(video_of(&[&[0x12, 0]]), Body::Unsupported { codec: "Sorenson H.263" });
    assert_eq!(video_of(&[&[0x1c, 0, 0, 0, 0], b"hvcC"]), Body::Unsupported { codec: "h265" });
}

#[test]
fn enhanced_video_means_the_same() {
    assert_eq!(video_of(&[&[0x90], b"avc1avcC"]), config(Codec::Avc, b"avcC"));
    assert_eq!(video_of(&[&[0x91], b"avc1", &[0, 0, 80], b"nalu"]), avc_frame(true, 80, b"nalu"));
    assert_eq!(video_of(&[&[0xa3], b"avc1nalu"]), avc_frame(false, 0, b"nalu"));
    assert_eq!(video_of(&[&[0x92], b"avc1"]), Body::EndOfSequence);
    // As ffmpeg and OBS send them for codecs that are not carried.
    assert_eq!(video_of(&[&[0x90], b"hvc1hvcC"]), Body::Unsupported { codec: "h265" });
    assert_eq!(video_of(&[&[0x91], b"av01obus"]), Body::Unsupported { codec: "av1" });
    assert_eq!(video_of(&[&[0x90], b"vvc1"]), Body::Unsupported { codec: "h266" });
    assert_eq!(
        video_of(&[&[0xd4], b"hvc1", &[2, 0, 9], b"colorInfo"]),
        Body::Ignored("video metadata")
    );
    assert_eq!(video_of(&[&[0xd0, 0]]), Body::Ignored("a video command"));
    assert_eq!(video_of(&[&[0x98], b"avc1"]), Body::Ignored("a reserved video packet type"));
}

#[test]
fn prefixes_are_passed_over() {
    // Nanosecond offset of three bytes, then coded frames without composition time.
    let with_prefix: &[&[u8]] = &[&[0x97, 2, 0, 1, 2, 0x03], b"avc1nalu"];
    assert_eq!(video_of(with_prefix), avc_frame(true, 0, b"nalu"));
    // 255 announces a 16-bit size.
    let long = [&[0x97, 255, 1, 0][..], &[9; 257], &[0x00], b"avc1avcC"].concat();
    assert_eq!(video::parse(&Bytes::from(long)).unwrap(), config(Codec::Avc, b"avcC"));
    let audio: &[&[u8]] = &[&[0x97, 0, 7, 0x07, 0, 7, 0x01], b"mp4aframe"];
    assert!(matches!(audio_of(audio), Body::Frame { codec: Codec::Aac, .. }));
    assert!(matches!(
        video::parse(&body(&[&[0x97, 255, 0xff, 0xff, 1]])),
        Err(Error::Truncated { .. })
    ));
}

#[test]
fn of_many_tracks_the_first_counts() {
    // One track, number 1, as ffmpeg sends a second H.264 track.
    assert_eq!(
        video_of(&[&[0x96, 0x00], b"avc1", &[1], b"avcC"]),
        Body::Ignored("tracks other than 0")
    );
    assert_eq!(video_of(&[&[0x96, 0x00], b"avc1", &[0], b"avcC"]), config(Codec::Avc, b"avcC"));
    // Many tracks of one codec.
    let many: &[&[u8]] =
        &[&[0x96, 0x13], b"avc1", &[1, 0, 0, 3], b"abc", &[0, 0, 0, 4], b"nalu", &[2, 0, 0, 0]];
    assert_eq!(video_of(many), avc_frame(true, 0, b"nalu"));
    // Many tracks, many codecs.
    let mixed: &[&[u8]] =
        &[&[0x96, 0x20], b"av01", &[1, 0, 0, 1], b"x", b"avc1", &[0, 0, 0, 4], b"avcC"];
    assert_eq!(video_of(mixed), config(Codec::Avc, b"avcC"));
    assert_eq!(
        audio_of(&[&[0x95, 0x00], b"mp4a", &[1], b"asc"]),
        Body::Ignored("tracks other than 0")
    );
    for bad in [&[0x96, 0x36][..], &[0x96, 0x17], &[0x96, 0x33]] {
        assert!(matches!(video::parse(&body(&[bad])), Err(Error::Invalid { .. })), "{bad:x?}");
    }
    // A track's size past the end of the message.
    let cut: &[&[u8]] = &[&[0x96, 0x13], b"avc1", &[0, 0xff, 0xff, 0xff], b"abc"];
    assert_eq!(video::parse(&body(cut)), Err(Error::Truncated { what: "enhanced video tag" }));
}

#[test]
fn audio_bodies() {
    assert_eq!(audio_of(&[]), Body::Ignored("silence"));
    assert_eq!(audio_of(&[&[0xaf, 0, 0x12, 0x10]]), config(Codec::Aac, &[0x12, 0x10]));
    let frame = Body::Frame {
        codec: Codec::Aac,
        key_flag: true,
        cts_ms: 0,
        payload: Bytes::from_static(b"raw"),
    };
    assert_eq!(audio_of(&[&[0xaf, 1], b"raw"]), frame);
    assert_eq!(audio_of(&[&[0x91], b"mp4araw"]), frame);
    assert_eq!(audio_of(&[&[0x90], b"mp4a", &[0x12, 0x10]]), config(Codec::Aac, &[0x12, 0x10]));
    assert_eq!(
        audio_of(&[&[0x94], b"Opus", &[1, 1, 0, 0, 0, 4]]),
        Body::Ignored("a multichannel layout")
    );
    assert_eq!(audio_of(&[&[0x91], b"Opusx"]), Body::Unsupported { codec: "opus" });
    assert_eq!(audio_of(&[&[0x91], b"ec-3x"]), Body::Unsupported { codec: "E-AC-3" });
    assert_eq!(audio_of(&[&[0x2f, 0xff]]), Body::Unsupported { codec: "mp3" });
    assert_eq!(audio_of(&[&[0xb2, 0]]), Body::Unsupported { codec: "Speex" });
    assert_eq!(audio_of(&[&[0x92], b"mp4a"]), Body::EndOfSequence);
    assert!(matches!(audio::parse(&body(&[&[0xaf]])), Err(Error::Truncated { .. })));
    assert!(matches!(audio::parse(&body(&[&[0xaf, 7]])), Err(Error::Invalid { .. })));
}

#[test]
fn payloads_are_views() {
    let message = body(&[&[0x17, 1, 0, 0, 0], &[7; 100]]);
    let Body::Frame { payload, .. } = video::parse(&message).unwrap() else { panic!() };
    assert_eq!(payload.as_ptr(), message[5..].as_ptr());
}

/// Reads all tags of a stream.
fn tags(stream: &[u8]) -> Vec<Tag> {
    let mut reader = Reader::new();
    let mut tags = Vec::new();
    for piece in stream.chunks(7) {
        reader.push(piece);
        while let Some(tag) = reader.next_tag().unwrap() {
            tags.push(tag);
        }
    }
    tags
}

fn written(config: &Config, frames: &[Frame]) -> Bytes {
    let len = writer::preamble_len(config, Some(29_970))
        + frames.iter().map(writer::tag_len).sum::<usize>();
    let mut out = BytesMut::with_capacity(len);
    let buffer = out.as_ptr();
    writer::write_preamble(&mut out, config, Some(29_970), 5).unwrap();
    for frame in frames {
        writer::write_tag(&mut out, config.track(frame.track).unwrap(), frame).unwrap();
    }
    assert_eq!((out.len(), out.as_ptr()), (len, buffer), "sized up front, never moved");
    out.freeze()
}

#[test]
fn what_is_written_reads_back() {
    let (config, frames) = clip::clip();
    let stream = written(&config, &frames);
    assert_eq!(&stream[..13], b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00");
    let tags = tags(&stream);
    let times: Vec<_> = tags[..3].iter().map(|t| t.timestamp_ms).collect();
    assert_eq!(times, [0, 5, 5], "metadata at 0, configurations at the first media time");
    let headers: Vec<_> = tags[1..3].iter().map(|t| (t.kind, t.body[0], t.body[1])).collect();
    assert_eq!(headers, [(TagKind::Video, 0x17, 0), (TagKind::Audio, 0xaf, 0)]);
    for (tag, frame) in tags[3..].iter().zip(&frames) {
        let track = config.track(frame.track).unwrap();
        assert_eq!(tag.timestamp_ms, writer::timestamp_ms(track, frame.dts));
        let parsed = match frame.track {
            TrackId::Video => video::parse(&tag.body),
            TrackId::Audio => audio::parse(&tag.body),
        };
        let Body::Frame { key_flag, cts_ms, payload, .. } = parsed.unwrap() else { panic!() };
        assert_eq!((key_flag, payload), (frame.key, frame.payload.clone()));
        assert!((i64::from(cts_ms) * 90 - i64::from(frame.cts)).abs() < 90);
    }
    assert_eq!(tags.len(), frames.len() + 3);
}

#[test]
fn flags_and_metadata_are_truthful() {
    for (track, flags) in [(TrackId::Video, 1), (TrackId::Audio, 4)] {
        let (config, _) = clip::only(track);
        let stream = written(&config, &[]);
        assert_eq!(stream[4], flags);
        let tags = tags(&stream);
        assert_eq!(tags.len(), 2, "metadata and one sequence header");
        let values = amf0::read_all(&tags[0].body).unwrap();
        assert_eq!(values[0].as_str(), Some("onMetaData"));
        let has = |name: &str| values[1].get(name).cloned();
        assert_eq!(has("hasVideo"), Some(Amf0::Boolean(track == TrackId::Video)));
        assert_eq!(has("hasAudio"), Some(Amf0::Boolean(track == TrackId::Audio)));
        assert_eq!(has("width").is_some(), track == TrackId::Video);
        assert_eq!(has("duration"), None);
        if track == TrackId::Video {
            assert_eq!(has("framerate"), Some(Amf0::Number(29.97)));
            assert_eq!(has("videocodecid"), Some(Amf0::Number(7.0)));
        } else {
            assert_eq!(has("audiosamplerate"), Some(Amf0::Number(48_000.0)));
        }
    }
}

#[test]
fn old_rooms_play_on() {
    let (config, _) = clip::clip();
    let track = config.track(TrackId::Video).unwrap();
    let tag_at = |ms: u64, cts: i32| {
        let frame =
            Frame { track: TrackId::Video, dts: ms * 90, cts, key: true, payload: clip::blank(3) };
        let mut out = BytesMut::new();
        out.put_slice(b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00");
        writer::write_tag(&mut out, track, &frame).unwrap();
        tags(&out).remove(0)
    };
    for ms in [0, 1 << 24, (1 << 31) + 7, (1 << 32) - 1] {
        assert_eq!(u64::from(tag_at(ms, 0).timestamp_ms), ms);
    }
    assert_eq!(tag_at((1 << 32) + 40, 0).timestamp_ms, 40, "the format's own wrap");
    let cts = |ticks| match video::parse(&tag_at(1000, ticks).body).unwrap() {
        Body::Frame { cts_ms, .. } => cts_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!((cts(7200), cts(-3600)), (80, -40));
    assert_eq!(cts(i32::MAX), 0x7f_ffff, "what 24 bits cannot say is said as nearly as they can");
}

#[test]
fn times_are_rounded_not_cut() {
    let track = |timescale| Track { timescale, ..clip::clip().0.tracks[0].clone() };
    // 30 fps: 33.3, 66.7, 100.
    let times: Vec<_> =
        [3000, 6000, 9000].map(|t| writer::timestamp_ms(&track(90_000), t)).to_vec();
    assert_eq!(times, [33, 67, 100]);
    assert_eq!(writer::timestamp_ms(&track(44_100), 1024), 23);
    let _ = writer::timestamp_ms(&track(1), u64::MAX); // does not overflow
}

#[test]
fn a_body_too_large_for_the_format_is_refused_whole() {
    let (config, _) = clip::clip();
    let frame = Frame {
        track: TrackId::Video,
        dts: 0,
        cts: 0,
        key: true,
        payload: clip::blank(super::MAX_BODY_BYTES - 4),
    };
    let mut out = BytesMut::new();
    let error = writer::write_tag(&mut out, &config.tracks[0], &frame).unwrap_err();
    assert_eq!((error.reason(), out.len()), ("too_large", 0));
}

#[test]
fn streams_that_are_no_flv_are_refused() {
    let refuse = |bytes: &[u8]| {
        let mut reader = Reader::new();
        reader.push(bytes);
        loop {
            match reader.next_tag() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(error.to_string()),
            }
        }
    };
    assert_eq!(refuse(clip::FLV), None);
    assert!(refuse(b"GET / HTTP/1.1\r\n").unwrap().contains("no FLV"));
    let mut wrong = clip::FLV.to_vec();
    wrong[13] = 7;
    assert!(refuse(&wrong).unwrap().contains("tag type 7"));
    wrong[13] = 9;
    wrong[14] = 0xff;
    assert!(refuse(&wrong).unwrap().contains("over the limit"));
    let mut wrong = clip::FLV.to_vec();
    let size = u32::from_be_bytes([0, wrong[14], wrong[15], wrong[16]]) as usize;
    wrong[13 + 11 + size] = 1;
    assert!(refuse(&wrong).unwrap().contains("previous tag size"));
}

proptest! {
    #[test]
    fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let message = Bytes::from(bytes);
        for parsed in [video::parse(&message), audio::parse(&message)] {
            if let Ok(Body::Frame { payload, .. }) = parsed {
                prop_assert!(!payload.is_empty());
                let _ = avc::is_key(&payload);
            }
        }
    }
}
