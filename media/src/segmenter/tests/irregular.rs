//! Publishers that keep no rate, no key-frame interval, or no steady audio.

use proptest::prelude::*;

use super::source::{Push, Random, Source, Stamps, audio_track, video_track};
use super::{Room, room_of};
use crate::segmenter::Sample;
use crate::track::TrackId;

/// Takes pushes in the order of their time.
fn run(room: &mut Room, mut pushes: Vec<Push>) {
    pushes.sort_by_key(|(at, _)| *at);
    pushes.into_iter().for_each(|p| room.push(p));
}

#[test]
fn strong_jitter_makes_the_rate_variable() {
    for seed in 0..20 {
        let source = Source { stamps: Stamps::Jitter(15), seed, ..Source::default() };
        let room = room_of(&source);
        let counters = room.counters();
        assert_eq!(counters.lost_grid, 1);
        assert!(counters.dropped() <= 1, "audio before a key frame that came late: {counters:?}");
        assert_eq!(counters.irregular_parts, 0);
        assert_eq!(room.oracle.manifest().header().frame_rate_milli, None);
        // Follows the stamps to the millisecond.
        let first = i64::from(source.video_stamps()[0]);
        for (frame, stamp) in room.frames(TrackId::Video).iter().zip(source.video_stamps()) {
            assert_eq!(frame.dts as i64, (i64::from(stamp) - first) * 90);
        }
    }
}

#[test]
fn a_long_group_sets_the_target_duration() {
    let source = Source { gop: 250, duration_ms: 60_000, ..Source::default() };
    let room = room_of(&source);
    let constants = room.oracle.manifest().header().constants.unwrap();
    assert_eq!(constants.target_duration_s, 9);
    assert_eq!(room.counters().forced_cuts, 0);
    assert_eq!(room.segmenter.advice(), None);
    let ten = room_of(&Source { gop: 300, duration_ms: 60_000, ..Source::default() });
    assert_eq!(ten.oracle.manifest().header().constants.unwrap().target_duration_s, 10);
    assert_eq!(ten.counters().forced_cuts, 0);
}

#[test]
fn without_key_frames_segments_are_cut_and_the_publisher_is_told() {
    let source = Source { gop: 1_000_000, duration_ms: 35_000, ..Source::default() };
    let mut room = Room::new();
    room.publish(&source);
    assert!(room.segmenter.advice().is_some_and(|a| a.contains("key-frame interval")));
    room.end();
    assert_eq!(room.oracle.manifest().header().constants.unwrap().target_duration_s, 10);
    assert_eq!(room.counters().forced_cuts, 3);
    assert_eq!(room.oracle.forced, 3);
    room.oracle.check_steady(&room.counters());
}

#[test]
fn a_group_that_grows_is_cut_at_the_target() {
    let mut room = Room::new();
    room.publish(&Source { gop: 60, duration_ms: 6_000, ..Source::default() });
    let mut later = Source { gop: 150, duration_ms: 20_000, ..Source::default() };
    later.start_stamp = 6_000;
    run(&mut room, later.pushes(6_000));
    assert!(room.counters().forced_cuts >= 3 && room.segmenter.advice().is_some());
    assert_eq!(room.counters().clamped_segments, 0);
    room.end();
    room.oracle.check_steady(&room.counters());
}

#[test]
fn a_publisher_of_30_fps_that_is_29_97_is_followed() {
    let source = Source { fps: Some((30_000, 1_001)), duration_ms: 40_000, ..Source::default() };
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), Some(30.0));
    room.segmenter.configure(audio_track(48_000), None);
    run(&mut room, source.pushes(0));
    room.end();
    room.oracle.check_steady(&room.counters());
    assert_eq!(room.counters().lost_grid, 0);
    let frames = room.frames(TrackId::Video);
    let last = frames.len() as u64 - 1;
    assert!(frames[last as usize].dts.abs_diff(last * 3_003) < 3 * 90);
}

#[test]
fn audio_that_drifts_is_kept_within_its_tolerance() {
    for (rate, ppm) in [(44_100, 1_500), (48_000, -1_500), (48_000, 3_000), (44_100, -3_000)] {
        let source = Source { audio: Some(rate), duration_ms: 90_000, ..Source::default() };
        let mut pushes = source.pushes(0);
        for (_, sample) in pushes.iter_mut().filter(|(_, s)| s.track == TrackId::Audio) {
            let ms = i64::from(sample.timestamp_ms);
            sample.timestamp_ms = (ms + ms * ppm / 1_000_000) as u32;
        }
        let stamps: Vec<u32> = pushes
            .iter()
            .filter(|(_, s)| s.track == TrackId::Audio)
            .map(|(_, s)| s.timestamp_ms)
            .collect();
        let mut room = Room::new();
        room.begin();
        room.segmenter.configure(video_track(0), None);
        room.segmenter.configure(audio_track(rate), None);
        run(&mut room, pushes);
        room.end();
        let counters = room.counters();
        assert!(if ppm > 0 { counters.audio_gaps > 0 } else { counters.dropped_overlap > 0 });
        for frame in room.frames(TrackId::Audio) {
            let i = u64::from_be_bytes(frame.payload[..8].try_into().unwrap());
            let wanted = u64::from(stamps[i as usize]) * u64::from(rate) / 1000;
            assert!(frame.dts.abs_diff(wanted) <= u64::from(rate) * 61 / 1000);
        }
        room.oracle.check_steady(&counters);
    }
}

#[test]
fn audio_gaps_and_overlaps_are_counted_and_leave_video_alone() {
    let source = Source::default();
    let mut pushes = source.pushes(0);
    pushes.retain(|(_, s)| s.track == TrackId::Video || !(4_000..4_500).contains(&s.timestamp_ms));
    for (_, sample) in &mut pushes {
        if sample.track == TrackId::Audio && sample.timestamp_ms >= 8_000 {
            sample.timestamp_ms -= 200;
        }
    }
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), None);
    room.segmenter.configure(audio_track(48_000), None);
    run(&mut room, pushes);
    room.end();
    let counters = room.counters();
    assert_eq!((counters.audio_gaps, counters.reanchored), (1, 0));
    assert!((6..=8).contains(&counters.dropped_overlap), "{counters:?}");
    room.oracle.check_steady(&counters);
}

#[test]
fn a_video_stall_beside_audio_is_cut_by_audio() {
    let mut pushes = Source { duration_ms: 30_000, ..Source::default() }.pushes(0);
    pushes.retain(|(_, s)| s.track == TrackId::Audio || !(5_500..21_300).contains(&s.timestamp_ms));
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), Some(30.0));
    room.segmenter.configure(audio_track(48_000), None);
    run(&mut room, pushes);
    room.end();
    let counters = room.counters();
    assert_eq!((counters.reanchored, counters.dropped(), counters.clamped_segments), (0, 0, 0));
    assert_eq!(counters.irregular_parts, 0);
    assert!(counters.forced_cuts >= 5);
    // Audio went on while video stood: parts came all along, and time is as it was.
    let frame = room.frames(TrackId::Video).into_iter().rev().find(|f| f.key).unwrap().dts;
    assert_eq!(frame, 28 * 90_000);
}

#[test]
fn video_that_comes_late_beside_audio_stays_in_order() {
    for jitter in [0, 15] {
        let source = Source { stamps: Stamps::Jitter(jitter), ..Source::default() };
        for (from, to) in [(5_000, 5_900), (5_000, 7_500), (6_500, 9_000)] {
            let mut pushes = source.pushes(0);
            for (at, _) in pushes.iter_mut().filter(|(_, s)| s.track == TrackId::Video) {
                if (from..to).contains(at) {
                    *at = to;
                }
            }
            let mut room = Room::new();
            room.begin();
            room.segmenter.configure(video_track(0), Some(30.0));
            room.segmenter.configure(audio_track(48_000), None);
            run(&mut room, pushes);
            room.end();
            let counters = room.counters();
            assert_eq!((counters.reanchored, counters.clamped_segments), (0, 0));
            assert!(counters.dropped() <= 1, "{counters:?}");
            assert!(room.oracle.broken.is_empty());
            let frames = room.frames(TrackId::Video);
            assert_eq!(frames.len(), 360, "none is lost");
            let (last, first) = (frames[359].dts - frames[0].dts, 359 * 3_000);
            assert!(last.abs_diff(first) <= 30 * 90, "time is as it was: {last}");
        }
    }
}

#[test]
fn a_hole_in_both_tracks_is_no_stall() {
    let source = Source { duration_ms: 9_000, ..Source::default() };
    let mut pushes = source.pushes(0);
    pushes.retain(|(_, s)| !(4_100..5_000).contains(&s.timestamp_ms));
    // Audio comes back first.
    for (at, _) in pushes.iter_mut().filter(|(_, s)| s.track == TrackId::Video) {
        *at += 15;
    }
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), None);
    room.segmenter.configure(audio_track(48_000), None);
    run(&mut room, pushes);
    room.end();
    assert_eq!((room.counters().reanchored, room.counters().forced_cuts), (0, 0));
    assert_eq!(room.oracle.holes, 0, "the last frame lasts until the next");
}

#[test]
fn a_jump_takes_effect_at_the_very_next_key_frame() {
    let source = Source { gop: 10, ..Source::default() };
    let mut pushes = source.pushes(0);
    for (at, sample) in &mut pushes {
        if *at >= 6_100 {
            sample.timestamp_ms += 50_000;
        }
    }
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), None);
    room.segmenter.configure(audio_track(48_000), None);
    run(&mut room, pushes);
    room.end();
    let segment = room.segments().iter().find(|s| s.open.discontinuity).unwrap();
    let start = segment.open.start.video.unwrap();
    assert!((6_300 * 90..6_500 * 90).contains(&start), "at {start}");
    room.oracle.check_steady(&room.counters());
}

#[test]
fn a_long_frame_beside_audio_is_cut_by_audio_afterwards() {
    let mut pushes = Source::default().pushes(0);
    pushes.retain(|(_, s)| s.track == TrackId::Audio || !(5_400..5_850).contains(&s.timestamp_ms));
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), None);
    room.segmenter.configure(audio_track(48_000), None);
    run(&mut room, pushes);
    room.end();
    let counters = room.counters();
    assert_eq!((counters.irregular_parts, counters.clamped_segments), (0, 0));
    assert!(room.oracle.broken.is_empty());
}

#[test]
fn a_long_frame_of_video_alone_is_declared_as_the_part_target() {
    let mut pushes = Source { audio: None, ..Source::default() }.pushes(0);
    pushes.retain(|(_, s)| !(5_100..5_600).contains(&s.timestamp_ms));
    let mut room = Room::new();
    room.begin();
    room.segmenter.configure(video_track(0), None);
    run(&mut room, pushes);
    room.end();
    let counters = room.counters();
    assert_eq!((counters.irregular_parts, counters.clamped_segments), (1, 0));
    assert!(room.segments().iter().all(|s| s.duration.abs_diff(180_000) < 10), "EXTINF stays true");
}

#[test]
fn a_hole_that_no_segment_can_hold_is_left_out() {
    for audio in [None, Some(48_000)] {
        let source = Source { audio, duration_ms: 30_000, ..Source::default() };
        let mut pushes = source.pushes(0);
        pushes.retain(|(_, s)| !(5_500..13_500).contains(&s.timestamp_ms));
        let mut room = Room::new();
        room.begin();
        room.segmenter.configure(video_track(0), None);
        if let Some(rate) = audio {
            room.segmenter.configure(audio_track(rate), None);
        }
        run(&mut room, pushes);
        room.end();
        let counters = room.counters();
        assert_eq!((counters.reanchored, counters.discontinuities), (1, 1), "{audio:?}");
        assert_eq!((counters.clamped_segments, counters.irregular_parts), (0, 0));
        assert!(room.oracle.broken.is_empty());
        let discontinuity = room.segments().iter().find(|s| s.open.discontinuity).unwrap();
        let expected = super::source::UNIX_MS + 14_000;
        assert!(discontinuity.open.pdt_ms.abs_diff(expected) <= 40, "wall time is right again");
    }
}

#[test]
fn stamps_that_jump_go_on_where_the_room_is() {
    let jumps = [-3_000_i64, -600, 10_500, 3_600_000, -2_000_000_000, 2_000_000_000];
    for (jump, audio_lag_ms) in jumps.into_iter().flat_map(|j| [(j, 0), (j, -30), (j, 30)]) {
        let source = Source { duration_ms: 12_000, audio_lag_ms, ..Source::default() };
        let mut pushes = source.pushes(100);
        for (at, sample) in &mut pushes {
            if *at >= 6_500 {
                sample.timestamp_ms = sample.timestamp_ms.wrapping_add(jump as u32);
            }
        }
        let mut room = Room::new();
        room.begin();
        room.segmenter.configure(video_track(0), None);
        room.segmenter.configure(audio_track(48_000), None);
        run(&mut room, pushes);
        room.end();
        let counters = room.counters();
        assert_eq!((counters.reanchored, counters.discontinuities), (1, 1), "{jump}");
        assert!(counters.dropped() <= 3 && counters.lost_grid == 0, "{jump}: {counters:?}");
        assert_eq!((counters.irregular_parts, counters.forced_cuts), (0, 0), "{jump}");
        assert!(room.oracle.broken.is_empty());
        let last = room.frames(TrackId::Video).last().unwrap().dts;
        assert!(last.abs_diff(12 * 90_000) < 15_000, "{jump}: ends at {last}");
        // Both tracks took the same step, to half an audio frame.
        let shift = |track, period: u64, scale: u64| {
            let frame = *room.frames(track).last().unwrap();
            let i = u64::from_be_bytes(frame.payload[..8].try_into().unwrap());
            (frame.dts as i64 - (i * period) as i64) * 90_000 / scale as i64
        };
        let video = shift(TrackId::Video, 3_000, 90_000);
        let audio = shift(TrackId::Audio, 1_024, 48_000);
        assert!((video - audio).abs() <= 12 * 90, "{jump}: {video} and {audio}");
    }
}

/// A variable-rate publish: intervals and keys as `seed` has them.
fn variable(seed: u64, audio: bool) -> Vec<Push> {
    let mut random = Random(seed);
    let mut pushes = Source {
        fps: None,
        audio: audio.then_some(44_100),
        duration_ms: 15_000,
        ..Source::default()
    }
    .pushes(0);
    let longest = [20, 60, 150, 450][(seed % 4) as usize];
    let (mut at, mut count) = (0, 0_u64);
    while at < 15_000 {
        pushes.push((
            at,
            Sample {
                track: TrackId::Video,
                timestamp_ms: at as u32,
                cts_ms: random.within(-10, 90) as i32,
                key: count == 0 || random.within(0, 40) == 0,
                payload: super::source::payload(count, 30),
                piece: 0,
            },
        ));
        count += 1;
        at += random.within(5, longest) as u64;
    }
    pushes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn variable_rates_keep_the_rules(seed in any::<u64>(), audio in any::<bool>()) {
        let mut room = Room::new();
        room.begin();
        room.segmenter.configure(video_track(0), None);
        if audio {
            room.segmenter.configure(audio_track(44_100), None);
        }
        run(&mut room, variable(seed, audio));
        room.end();
        let counters = room.counters();
        prop_assert_eq!(counters.dropped(), 0);
        // Only long frames of video alone cannot be declared truly, or not at all at the very end
        // of a segment.
        let untrue = counters.irregular_parts + counters.reanchored + counters.clamped_segments;
        prop_assert!(!audio || untrue == 0, "{:?}", counters);
        prop_assert_eq!(room.oracle.squeezed, 0);
        // No audio is left over at the end of a segment, unless the last frame is longer than a part.
        for segment in room.segments().iter().filter(|_| seed % 4 < 2) {
            let [.., before, last] = &segment.parts[..] else { continue };
            let frames = &segment.frames[before.frames_end as usize..last.frames_end as usize];
            prop_assert!(frames.iter().any(|f| f.track == TrackId::Video), "{:?}", last);
        }
    }
}
