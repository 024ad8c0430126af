//! Init segments and parts, held against another parser and against real decoders.

use bytes::{Bytes, BytesMut};
use mp4_atom::{Any, Decode, Moof, ReadFrom};

use super::*;
use crate::clip::{self, cut};
use crate::codec::Codec;
use crate::error::Error;
use crate::frame::Frame;
use crate::manifest::{PartNumber, TrackTimes};
use crate::track::{Params, Track};

/// Init segment and parts, one after the other: what a player appends.
fn stream(config: &Config, frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::from(&init(config).unwrap()[..]);
    for (number, c) in cut(config, frames).iter().enumerate() {
        let number = PartNumber(number as u64);
        out.extend_from_slice(&part(config, number, c.start, c.end, &c.frames).unwrap());
    }
    out.freeze()
}

fn boxes(mut bytes: &[u8]) -> Vec<Any> {
    let mut found = Vec::new();
    while let Some(any) = Option::<Any>::read_from(&mut bytes).unwrap() {
        found.push(any);
    }
    found
}

#[test]
fn decoders_play_it_without_a_word() {
    let entries = "stream=codec_name,profile,width,height,sample_rate,channels,time_base,\
                   nb_read_frames,start_pts";
    let (config, frames) = clip::clip();
    let answer = clip::probe(&stream(&config, &frames), entries);
    for line in [
        "codec_name=h264",
        "profile=Main",
        "width=160",
        "height=90",
        "time_base=1/90000",
        "nb_read_frames=60",
        "start_pts=6000",
        "codec_name=aac",
        "sample_rate=48000",
        "channels=1",
        "time_base=1/48000",
        "nb_read_frames=95",
        "start_pts=0",
    ] {
        assert!(answer.lines().any(|l| l == line), "{line}\n{answer}");
    }
}

#[test]
fn one_track_alone_plays_too() {
    for (track, codec, count) in [(TrackId::Video, "h264", 60), (TrackId::Audio, "aac", 95)] {
        let (config, frames) = clip::only(track);
        let answer = clip::probe(&stream(&config, &frames), "stream=codec_name,nb_read_frames");
        assert_eq!(answer, format!("codec_name={codec}\nnb_read_frames={count}\n"));
    }
    assert_eq!(content_type(&clip::clip().0), "video/mp4");
    assert_eq!(content_type(&clip::only(TrackId::Audio).0), "audio/mp4");
}

#[test]
fn a_later_part_plays_behind_the_init_segment_alone() {
    let (config, frames) = clip::clip();
    let cuts = cut(&config, &frames);
    let mut bytes = BytesMut::from(&init(&config).unwrap()[..]);
    for c in &cuts[5..] {
        // The second GOP of the clip begins with part 5.
        bytes.extend_from_slice(&part(&config, PartNumber(5), c.start, c.end, &c.frames).unwrap());
    }
    let answer = clip::probe(&bytes, "stream=codec_name,nb_read_frames,start_time");
    assert!(answer.contains("start_time=1.066667\nnb_read_frames=30"), "{answer}");
}

#[test]
fn the_init_segment_says_what_the_tracks_are() {
    let (config, _) = clip::clip();
    let init = init(&config).unwrap();
    let found = boxes(&init);
    let [Any::Ftyp(_), Any::Moov(moov)] = &found[..] else { panic!("{found:?}") };
    let [video, audio] = &moov.trak[..] else { panic!() };
    assert_eq!((video.tkhd.track_id, audio.tkhd.track_id), (1, 2));
    assert_eq!((video.mdia.mdhd.timescale, audio.mdia.mdhd.timescale), (90_000, 48_000));
    assert!(moov.trak.iter().all(|t| t.mdia.minf.stbl.stts.entries.is_empty()));
    let mp4_atom::Codec::Avc1(avc1) = &video.mdia.minf.stbl.stsd.codecs[0] else { panic!() };
    assert_eq!((avc1.visual.width, avc1.visual.height, avc1.avcc.length_size), (160, 90, 4));
    let mp4_atom::Codec::Mp4a(mp4a) = &audio.mdia.minf.stbl.stsd.codecs[0] else { panic!() };
    let raw = mp4a.esds.es_desc.dec_config.dec_specific.as_ref().unwrap().raw.clone();
    assert_eq!(raw, config.tracks[1].config);
    let mvex: Vec<_> = moov.mvex.as_ref().unwrap().trex.iter().map(|t| t.track_id).collect();
    assert_eq!(mvex, [1, 2]);
}

#[test]
fn a_part_says_what_its_frames_are() {
    let (config, frames) = clip::clip();
    for (number, c) in cut(&config, &frames).iter().enumerate() {
        let number = PartNumber(7_000_000_000 + number as u64);
        let bytes = part(&config, number, c.start, c.end, &c.frames).unwrap();
        let found = boxes(&bytes);
        let [Any::Moof(moof), Any::Mdat(_)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(moof.mfhd.sequence_number, number.0 as u32);
        let present = [TrackId::Video, TrackId::Audio]
            .into_iter()
            .filter(|id| c.frames.iter().any(|f| f.track == *id));
        for (traf, id) in moof.traf.iter().zip(present) {
            let own: Vec<_> = c.frames.iter().filter(|f| f.track == id).collect();
            assert_eq!(traf.tfhd.track_id, track_number(id));
            assert!(traf.tfhd.default_base_is_moof);
            assert_eq!(traf.tfdt.as_ref().unwrap().base_media_decode_time, own[0].dts);
            let mut at = traf.trun[0].data_offset.unwrap() as usize;
            let mut dts = own[0].dts;
            assert_eq!(traf.trun[0].samples.len(), own.len());
            for (sample, frame) in traf.trun[0].samples.iter().zip(&own) {
                assert_eq!(dts, frame.dts);
                dts += u64::from(sample.duration.unwrap());
                assert_eq!(sample.cts.unwrap_or(0), i64::from(frame.cts));
                let flags = sample.flags.or(traf.tfhd.default_sample_flags).unwrap();
                assert_eq!(flags, if frame.key { 0x0200_0000 } else { 0x0101_0000 });
                let size = sample.size.unwrap() as usize;
                assert_eq!(bytes[at..at + size], frame.payload, "data_offset");
                at += size;
            }
            assert_eq!(Some(dts), c.end.get(id));
        }
    }
}

fn frame(track: TrackId, dts: u64, cts: i32) -> Frame {
    Frame { track, dts, cts, key: true, payload: clip::blank(10) }
}

#[test]
fn late_times_and_negative_offsets_fit() {
    let (config, _) = clip::clip();
    let dts = 1 << 40;
    let end = TrackTimes { video: Some(dts + 3000), audio: None };
    let frames = [frame(TrackId::Video, dts, -3000)];
    let bytes = part(&config, PartNumber(1), TrackTimes::default(), end, &frames).unwrap();
    let moof = Moof::decode(&mut &bytes[..]).unwrap();
    assert_eq!(moof.traf.len(), 1, "no run for a track without samples");
    assert_eq!(moof.traf[0].tfdt.as_ref().unwrap().base_media_decode_time, dts);
    assert_eq!(moof.traf[0].trun[0].samples.get(0).unwrap().cts, Some(-3000));
}

#[test]
fn frames_that_contradict_the_manifest_are_refused() {
    let (config, _) = clip::only(TrackId::Video);
    let times = |v: u64| TrackTimes { video: Some(v), audio: Some(v) };
    let refuse = |start, end, frames: &[Frame]| {
        part(&config, PartNumber(1), start, end, frames).unwrap_err().to_string()
    };
    let video = |dts| frame(TrackId::Video, dts, 0);
    assert!(refuse(times(0), times(9), &[]).contains("no frames"));
    let stray = frame(TrackId::Audio, 0, 0);
    assert!(refuse(times(0), times(9), &[stray]).contains("track Audio"));
    assert!(refuse(times(5), times(9), &[video(4)]).contains("starts at 4, before 5"));
    assert!(refuse(times(0), times(9), &[video(10)]).contains("from 10 to 9"));
    assert!(refuse(times(0), times(9), &[video(5), video(4)]).contains("from 5 to 4"));
    assert!(refuse(times(0), times(1 << 40), &[video(5)]).contains("from 5 to"));
    let untold = TrackTimes { video: None, audio: Some(9) };
    assert!(refuse(times(0), untold, &[video(4)]).contains("no end of Video"));
}

#[test]
fn what_cannot_be_an_init_segment_is_refused() {
    let none = Config { id: 1, tracks: Vec::new() };
    assert!(matches!(init(&none), Err(Error::Invalid { .. })));
    let (mut config, _) = clip::only(TrackId::Video);
    config.tracks[0].config = Bytes::from_static(&[1, 2, 3]);
    assert!(matches!(init(&config), Err(Error::Invalid { .. })));
    config.tracks[0].codec = Codec::Hevc;
    assert_eq!(init(&config).unwrap_err().to_string(), "fmp4 init segment: h265 is not supported");
}

#[test]
fn names_follow_the_bytes() {
    let (config, _) = clip::clip();
    let name = init_name(&init(&config).unwrap());
    assert_eq!((name.len(), &name[..5], &name[21..]), (25, "init-", ".mp4"));
    let renumbered = Config { id: 9, ..config.clone() };
    assert_eq!(init_name(&init(&renumbered).unwrap()), name);
    let mut other = config;
    other.tracks[0].params = Params::Video { width: 160, height: 92 };
    assert_ne!(init_name(&init(&other).unwrap()), name);
}

#[test]
fn fast_sample_rates_have_no_room_in_the_sample_entry() {
    let (config, _) = clip::only(TrackId::Audio);
    let params = Params::Audio { sample_rate: 96_000, channels: 2, frame_samples: 1024 };
    let track = Track { timescale: 96_000, params, ..config.tracks[0].clone() };
    let found = boxes(&init(&Config { id: 1, tracks: vec![track] }).unwrap());
    let Any::Moov(moov) = &found[1] else { panic!() };
    let mp4_atom::Codec::Mp4a(mp4a) = &moov.trak[0].mdia.minf.stbl.stsd.codecs[0] else { panic!() };
    assert_eq!((mp4a.audio.sample_rate.integer(), mp4a.audio.channel_count), (0, 2));
    assert_eq!(moov.trak[0].mdia.mdhd.timescale, 96_000);
}
