//! Take-overs: a stream that moved between its parts is the stream that never moved.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::tests::source::{Push, Source, audio_track, now, video_track};
use super::*;
use crate::feed::{Cursor, Feed, Limits, Lookup, Read};
use crate::manifest::Msn;
use crate::playlist::check::Checker;
use crate::playlist::{self, Form};
use crate::segmenter::Output;

const PUBLISH: u64 = 77;

fn identity(epoch: u64) -> Identity {
    Identity { epoch: Epoch(epoch), generation: 1, msn_base: 1_000 * epoch }
}

/// A home: a segmenter that publishes into a feed.
struct Home {
    segmenter: Segmenter,
    feed: Feed,
}

impl Home {
    fn new(source: &Source) -> Self {
        let segmenter = Segmenter::new(Settings::default(), identity(3));
        let feed = Feed::new(segmenter.header(), Limits::default());
        let mut home = Self { segmenter, feed };
        home.segmenter.identify(PUBLISH);
        let mut out = Vec::new();
        home.segmenter.begin(now(0), &mut out);
        home.configure(source);
        home.publish(out);
        home
    }

    fn configure(&mut self, source: &Source) {
        if source.fps.is_some() {
            self.segmenter.configure(video_track(0), None);
        }
        if let Some(rate) = source.audio {
            self.segmenter.configure(audio_track(rate), None);
        }
    }

    /// Takes over from what `donor` has published.
    fn after(donor: &Feed, epoch: u64, age_ms: u64) -> Option<Self> {
        let past = donor.manifest();
        let (segmenter, entries) =
            Segmenter::take_over(Settings::default(), identity(epoch), &past, age_ms)?;
        let feed = Feed::new(segmenter.header(), Limits::default());
        feed.apply(entries).unwrap();
        copy_bytes(donor, &feed);
        Some(Self { segmenter, feed })
    }

    fn push(&mut self, (at, sample): Push) {
        let mut out = Vec::new();
        self.segmenter.push(now(at), sample, &mut out);
        self.publish(out);
    }

    fn publish(&self, out: Vec<Output>) {
        let mut batch = Vec::new();
        for output in out {
            match output {
                Output::Entry(entry) => batch.push(entry),
                Output::Frame { msn, frame } => {
                    self.feed.apply(std::mem::take(&mut batch)).unwrap();
                    assert!(self.feed.push_next(msn, frame).unwrap());
                }
            }
        }
        self.feed.apply(batch).unwrap();
    }
}

fn copy_bytes(from: &Feed, to: &Feed) {
    for segment in from.said().segments() {
        let msn = segment.open.msn;
        let have = to.frames_of(msn);
        for (i, frame) in from.segment_frames(msn, have).unwrap().frames.into_iter().enumerate() {
            to.push_of(segment.open.epoch, msn, have + i as u32, frame).unwrap();
        }
    }
}

/// What an edge that follows `home` has.
fn follow(home: &Feed, edge: &Feed) {
    edge.apply(home.attach().0).unwrap();
    copy_bytes(home, edge);
}

fn numbered(source: &Source) -> Vec<Push> {
    let number = |(piece, (at, sample)): (usize, Push)| {
        (at, super::super::Sample { piece: piece as u64, ..sample })
    };
    source.pushes(0).into_iter().enumerate().map(number).collect()
}

/// The frames of a feed from its first to its last, as an FLV viewer reads them.
fn read_all(feed: &Feed, cursor: &mut Cursor) -> Vec<(TrackId, u64, i32, Bytes)> {
    match feed.read(cursor, usize::MAX) {
        Read::Frames(frames) => frames
            .into_iter()
            .map(|t| (t.frame.track, t.frame.dts, t.frame.cts, t.frame.payload))
            .collect(),
        _ => Vec::new(),
    }
}

fn source() -> impl Strategy<Value = Source> {
    use super::super::tests::source::Stamps;
    let fps = prop::sample::select(vec![Some((30, 1)), Some((30_000, 1_001)), Some((25, 1)), None]);
    let stamps = prop::sample::select(vec![Stamps::Rounded, Stamps::Truncated, Stamps::Jitter(2)]);
    let audio = prop::sample::select(vec![Some(48_000), Some(44_100), None]);
    (fps, stamps, audio, any::<bool>(), 0..u32::MAX, 0i64..60, 20u64..90).prop_map(
        |(fps, stamps, audio, b_frames, start_stamp, audio_lag_ms, gop)| Source {
            fps,
            stamps,
            gop,
            b_frames,
            audio: audio.or(fps.is_none().then_some(48_000)),
            audio_lag_ms,
            start_stamp,
            duration_ms: 9_000,
            seed: 5,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whenever the home dies, the frames that viewers get are those they would have got, each once
    /// and at the same time, and the list keeps every rule.
    #[test]
    fn a_push_goes_on_as_if_nothing_had_moved(
        source in source(), dies_at in 4_000u64..8_000, donor_lags in 0usize..40, again in any::<bool>(),
    ) {
        let pushes = numbered(&source);
        let mut alone = Home::new(&source);
        for push in pushes.clone() {
            alone.push(push);
        }
        let expected = read_all(&alone.feed, &mut Cursor::at(Msn(3_000), 0));

        let mut home = Home::new(&source);
        let edge = Feed::new(home.segmenter.header(), Limits::default());
        let lagging = Feed::new(home.segmenter.header(), Limits::default());
        let died = pushes.iter().position(|(at, _)| *at >= dies_at).unwrap();
        for (i, push) in pushes[..died].iter().enumerate() {
            home.push(push.clone());
            if i + donor_lags == died {
                follow(&home.feed, &lagging);
            }
        }
        follow(&home.feed, &edge);
        let mut viewer = Cursor::at(Msn(3_000), 0);
        let mut seen = read_all(&edge, &mut viewer);
        let mut checker = Checker::new();
        let observe = |edge: &Feed, checker: &mut Checker| {
            let text = playlist::media(&edge.manifest(), Form::Full).unwrap();
            checker.observe(&text).unwrap_or_else(|found| panic!("{found:?} in\n{text}"));
        };
        observe(&edge, &mut checker);

        // The donor may be one that had less than the edge which the viewer is on.
        let lags = lagging.manifest().is_playable() && lagging.manifest() != edge.manifest();
        let donor = if lags { &lagging } else { &edge };
        let mut next = Home::after(donor, 4, 2_000).unwrap();
        if again {
            next = Home::after(&next.feed, 5, 2_000).unwrap();
        }
        let (publish, from) = next.segmenter.wants().unwrap();
        prop_assert_eq!(publish, PUBLISH);
        next.configure(&source);
        let mut out = Vec::new();
        prop_assert!(next.segmenter.go_on(&mut out));
        next.publish(out);
        let head = edge.manifest().head();
        follow(&next.feed, &edge);
        let kept = edge.manifest().head();
        prop_assert!((kept.msn, kept.parts) >= (head.msn, head.parts), "{head:?} {kept:?}");
        for (i, push) in pushes[usize::try_from(from).unwrap()..].iter().enumerate() {
            next.push(push.clone());
            if i % 40 == 39 {
                follow(&next.feed, &edge);
                seen.extend(read_all(&edge, &mut viewer));
                if lags {
                    // What it showed beyond the donor is taken back, which is not what a list does.
                    checker = Checker::new();
                }
                observe(&edge, &mut checker);
            }
        }
        follow(&next.feed, &edge);
        seen.extend(read_all(&edge, &mut viewer));
        if !lags {
            observe(&edge, &mut checker);
        }
        for track in [TrackId::Video, TrackId::Audio] {
            let of = |frames: &[(TrackId, u64, i32, Bytes)]| {
                frames.iter().filter(|f| f.0 == track).cloned().collect::<Vec<_>>()
            };
            let (seen, expected) = (of(&seen), of(&expected));
            prop_assert_eq!(seen.len(), expected.len());
            for (got, due) in seen.iter().zip(&expected) {
                prop_assert_eq!(&got.3, &due.3);
                // A grid being moved after drifting stamps may be moved a little differently.
                prop_assert!(got.1.abs_diff(due.1) <= 180, "{} for {}", got.1, due.1);
            }
        }
        let manifest = edge.manifest();
        prop_assert!(manifest.segments().iter().all(|s| !s.open.discontinuity));
        prop_assert_eq!(next.segmenter.counters().lost_grid, 0);
    }
}

/// A home that died after some seconds of a plain stream, and what was pushed to it.
fn dead(source: &Source, at_ms: u64) -> (Home, Vec<Push>) {
    let pushes = numbered(source);
    let mut home = Home::new(source);
    for push in pushes.iter().filter(|(at, _)| *at < at_ms) {
        home.push(push.clone());
    }
    (home, pushes)
}

#[test]
fn another_push_begins_after_a_discontinuity_as_late_as_the_past_is_old() {
    let source = Source::default();
    let (home, _) = dead(&source, 5_500);
    let edge = Feed::new(home.segmenter.header(), Limits::default());
    follow(&home.feed, &edge);
    let mut next = Home::after(&edge, 4, 1_700).unwrap();
    let last = next.feed.said().last().map(|s| (s.open.msn, s.part_start(s.parts.len()))).unwrap();
    next.segmenter.identify(PUBLISH + 1);
    let mut out = Vec::new();
    next.segmenter.begin(now(9_000), &mut out);
    next.configure(&source);
    next.publish(out);
    for (at, sample) in numbered(&source) {
        next.push((9_000 + at, sample));
    }
    follow(&next.feed, &edge);
    let manifest = edge.manifest();
    let first = manifest.segment(last.0.next()).unwrap();
    assert!(first.open.discontinuity && first.starts_independent());
    let later = first.open.start.video.unwrap() - last.1.video.unwrap();
    assert!((1_700 * 90..1_800 * 90).contains(&later), "{later}");
    assert_eq!(manifest.mark().map(|m| m.publish), Some(PUBLISH + 1));
}

#[test]
fn a_longer_segment_of_the_dead_home_keeps_its_name_to_itself() {
    let source = Source { audio: None, ..Source::default() };
    let (mut home, pushes) = dead(&source, 4_000);
    let short = Feed::new(home.segmenter.header(), Limits::default());
    let long = Feed::new(home.segmenter.header(), Limits::default());
    let mut rest = pushes.iter().filter(|(at, _)| (4_000..6_300).contains(at)).cloned();
    // The donor has two parts of the open segment, another edge all of it and the start of the next.
    for push in rest.by_ref() {
        home.push(push);
        if home.feed.manifest().last().is_some_and(|s| s.parts.len() == 2) {
            break;
        }
    }
    follow(&home.feed, &short);
    rest.for_each(|push| home.push(push));
    follow(&home.feed, &long);
    let sealed = short.manifest().last().unwrap().open.msn;
    let before = long.manifest();
    let was = before.segment(sealed).unwrap();
    assert!(was.duration.is_some() && before.head().msn > sealed);
    let longer = long.segment(Epoch(3), sealed);

    let mut next = Home::after(&short, 4, 0).unwrap();
    follow(&next.feed, &long);
    assert_eq!(long.manifest().head(), before.head(), "nothing is taken back yet");
    let mut out = Vec::new();
    next.configure(&source);
    assert!(next.segmenter.go_on(&mut out));
    next.publish(out);
    let from = next.segmenter.wants().unwrap().1;
    for push in pushes.iter().skip(usize::try_from(from).unwrap()) {
        next.push(push.clone());
    }
    follow(&next.feed, &long);
    let now = long.manifest();
    assert_eq!(now.segment(sealed).unwrap().name_epoch(), Epoch(4));
    assert_eq!(now.segment(sealed.next()).unwrap().open.epoch, Epoch(4));
    assert!(matches!(longer, Lookup::Ready(_)));
    assert_eq!(long.segment(Epoch(3), sealed), longer, "viewers that have its name still get it");
    let shorter = next.feed.segment(Epoch(4), sealed);
    assert!(matches!(&shorter, Lookup::Ready(parts) if parts.len() == 2), "{shorter:?}");
    assert_eq!(long.segment(Epoch(4), sealed), shorter);
    let void = was.parts.last().unwrap().part;
    assert!(matches!(long.part(Epoch(3), void), Lookup::Ready(_)));
}

#[test]
fn what_cannot_be_taken_over_is_not() {
    let source = Source::default();
    let (home, _) = dead(&source, 900);
    assert!(Home::after(&home.feed, 4, 0).is_none(), "nothing was listed yet");
    let (mut home, _) = dead(&source, 5_000);
    assert!(Home::after(&home.feed, 3, 0).is_none(), "the same epoch");
    let mut out = Vec::new();
    home.segmenter.end(&mut out);
    home.publish(out);
    assert!(Home::after(&home.feed, 4, 0).is_none(), "it was over");
}
