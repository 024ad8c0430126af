//! The feed as its readers see it.

use bytes::Bytes;

use super::*;
use crate::codec::Codec;
use crate::manifest::{
    Config, Constants, PartEnd, SegmentClose, SegmentOpen, TrackTimes, WindowStart,
};
use crate::track::{Params, Track, TrackId};

const FRAME: u64 = 3_000;

fn header(epoch: u64) -> Header {
    Header {
        epoch: Epoch(epoch),
        generation: 1,
        render_version: 1,
        constants: Some(Constants { target_duration_s: 2, part_target_ms: 210 }),
        bandwidth_bps: 1,
        average_bandwidth_bps: 1,
        frame_rate_milli: Some(30_000),
    }
}

fn config(id: u32) -> Config {
    let video = Track {
        id: TrackId::Video,
        codec: Codec::Avc,
        timescale: 90_000,
        config: Bytes::from_static(&[1]),
        params: Params::Video { width: 16, height: 16 },
    };
    Config { id, tracks: vec![video] }
}

fn open(msn: u64, first_part: u64, dts: u64) -> Entry {
    Entry::Open(SegmentOpen {
        msn: Msn(msn),
        epoch: Epoch(7),
        config: 1,
        discontinuity: false,
        pdt_ms: 0,
        start: TrackTimes { video: Some(dts), audio: None },
        first_part: PartNumber(first_part),
    })
}

fn part(msn: u64, number: u64, frames_end: u32, dts: u64) -> Entry {
    Entry::Part(PartEnd {
        msn: Msn(msn),
        part: PartNumber(number),
        frames_end,
        duration: 2 * 3_000,
        independent: frames_end == 2,
        end: TrackTimes { video: Some(dts), audio: None },
    })
}

fn close(msn: u64) -> Entry {
    Entry::Close(SegmentClose { msn: Msn(msn), duration: 4 * 3_000 })
}

fn window(first: u64) -> Entry {
    Entry::Window(WindowStart { first: Msn(first), discontinuity_sequence: 10 })
}

fn frame(dts: u64, key: bool) -> Frame {
    Frame {
        track: TrackId::Video,
        dts,
        cts: 0,
        key,
        payload: Bytes::from(dts.to_be_bytes().to_vec()),
    }
}

/// Segment `msn` of four frames in two parts, as a home would say it.
fn say_segment(feed: &Feed, msn: u64) {
    let dts = (msn - 10) * 4 * FRAME;
    let first_part = 1 + (msn - 10) * 2;
    feed.apply(vec![open(msn, first_part, dts)]).unwrap();
    for i in 0..4u64 {
        assert!(feed.push_next(Msn(msn), frame(dts + i * FRAME, i == 0)).unwrap());
        if i == 1 {
            feed.apply(vec![part(msn, first_part, 2, dts + 2 * FRAME)]).unwrap();
        }
    }
    feed.apply(vec![part(msn, first_part + 1, 4, dts + 4 * FRAME), close(msn)]).unwrap();
}

fn feed() -> Feed {
    let feed = Feed::new(header(7), Limits::default());
    feed.apply(vec![Entry::Config(config(1)), window(10)]).unwrap();
    feed
}

/// Moves everything `from` says into `to` by the replication interface.
fn copy(from: &Feed, to: &Feed) {
    let (dump, _) = from.attach();
    to.apply(dump).unwrap();
    let segments: Vec<_> = from.said().segments().iter().map(|s| s.open.msn).collect();
    for msn in segments {
        let have = to.frames_of(msn);
        for (i, f) in from.segment_frames(msn, have).unwrap().frames.into_iter().enumerate() {
            assert!(to.push(msn, have + u32::try_from(i).unwrap(), f).unwrap());
        }
    }
}

#[test]
fn a_part_is_published_when_entry_and_bytes_are_both_here() {
    let feed = feed();
    feed.apply(vec![open(10, 1, 0)]).unwrap();
    feed.push(Msn(10), 0, frame(0, true)).unwrap();
    feed.apply(vec![part(10, 1, 2, 2 * FRAME)]).unwrap();
    assert_eq!(feed.manifest().head().parts, 0, "one of its two frames is missing");
    assert_eq!(feed.part(Epoch(7), PartNumber(1)), Lookup::Coming);
    feed.push(Msn(10), 1, frame(FRAME, false)).unwrap();
    assert_eq!(
        feed.manifest().head(),
        crate::manifest::Head { epoch: Epoch(7), msn: Msn(10), parts: 1 }
    );
    let Lookup::Ready(found) = feed.part(Epoch(7), PartNumber(1)) else { panic!("not published") };
    assert_eq!(found.frames.len(), 2);
    assert_eq!(feed.part(Epoch(7), PartNumber(2)), Lookup::Unknown);
    assert_eq!(feed.part(Epoch(6), PartNumber(1)), Lookup::Unknown, "another epoch, another name");
}

#[test]
fn a_later_segment_waits_for_an_older_one() {
    let feed = feed();
    feed.apply(vec![open(10, 1, 0), part(10, 1, 2, 2 * FRAME), close(10), open(11, 2, 2 * FRAME)])
        .unwrap();
    feed.apply(vec![part(11, 2, 1, 3 * FRAME)]).unwrap();
    feed.push(Msn(11), 0, frame(2 * FRAME, true)).unwrap();
    assert_eq!(feed.manifest().head().msn, Msn(0));
    let mut cursor = Cursor::at(Msn(10), 0);
    assert_eq!(feed.read(&mut cursor, 8), Read::Stalled);
    assert!(feed.skip(&mut cursor));
    assert_eq!((cursor.msn, cursor.index), (Msn(11), 0));
    feed.push(Msn(10), 0, frame(0, true)).unwrap();
    feed.push(Msn(10), 1, frame(FRAME, false)).unwrap();
    assert_eq!(feed.manifest().head().msn, Msn(11));
}

#[test]
fn a_copied_feed_is_equal_and_copying_again_changes_nothing() {
    let (home, edge) = (feed(), Feed::new(header(7), Limits::default()));
    for msn in 10..13 {
        say_segment(&home, msn);
    }
    copy(&home, &edge);
    assert_eq!(edge.manifest(), home.manifest());
    say_segment(&home, 13);
    copy(&home, &edge);
    copy(&home, &edge);
    assert_eq!(edge.manifest(), home.manifest());
    assert_eq!(edge.segment(Epoch(7), Msn(12)), home.segment(Epoch(7), Msn(12)));
}

#[test]
fn a_follower_reads_batches_and_learns_when_it_fell_behind() {
    let feed = feed();
    let (_, mut cursor) = feed.attach();
    say_segment(&feed, 10);
    let batches = feed.batches_since(&mut cursor).unwrap();
    assert_eq!(batches.len(), 3);
    assert!(feed.batches_since(&mut cursor).unwrap().is_empty());
    for _ in 0..=LOG_BATCHES {
        feed.apply(vec![Entry::Grace]).unwrap();
        feed.apply(vec![Entry::Resumed]).unwrap();
    }
    assert_eq!(feed.batches_since(&mut cursor), None);
}

#[test]
fn bytes_outlive_the_list_by_three_target_durations() {
    let feed = feed();
    // A segment lasts 12,000 ticks; three target durations of 2 s are 540,000 ticks, 45 segments.
    for msn in 10..80 {
        say_segment(&feed, msn);
        feed.apply(vec![window(msn.max(12) - 2)]).unwrap();
    }
    let first = feed.manifest().window().first;
    assert_eq!(first, Msn(77));
    assert!(matches!(feed.segment(Epoch(7), Msn(77 - 45)), Lookup::Ready(_)));
    assert_eq!(feed.segment(Epoch(7), Msn(77 - 47)), Lookup::Unknown);
}

#[test]
fn over_the_byte_limit_the_oldest_bytes_go_first() {
    let feed = Feed::new(header(7), Limits { max_bytes: 8 * 4 * 3 });
    feed.apply(vec![Entry::Config(config(1)), window(10)]).unwrap();
    for msn in 10..20 {
        say_segment(&feed, msn);
    }
    assert!(feed.counters().bytes <= 8 * 4 * 3);
    assert_eq!(feed.counters().evicted_listed, 7);
    assert_eq!(feed.segment(Epoch(7), Msn(10)), Lookup::Coming, "listed, but its bytes are gone");
}

#[test]
fn a_cursor_starts_at_the_newest_key_and_reads_in_order_to_the_end() {
    let feed = feed();
    assert_eq!(feed.cursor(Start::LatestKey), None);
    for msn in 10..13 {
        say_segment(&feed, msn);
    }
    let mut cursor = feed.cursor(Start::LatestKey).unwrap();
    assert_eq!((cursor.msn, cursor.index), (Msn(12), 0));
    say_segment(&feed, 13);
    let Read::Frames(frames) = feed.read(&mut cursor, 100) else { panic!("nothing read") };
    let times: Vec<_> = frames.iter().map(|t| t.frame.dts / FRAME).collect();
    assert_eq!(times, (8..16).collect::<Vec<_>>());
    assert_eq!(feed.read(&mut cursor, 100), Read::Waiting);
    feed.apply(vec![Entry::End]).unwrap();
    assert_eq!(feed.read(&mut cursor, 100), Read::Ended);
    let mut late = Cursor::at(Msn(1), 0);
    assert_eq!(feed.read(&mut late, 100), Read::Behind);
}

#[test]
fn holes_and_contradictions_are_refused() {
    let feed = feed();
    assert!(!feed.push(Msn(10), 0, frame(0, true)).unwrap(), "not open yet");
    feed.apply(vec![open(10, 1, 0)]).unwrap();
    assert!(matches!(feed.push(Msn(10), 1, frame(0, true)), Err(Error::Hole { .. })));
    assert!(feed.apply(vec![open(12, 5, 0)]).is_err(), "while another is open");
    assert!(feed.apply(vec![part(10, 3, 1, 0)]).is_err(), "parts count by one");
    let older = header(6);
    assert!(feed.apply(vec![Entry::Header(older)]).is_err(), "epochs never go down");
    let mut changed = header(7);
    changed.constants = Some(Constants { target_duration_s: 3, part_target_ms: 210 });
    assert!(feed.apply(vec![Entry::Header(changed.clone())]).is_err(), "constants are constant");
    changed.constants = None;
    assert!(feed.apply(vec![Entry::Header(changed)]).is_err(), "and stay");
}

#[test]
fn a_new_home_without_a_past_jumps_forward() {
    let feed = feed();
    say_segment(&feed, 10);
    let mut next = config(1);
    next.tracks[0].config = Bytes::from_static(&[2]);
    feed.apply(vec![
        Entry::Header(header(9)),
        Entry::Window(WindowStart { first: Msn(500), discontinuity_sequence: 500 }),
        Entry::Config(next.clone()),
        Entry::Open(SegmentOpen {
            msn: Msn(500),
            epoch: Epoch(9),
            config: 1,
            discontinuity: true,
            pdt_ms: 0,
            start: TrackTimes { video: Some(0), audio: None },
            first_part: PartNumber(1),
        }),
    ])
    .unwrap();
    let manifest = feed.manifest();
    assert_eq!(manifest.config().unwrap().tracks, next.tracks, "a reused id is the newest");
    let late = Feed::new(header(9), Limits::default());
    late.apply(feed.attach().0).unwrap();
    assert_eq!(late.said(), *manifest, "who subscribes late is told the same");
    assert_eq!(manifest.segments().len(), 1);
    assert_eq!(manifest.last().unwrap().config.tracks, next.tracks);
    assert!(matches!(feed.segment(Epoch(7), Msn(10)), Lookup::Ready(_)), "still fetchable");
}

#[test]
fn a_playlist_stays_until_a_home_without_a_past_has_another() {
    let feed = feed();
    say_segment(&feed, 10);
    let before = feed.manifest();
    assert!(before.is_playable());
    let anew = Header { constants: None, ..header(9) };
    let opened = SegmentOpen {
        msn: Msn(500),
        epoch: Epoch(9),
        config: 1,
        discontinuity: false,
        pdt_ms: 0,
        start: TrackTimes { video: Some(0), audio: None },
        first_part: PartNumber(9),
    };
    feed.apply(vec![
        Entry::Header(anew),
        Entry::Window(WindowStart { first: Msn(500), discontinuity_sequence: 500 }),
        Entry::Config(config(1)),
        Entry::Open(opened),
    ])
    .unwrap();
    for i in 0..2 {
        assert!(feed.push(Msn(500), i, frame(u64::from(i) * FRAME, i == 0)).unwrap());
    }
    feed.apply(vec![part(500, 9, 2, 2 * FRAME)]).unwrap();
    assert_eq!(feed.manifest(), before, "the list that was there is still there");
    assert!(matches!(feed.segment(Epoch(7), Msn(10)), Lookup::Ready(_)));

    let duration = 2 * 3_000;
    let closed = Entry::Close(SegmentClose { msn: Msn(500), duration });
    feed.apply(vec![Entry::Header(header(9)), closed]).unwrap();
    let manifest = feed.manifest();
    assert!(manifest.is_playable());
    assert_eq!((manifest.header().epoch, manifest.window().first), (Epoch(9), Msn(500)));
}
