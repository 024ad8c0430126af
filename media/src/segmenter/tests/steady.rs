//! Publishers that keep a rate: full parts, exact times.

use super::source::{Source, Stamps};
use super::{Room, Settings, room_of};
use crate::track::TrackId;

/// Frames per second, as fractions.
pub(super) const RATES: [(u64, u64); 11] = [
    (10, 1),
    (12, 1),
    (15, 1),
    (24_000, 1_001),
    (24, 1),
    (25, 1),
    (30_000, 1_001),
    (30, 1),
    (50, 1),
    (60_000, 1_001),
    (60, 1),
];

/// A publish whose metadata tells the rate. It settles what a second of jittered stamps cannot: 30
/// or 29.97.
fn claimed(source: &Source) -> Room {
    let mut room = Room::new();
    room.begin();
    let claim = source.fps.map(|(num, den)| num as f64 / den as f64);
    room.segmenter.configure(super::video_track(0), claim);
    room.segmenter.configure(super::audio_track(48_000), None);
    source.pushes(0).into_iter().for_each(|p| room.push(p));
    room.end();
    room
}

#[test]
fn every_rate_and_group_gives_full_parts() {
    for fps in RATES {
        for stamps in [Stamps::Rounded, Stamps::Truncated, Stamps::Jitter(2)] {
            for seconds_tenths in [0, 5, 10, 20] {
                let gop = (fps.0 * seconds_tenths / (fps.1 * 10)).max(1);
                let source =
                    Source { fps: Some(fps), stamps, gop, duration_ms: 6_500, ..Source::default() };
                let room = room_of(&source);
                let counters = room.counters();
                assert!(room.segments().len() >= 4, "{source:?}");
                assert_eq!((counters.lost_grid, counters.forced_cuts), (0, 0), "{source:?}");
                assert_eq!((counters.dropped(), counters.discontinuities), (0, 0), "{source:?}");
                room.oracle.check_steady(&counters);
            }
        }
    }
}

#[test]
fn decode_times_are_exact_multiples_of_the_period() {
    for fps in RATES {
        for stamps in [Stamps::Rounded, Stamps::Truncated, Stamps::Jitter(2)] {
            let source = Source { fps: Some(fps), stamps, duration_ms: 8_000, ..Source::default() };
            let room = claimed(&source);
            for (i, frame) in room.frames(TrackId::Video).iter().enumerate() {
                let quarters = i as u64 * 360_000 * fps.1 / fps.0;
                assert_eq!(frame.dts, (quarters + 2) / 4, "frame {i} of {source:?}");
            }
            let milli = (fps.0 * 1000).div_ceil(fps.1).min(fps.0 * 1000 / fps.1 + 1) as u32;
            let said = room.oracle.manifest().header().frame_rate_milli.unwrap();
            assert!(said.abs_diff(milli) <= 1, "{said} for {fps:?}");
        }
    }
}

#[test]
fn a_claim_shortens_the_wait() {
    let source = Source::default();
    for (claim, most_ms) in [(Some(30.0), 150), (None, 450)] {
        let mut room = Room::new();
        room.begin();
        room.segmenter.configure(super::video_track(0), claim);
        room.segmenter.configure(super::audio_track(48_000), None);
        for push in source.pushes(0) {
            room.push(push);
            if room.counters().emitted > 0 {
                break;
            }
        }
        assert!(room.now_ms <= most_ms, "{} ms with {claim:?}", room.now_ms);
        assert_eq!(room.counters().waiting, 0);
    }
}

#[test]
fn composition_stays_on_the_grid() {
    for fps in RATES {
        let source = Source { fps: Some(fps), b_frames: true, ..Source::default() };
        let room = claimed(&source);
        room.oracle.check_steady(&room.counters());
        let mut shown: Vec<_> =
            room.frames(TrackId::Video).iter().map(|f| f.dts as i64 + i64::from(f.cts)).collect();
        assert!(room.frames(TrackId::Video).iter().any(|f| f.cts > 0));
        shown.sort_unstable();
        let period = 90_000 * fps.1 / fps.0;
        for pair in shown.windows(2) {
            let step = (pair[1] - pair[0]) as u64;
            let whole = (step as f64 / period as f64).round() as u64;
            assert!(step.abs_diff(whole * 90_000 * fps.1 / fps.0) <= 2, "{step} at {fps:?}");
        }
    }
}

#[test]
fn part_target_is_whole_frames_and_a_twentieth() {
    let table = [
        (Some((30, 1)), 210),
        (Some((25, 1)), 210),
        (Some((24, 1)), 219),
        (Some((24_000, 1_001)), 219),
        (Some((30_000, 1_001)), 211),
        (Some((60, 1)), 210),
        (Some((50, 1)), 210),
        (Some((15, 1)), 210),
        (Some((12, 1)), 175),
        (Some((10, 1)), 210),
        (None, 202),
    ];
    for (fps, part_target_ms) in table {
        let room = claimed(&Source { fps, gop: 30, ..Source::default() });
        let constants = room.oracle.manifest().header().constants.unwrap();
        assert_eq!(constants.part_target_ms, part_target_ms, "{fps:?}");
    }
}

#[test]
fn audio_alone_and_video_alone() {
    for rate in [44_100, 48_000, 96_000, 8_000] {
        let room = room_of(&Source { fps: None, audio: Some(rate), ..Source::default() });
        room.oracle.check_steady(&room.counters());
        assert!(room.segments().len() >= 10);
        assert!(room.segments().iter().all(|s| s.parts.iter().all(|p| p.independent)));
        assert_eq!(room.counters().dropped(), 0);
        for (i, frame) in room.frames(TrackId::Audio).iter().enumerate() {
            assert_eq!(frame.dts, i as u64 * 1_024);
        }
        assert_eq!(room.oracle.manifest().header().frame_rate_milli, None);
    }
    for fps in RATES {
        let room = room_of(&Source { fps: Some(fps), audio: None, ..Source::default() });
        room.oracle.check_steady(&room.counters());
        assert_eq!(room.counters().dropped(), 0);
    }
}

#[test]
fn old_stamps_and_the_wrap_change_nothing() {
    let plain = room_of(&Source::default());
    for start_stamp in [(1 << 24) - 5_000, (1 << 31) - 5_000, u32::MAX - 5_000, 3_000_000_000] {
        let room = room_of(&Source { start_stamp, ..Source::default() });
        assert_eq!(room.oracle.entries, plain.oracle.entries, "{start_stamp}");
        assert_eq!(room.counters(), plain.counters());
    }
}

#[test]
fn tracks_stay_aligned() {
    for audio_lag_ms in [-3_000, -700, -300, 0, 300, 700, 3_000] {
        for start_stamp in [0, u32::MAX - 3_000] {
            let source = Source {
                audio_lag_ms,
                start_stamp,
                audio: Some(44_100),
                duration_ms: 8_000,
                ..Source::default()
            };
            let mut room = Room::new();
            room.begin();
            room.segmenter.configure(super::video_track(0), None);
            room.segmenter.configure(super::audio_track(44_100), None);
            // Time enough before the first sample for audio that comes early.
            source.pushes(10_000).into_iter().for_each(|p| room.push(p));
            room.end();
            assert_eq!(room.counters().reanchored, 0);
            for frame in room.frames(TrackId::Audio) {
                // The payload says which frame it is; video frame 0 is at 0, so is audio frame 0.
                let i = u64::from_be_bytes(frame.payload[..8].try_into().unwrap());
                assert!(frame.dts.abs_diff(i * 1_024) < 600, "{i} at {} ({source:?})", frame.dts);
            }
            // Where one track comes long before the other, the other counts as stalled at the end.
            if audio_lag_ms.abs() < 500 {
                room.oracle.check_steady(&room.counters());
                assert_eq!(room.oracle.holes, 0);
            }
            assert_eq!((room.oracle.squeezed, room.oracle.broken.len()), (0, 0), "{source:?}");
            assert_eq!(room.counters().clamped_segments, 0);
        }
    }
}

#[test]
fn the_same_input_gives_the_same_output() {
    let source = Source { stamps: Stamps::Jitter(15), b_frames: true, ..Source::default() };
    let (one, two) = (room_of(&source), room_of(&source));
    assert_eq!(one.oracle.entries, two.oracle.entries);
    assert_eq!(one.frames(TrackId::Video), two.frames(TrackId::Video));
}

#[test]
fn the_window_covers_what_it_must_and_little_more() {
    for (gop, target_s) in [(15, 2), (30, 2), (60, 2), (90, 3), (250, 9)] {
        let source = Source {
            gop,
            audio: None,
            duration_ms: u64::from(target_s) * 14_000,
            ..Source::default()
        };
        let mut room = Room::with(Settings { window: 5, ..Settings::default() });
        room.publish(&source);
        let constants = room.oracle.manifest().header().constants.unwrap();
        assert_eq!(constants.target_duration_s, target_s, "gop {gop}");
        let listed: u64 = room
            .oracle
            .manifest()
            .segments()
            .iter()
            .filter_map(|s| s.duration)
            .map(u64::from)
            .sum();
        let needed = 6 * u64::from(target_s) * 90_000;
        let segment = u64::from(room.segments()[1].duration);
        assert!(listed >= needed + segment && listed < needed + 3 * segment, "{listed} listed");
        room.end();
    }
}

#[test]
fn bit_rates_are_said_seldom_and_hold() {
    let source = Source { gop: 30, duration_ms: 40_000, ..Source::default() };
    let room = room_of(&source);
    let headers: Vec<_> = room
        .oracle
        .entries
        .iter()
        .filter_map(|e| match e {
            crate::manifest::Entry::Header(h) => Some(h),
            _ => None,
        })
        .collect();
    assert!(headers.len() <= 6, "{} headers", headers.len());
    let last = headers.last().unwrap();
    let peak = room
        .segments()
        .iter()
        .map(|s| {
            let bytes: usize = s.frames.iter().map(|f| f.payload.len()).sum();
            bytes as u64 * 8 * 90_000 / u64::from(s.duration)
        })
        .max()
        .unwrap();
    assert!(last.bandwidth_bps * 11 / 10 >= peak && last.bandwidth_bps <= peak + 1);
    assert!(last.average_bandwidth_bps > 0 && last.average_bandwidth_bps <= last.bandwidth_bps);
}
