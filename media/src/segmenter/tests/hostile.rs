//! Publishers that mean harm, or have gone mad: whatever comes, what is said keeps the rules.

use bytes::Bytes;
use proptest::prelude::*;

use super::source::{Source, Stamps, audio_track, video_track};
use super::{Room, Settings};
use crate::segmenter::Sample;
use crate::segmenter::cutter::MAX_FRAMES;
use crate::track::TrackId;

#[derive(Debug, Clone)]
enum Step {
    Begin,
    Gone,
    End,
    Wait(u64),
    Video(u8, Option<f64>),
    Audio(u32),
    /// A sample whose stamp is this far from the last one.
    Near(bool, i32, i32, bool, usize),
    /// A sample with any stamp.
    Far(bool, u32, i32, bool),
    /// Honest media for a while, from the last stamp on.
    Run(Source),
    /// The same sample many times.
    Flood(bool, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let stamps = prop_oneof![
        Just(Stamps::Rounded),
        Just(Stamps::Truncated),
        (1_i64..30).prop_map(Stamps::Jitter)
    ];
    let run = (0_usize..12, stamps, 1_u64..90, any::<bool>(), any::<bool>(), 50_u64..4_000);
    let run = run.prop_map(|(rate, stamps, gop, b_frames, audio, duration_ms)| {
        Step::Run(Source {
            fps: super::steady::RATES.get(rate).copied(),
            stamps,
            gop,
            b_frames,
            audio: audio.then_some(44_100),
            duration_ms,
            ..Source::default()
        })
    });
    prop_oneof![
        2 => Just(Step::Begin),
        2 => Just(Step::Gone),
        1 => (0_u8..20).prop_map(|n| if n == 0 { Step::End } else { Step::Gone }),
        2 => (1_u64..4_000).prop_map(Step::Wait),
        2 => (0_u8..3, proptest::option::of(prop_oneof![
            Just(30.0), Just(0.0), Just(f64::NAN), Just(-1.0), Just(1e9), any::<f64>()
        ])).prop_map(|(v, hint)| Step::Video(v, hint)),
        2 => prop_oneof![Just(44_100), Just(48_000), Just(8_000), Just(96_000)]
            .prop_map(Step::Audio),
        20 => (any::<bool>(), -2_000..3_000_i32, -200..500_i32, any::<bool>(), 0_usize..40)
            .prop_map(|(v, d, c, k, n)| Step::Near(v, d, c, k, n)),
        6 => (any::<bool>(), any::<u32>(), any::<i32>(), any::<bool>())
            .prop_map(|(v, s, c, k)| Step::Far(v, s, c, k)),
        8 => run,
        1 => (any::<bool>(), 1_u16..2_000).prop_map(|(v, n)| Step::Flood(v, n)),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (20_u32..1_000, 200_u32..3_000, 1_u32..5, 1_u32..12, 0_usize..12).prop_map(
        |(part_ms, segment_ms, target_duration_s, max_target_duration_s, window)| Settings {
            part_ms,
            segment_ms,
            target_duration_s,
            max_target_duration_s,
            window,
        },
    )
}

fn sample(video: bool, timestamp_ms: u32, cts_ms: i32, key: bool, len: usize) -> Sample {
    let track = if video { TrackId::Video } else { TrackId::Audio };
    Sample {
        track,
        timestamp_ms,
        cts_ms,
        key: key || !video,
        payload: Bytes::from(vec![7; len]),
        piece: 0,
    }
}

/// Takes the steps; the oracle holds the rules after each of them.
fn drive(room: &mut Room, steps: &[Step]) {
    let mut stamp = 0_u32;
    for step in steps {
        let at = room.now_ms;
        match step {
            Step::Begin => room.begin(),
            Step::Gone => room.gone(),
            Step::End => room.end(),
            Step::Wait(ms) => {
                room.now_ms += ms;
                room.tick();
            }
            Step::Video(version, hint) => room.segmenter.configure(video_track(*version), *hint),
            Step::Audio(rate) => room.segmenter.configure(audio_track(*rate), None),
            Step::Near(video, step_ms, cts_ms, key, len) => {
                stamp = stamp.wrapping_add(*step_ms as u32);
                room.push((at + 10, sample(*video, stamp, *cts_ms, *key, *len)));
            }
            Step::Far(video, far, cts_ms, key) => {
                stamp = *far;
                room.push((at + 10, sample(*video, stamp, *cts_ms, *key, 9)));
            }
            Step::Run(source) => {
                let source = Source { start_stamp: stamp, ..source.clone() };
                source.pushes(at).into_iter().for_each(|p| room.push(p));
                stamp = stamp.wrapping_add(source.duration_ms as u32);
            }
            Step::Flood(video, count) => {
                for _ in 0..*count {
                    room.push((at, sample(*video, stamp, 0, false, 1)));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_comes_the_rules_hold(
        settings in settings(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut room = Room::with(settings);
        // So that most runs get somewhere.
        room.begin();
        room.segmenter.configure(video_track(0), None);
        room.segmenter.configure(audio_track(44_100), None);
        drive(&mut room, &steps);
        let counters = room.counters();
        let mut again = Room::with(settings);
        again.begin();
        again.segmenter.configure(video_track(0), None);
        again.segmenter.configure(audio_track(44_100), None);
        drive(&mut again, &steps);
        prop_assert_eq!(counters, again.counters());
        prop_assert_eq!(&room.oracle.entries, &again.oracle.entries);
        room.end();
        prop_assert_eq!(room.counters().waiting, 0);
    }
}

#[test]
fn a_flood_of_one_stamp_fills_segments_of_bounded_size() {
    for video in [true, false] {
        let mut room = Room::new();
        room.publish(&Source { duration_ms: 1_500, ..Source::default() });
        for _ in 0..60_000 {
            room.push((1_500, sample(video, 1_500, 0, false, 1)));
        }
        room.end();
        assert!(room.segments().iter().all(|s| s.frames.len() <= MAX_FRAMES as usize));
        let counters = room.counters();
        assert!(video || counters.dropped_overlap > 59_000, "{counters:?}");
    }
}
