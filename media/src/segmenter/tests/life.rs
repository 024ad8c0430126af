//! Publishers that come, change and go.

use super::source::{Push, Source, UNIX_MS, audio_track, video_track};
use super::{Room, room_of};
use crate::manifest::{Entry, Status};
use crate::segmenter::{Now, Output};
use crate::track::TrackId;

fn short() -> Source {
    Source { duration_ms: 4_500, ..Source::default() }
}

fn entries(room: &Room) -> Vec<&'static str> {
    room.oracle
        .entries
        .iter()
        .map(|e| match e {
            Entry::Header(_) => "header",
            Entry::Config(_) => "config",
            Entry::Open(_) => "open",
            Entry::Part(_) => "part",
            Entry::Close(_) => "close",
            Entry::Window(_) => "window",
            Entry::Grace => "grace",
            Entry::Resumed => "resumed",
            Entry::End => "end",
            Entry::Seal(_) => "seal",
            Entry::Mark(_) => "mark",
        })
        .collect()
}

#[test]
fn the_first_words_are_in_order() {
    let room = room_of(&Source { gop: 30, duration_ms: 1_500, ..Source::default() });
    let said = entries(&room);
    let start = ["window", "header", "config", "open", "part", "part", "part", "part", "header"];
    assert_eq!(said[..9], start);
    assert_eq!(said[9..], ["part", "close", "open", "part", "part", "part", "close", "end"]);
}

#[test]
fn a_return_goes_on_with_a_discontinuity() {
    let mut room = Room::new();
    for start_stamp in [0, 77_000, u32::MAX - 2_000, 0] {
        room.publish(&Source { start_stamp, ..short() });
        room.gone();
        assert_eq!(room.oracle.manifest().status(), Status::Grace);
        assert!(room.oracle.manifest().last().unwrap().duration.is_some(), "sealed at once");
        room.now_ms += 3_000;
    }
    room.end();
    let counters = room.counters();
    assert_eq!((counters.discontinuities, counters.reanchored, counters.dropped()), (3, 0, 0));
    let frames = room.frames(TrackId::Video);
    for (i, pair) in frames.windows(2).enumerate() {
        let step = pair[1].dts - pair[0].dts;
        // A return starts after both tracks' ends, within a frame.
        assert!((3_000..6_000).contains(&step), "frame {i} lasts {step}");
    }
    // The wall time of each return is its own.
    let returns: Vec<_> = room.segments().iter().filter(|s| s.open.discontinuity).collect();
    for (i, segment) in returns.iter().enumerate() {
        let expected = UNIX_MS + (i as u64 + 1) * 7_466;
        assert!(
            segment.open.pdt_ms.abs_diff(expected) < 100,
            "{} of {expected}",
            segment.open.pdt_ms
        );
        assert_eq!(segment.open.config, 1, "the same tracks need no new init segment");
    }
}

#[test]
fn audio_stays_aligned_over_returns() {
    let mut room = Room::new();
    let mut starts = Vec::new();
    for _ in 0..20 {
        room.publish(&short());
        room.gone();
        starts.push(room.frames(TrackId::Video).len());
    }
    let video = room.frames(TrackId::Video);
    let audio = room.frames(TrackId::Audio);
    let firsts = |frames: &[&crate::frame::Frame], scale: u64| -> Vec<u64> {
        let zero = |f: &&&crate::frame::Frame| f.payload[..8] == [0; 8];
        frames.iter().filter(zero).map(|f| f.dts * scale / 48_000).collect()
    };
    let (video, audio) = (firsts(&video, 48_000), firsts(&audio, 90_000));
    assert_eq!((video.len(), audio.len()), (20, 20));
    for (v, a) in video.iter().zip(&audio) {
        assert!(v.abs_diff(*a) <= 15 * 90, "video at {v}, audio at {a}");
    }
}

#[test]
fn a_return_after_a_stall_is_not_squeezed() {
    // Audio lags by a second and runs on for three after the last video frame.
    let source = Source { audio_lag_ms: 1_000, duration_ms: 8_000, ..Source::default() };
    let mut room = Room::new();
    for _ in 0..3 {
        room.begin();
        room.segmenter.configure(video_track(0), Some(30.0));
        room.segmenter.configure(audio_track(48_000), None);
        for push in source.pushes(room.now_ms) {
            if push.1.track == TrackId::Audio || push.1.timestamp_ms < 5_000 {
                room.push(push);
            }
        }
        room.gone();
    }
    room.end();
    assert_eq!((room.oracle.squeezed, room.counters().clamped_segments), (0, 0));
    assert!(room.oracle.broken.is_empty());
}

#[test]
fn many_short_publishes_leave_nothing_unsaid() {
    let mut room = Room::new();
    for i in 0..300_u64 {
        room.publish(&Source { duration_ms: 40 + i * 7 % 90, seed: i, ..Source::default() });
        room.gone();
        room.now_ms += 500;
    }
    room.end();
    let counters = room.counters();
    assert_eq!((counters.waiting, counters.emitted), (0, counters.pushed - counters.dropped()));
    assert!(counters.segments >= 295, "{counters:?}");
    assert_eq!(room.oracle.manifest().status(), Status::Ended);
}

#[test]
fn a_newer_publisher_takes_over() {
    let mut room = Room::new();
    room.publish(&short());
    room.publish(&Source { start_stamp: 500_000, ..short() });
    room.end();
    assert!(!entries(&room).contains(&"grace") && !entries(&room).contains(&"resumed"));
    assert_eq!(room.counters().discontinuities, 1);
}

#[test]
fn wall_time_never_goes_back() {
    let mut room = Room::new();
    let mut out = Vec::new();
    for (turn, unix_ms) in [UNIX_MS, UNIX_MS - 3_600_000, UNIX_MS + 60_000].into_iter().enumerate()
    {
        let at = turn as u64 * 10_000;
        let time = |mono_ms: u64| Now { mono_ms, unix_ms: unix_ms + mono_ms };
        room.segmenter.begin(time(at), &mut out);
        room.segmenter.configure(video_track(0), Some(30.0));
        room.segmenter.configure(audio_track(48_000), None);
        for (at, sample) in short().pushes(at) {
            room.segmenter.push(time(at), sample, &mut out);
        }
        room.segmenter.gone(&mut out);
    }
    // The oracle holds that wall time only rises.
    room.oracle.take(&mut out);
    let pdts: Vec<_> = room.segments().iter().map(|s| s.open.pdt_ms).collect();
    assert_eq!(pdts[0], UNIX_MS);
    assert!(pdts.last().unwrap().abs_diff(UNIX_MS + 60_000 + 24_000) < 200, "{pdts:?}");
}

#[test]
fn the_track_set_is_fixed_after_a_second() {
    // A video header without frames is no track.
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), Some(30.0));
    room.segmenter.configure(audio_track(48_000), None);
    assert_eq!(room.segmenter.deadline_ms(), None, "no media yet");
    let audio: Vec<Push> = Source { fps: None, ..short() }.pushes(5_000);
    for push in audio.iter().take(20) {
        room.push(push.clone());
    }
    assert_eq!((room.segmenter.deadline_ms(), room.counters().emitted), (Some(6_000), 0));
    room.now_ms = 6_000;
    room.tick();
    assert_eq!((room.counters().emitted, room.counters().waiting), (20, 0));
    assert_eq!(room.segmenter.tracks(), [audio_track(48_000)]);
    assert_eq!(room.segmenter.deadline_ms(), None);
    audio.into_iter().skip(20).for_each(|p| room.push(p));
    room.end();
    room.oracle.check_steady(&room.counters());
}

#[test]
fn video_alone_waits_a_second_for_audio() {
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), Some(30.0));
    for push in (Source { audio: None, ..short() }).pushes(0) {
        let early = push.0 < 1_000;
        room.push(push);
        assert_eq!(room.counters().emitted == 0, early, "at {}", room.now_ms);
    }
    assert_eq!(room.segmenter.tracks().len(), 1);
}

#[test]
fn leading_frames_are_dropped_and_the_key_comes_first() {
    let mut pushes = Source::default().pushes(0);
    pushes.retain(|(at, _)| *at >= 500);
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), None);
    room.segmenter.configure(audio_track(48_000), None);
    pushes.into_iter().for_each(|p| room.push(p));
    room.end();
    let counters = room.counters();
    assert_eq!(counters.dropped_leading, 45);
    assert!((69..=72).contains(&counters.dropped_early), "audio before the key: {counters:?}");
    let first = &room.segments()[0].frames[0];
    assert!(first.key && first.track == TrackId::Video && first.dts == 0);
    room.oracle.check_steady(&counters);
}

#[test]
fn a_key_frame_that_never_comes_costs_little_and_says_nothing() {
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), None);
    room.segmenter.configure(audio_track(48_000), None);
    let source = Source { duration_ms: 120_000, ..Source::default() };
    for (at, mut sample) in source.pushes(0) {
        sample.key &= sample.track == TrackId::Audio;
        room.push((at, sample));
    }
    assert_eq!(room.counters().emitted, 0);
    assert!(room.counters().waiting <= 2_048);
    assert_eq!(room.segmenter.deadline_ms(), None);
    room.end();
    assert_eq!(room.counters().dropped(), room.counters().pushed);
    assert_eq!(entries(&room), ["window", "end"]);
}

#[test]
fn a_repeated_configuration_changes_nothing_and_another_one_waits_for_its_key() {
    let mut room = Room::new();
    room.publish(&short());
    let next = |from: u64| Source { start_stamp: from as u32, ..short() }.pushes(from);
    room.segmenter.configure(video_track(0), None);
    room.segmenter.configure(audio_track(48_000), None);
    next(4_500).into_iter().for_each(|p| room.push(p));
    assert_eq!(room.counters().discontinuities, 0);

    room.segmenter.configure(video_track(1), None);
    let mut pushes = next(9_000);
    // Ten frames of the new configuration before its key frame cannot be decoded.
    for (at, sample) in &mut pushes {
        sample.key &= sample.track == TrackId::Audio || *at > 9_400;
    }
    pushes.into_iter().for_each(|p| room.push(p));
    room.end();
    let counters = room.counters();
    assert_eq!(counters.dropped_switching, 60);
    assert_eq!(counters.discontinuities, 1);
    let changed = room.segments().iter().find(|s| s.open.config == 2).unwrap();
    assert!(changed.open.discontinuity && changed.frames[0].key);
    assert_eq!(room.segmenter.tracks()[0], video_track(1));
}

#[test]
fn a_track_that_comes_late_joins_at_a_key_frame() {
    // Audio late beside video.
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), Some(30.0));
    for push in Source::default().pushes(0) {
        if push.1.track == TrackId::Audio && push.0 < 5_000 {
            continue;
        }
        if push.0 >= 5_000 {
            room.segmenter.configure(audio_track(48_000), None);
        }
        room.push(push);
    }
    room.end();
    let joined = room.segments().iter().find(|s| s.open.config == 2).unwrap();
    assert!(joined.open.discontinuity);
    assert_eq!(joined.open.start.video, Some(6 * 90_000));
    assert!(joined.open.start.audio.unwrap().abs_diff(6 * 48_000) < 1_024);
    assert_eq!(room.segmenter.tracks().len(), 2);

    // Video late beside audio.
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(audio_track(48_000), None);
    for push in Source::default().pushes(0) {
        if push.1.track == TrackId::Video && push.0 < 5_000 {
            continue;
        }
        if push.0 >= 5_000 {
            room.segmenter.configure(video_track(0), None);
        }
        room.push(push);
    }
    room.end();
    let counters = room.counters();
    assert_eq!(counters.dropped_switching, 30, "frames before the key: {counters:?}");
    let joined = room.segments().iter().find(|s| s.open.config == 2).unwrap();
    assert_eq!(joined.open.start.video, Some(6 * 90_000));
    assert_eq!(room.segmenter.frame_rate_milli(), Some(30_000), "learnt as it runs");
}

#[test]
fn audio_changes_its_rate() {
    // Alone, every frame is a place to change; beside video, the next key frame is.
    for fps in [None, Some((30, 1))] {
        let source = |from: u64, rate| Source {
            fps,
            audio: Some(rate),
            start_stamp: from as u32,
            ..short()
        };
        let mut room = Room::new();
        room.publish(&source(0, 48_000));
        room.segmenter.configure(audio_track(44_100), None);
        source(4_500, 44_100).pushes(4_500).into_iter().for_each(|p| room.push(p));
        room.end();
        let counters = room.counters();
        assert_eq!((counters.discontinuities, counters.reanchored), (1, 0), "{fps:?}");
        let changed = room.segments().iter().find(|s| s.open.config == 2).unwrap();
        let start = changed.open.start.audio.unwrap();
        let at_ms = start * 1000 / 44_100;
        assert!(at_ms.abs_diff(4_500) < 60, "{fps:?}: {at_ms}");
    }
}

#[test]
fn nothing_follows_the_end() {
    let mut room = room_of(&short());
    room.publish(&short());
    room.gone();
    room.end();
    assert_eq!(entries(&room).iter().filter(|e| **e == "end").count(), 1);
    assert_eq!(*entries(&room).last().unwrap(), "end");
    assert!(room.counters().dropped_idle > 100);
    // Nor does anything precede a publisher.
    let mut room = Room::new();
    let push = short().pushes(0).remove(0);
    room.push(push);
    room.gone();
    assert_eq!((entries(&room).len(), room.counters().dropped_idle), (0, 1));
    let mut out = Vec::new();
    room.segmenter.tick(super::now(99_999), &mut out);
    assert_eq!(out, Vec::<Output>::new());
}
