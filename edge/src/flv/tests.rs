//! The rules of chunks, rings and cursors, in time that the tests make up.

use bytes::Bytes;
use media::codec::Codec;
use media::feed::Timed;
use media::flv::TagKind;
use media::flv::reader::{Reader, Tag};
use media::frame::Frame;
use media::manifest::{Config, Msn};
use media::track::{Params, Track, TrackId};
use proptest::prelude::*;

use super::chunk::{Chunk, Framing};
use super::cursor::{Before, Step};
use super::*;

fn config(record: u8, audio: bool) -> Arc<Config> {
    let video = Track {
        id: TrackId::Video,
        codec: Codec::Avc,
        timescale: 90_000,
        config: Bytes::from(vec![1, record, 0, 31]),
        params: Params::Video { width: 16, height: 16 },
    };
    let sound = Track {
        id: TrackId::Audio,
        codec: Codec::Aac,
        timescale: 48_000,
        config: Bytes::from_static(&[0x11, 0x90]),
        params: Params::Audio { sample_rate: 48_000, channels: 2, frame_samples: 1024 },
    };
    let tracks = if audio { vec![video, sound] } else { vec![video] };
    Arc::new(Config { id: 1, tracks })
}

/// The picture number `index` at 25 fps, a key frame every `gop`.
fn picture(config: &Arc<Config>, index: u64, gop: u64, len: usize) -> Timed {
    Timed {
        frame: Frame {
            track: TrackId::Video,
            dts: index * 3600,
            cts: 0,
            key: index.is_multiple_of(gop),
            payload: Bytes::from(vec![index as u8; len]),
        },
        msn: Msn(1),
        config: Arc::clone(config),
        discontinuity: false,
    }
}

/// A chunker and its ring, fed a chunk at a time.
struct Room {
    chunker: Chunker,
    ring: Ring,
    config: Arc<Config>,
    gop: u64,
    len: usize,
    next: u64,
    now: Instant,
}

impl Room {
    fn new(gop: u64, len: usize) -> Self {
        Self {
            chunker: Chunker::new(),
            ring: Ring::default(),
            config: config(0x4d, false),
            gop,
            len,
            next: 0,
            now: Instant::now(),
        }
    }

    /// The next pictures, flushed after each, 40 ms apart.
    fn run(&mut self, pictures: u64) {
        for _ in 0..pictures {
            let frame = picture(&self.config, self.next, self.gop, self.len);
            self.chunker.push(&frame, None, self.now).unwrap();
            self.chunker.seal(self.now);
            for chunk in self.chunker.finished() {
                self.ring.push(chunk, self.now);
            }
            self.next += 1;
            self.now += Duration::from_millis(40);
        }
    }

    fn join(&self, gop: bool) -> Cursor {
        Cursor::join(&self.ring, gop, self.now)
    }

    /// What a viewer takes at once: sequence numbers, and whether it was moved on.
    fn take(&self, cursor: &mut Cursor) -> (Vec<u64>, bool, Option<Close>) {
        let (mut taken, mut moved) = (Vec::new(), false);
        loop {
            match cursor.step(&self.ring, self.now) {
                Step::Send { chunk, skipped, .. } => {
                    taken.push(chunk.sequence);
                    moved |= skipped;
                }
                Step::Wait { skipped } => return (taken, moved | skipped, None),
                Step::Close(why) => return (taken, moved, Some(why)),
            }
        }
    }
}

fn tags(bytes: &[u8]) -> Vec<Tag> {
    let mut reader = Reader::new();
    reader.push(bytes);
    std::iter::from_fn(|| reader.next_tag().unwrap()).collect()
}

#[test]
fn the_flush_interval_follows_the_crowd() {
    const FULL: Duration = Duration::from_millis(350);
    let token = CancellationToken::new;
    let (metrics, timeouts) = (Metrics::for_tests(), Timeouts::default());
    let stage = Stage::new(metrics, (2, FULL), timeouts, (token(), token()), TaskTracker::new());
    let at = |viewers: usize| {
        stage.viewers.store(viewers, Ordering::Relaxed);
        stage.flush_interval()
    };
    assert_eq!(at(0), MIN_FLUSH);
    assert_eq!(at(2 * RELAXED_VIEWERS), MIN_FLUSH);
    assert!(at(3 * RELAXED_VIEWERS) > MIN_FLUSH);
    assert!(at(CROWDED_VIEWERS) > at(CROWDED_VIEWERS - 1));
    assert_eq!(at(2 * CROWDED_VIEWERS), FULL);
    assert_eq!(at(1_000_000), FULL);
}

#[test]
fn a_chunk_begins_at_a_key_frame_or_has_none_and_serves_both_framings() {
    let (mut chunker, now, config) = (Chunker::new(), Instant::now(), config(0x4d, false));
    for index in 3..25 {
        chunker.push(&picture(&config, index, 10, 100), None, now).unwrap();
    }
    chunker.seal(now);
    let chunks: Vec<Chunk> = chunker.finished().collect();
    // What comes before the first key frame cannot be decoded and is not sent.
    assert_eq!(chunks.iter().map(|c| c.key).collect::<Vec<_>>(), [true, true]);
    for chunk in &chunks {
        let (plain, framed) = (chunk.bytes(Framing::Plain), chunk.bytes(Framing::WebSocket));
        let header = framed.len() - plain.len();
        assert_eq!(framed[header..].as_ptr(), plain.as_ptr(), "one buffer");
        assert_eq!(framed[..2], [0x82, 126], "a whole binary frame");
        let stream = [&chunk.head(Framing::Plain)[..], plain].concat();
        let keys: Vec<_> = tags(&stream)
            .iter()
            .filter(|t| t.kind == TagKind::Video && t.body[1] == 1)
            .map(|t| t.body[0] >> 4 == 1)
            .collect();
        assert!(keys[0] && !keys[1..].contains(&true));
    }
}

#[test]
fn a_full_chunk_goes_out_by_itself() {
    let (mut chunker, now, config) = (Chunker::new(), Instant::now(), config(0x4d, false));
    for index in 0..8 {
        chunker.push(&picture(&config, index, 100, 100_000), None, now).unwrap();
    }
    let chunks: Vec<_> = chunker.finished().collect();
    assert_eq!(chunks.iter().map(|c| c.key).collect::<Vec<_>>(), [true, false]);
    assert!(!chunker.is_empty());
}

#[test]
fn other_tracks_and_time_that_goes_back_break_the_stream() {
    let now = Instant::now();
    let (one, two) = (config(0x4d, false), config(0x4d, true));
    let mut chunker = Chunker::new();
    chunker.push(&picture(&one, 10, 5, 10), None, now).unwrap();
    assert_eq!(chunker.push(&picture(&two, 11, 5, 10), None, now), Err(Broken::Tracks));
    assert_eq!(chunker.push(&picture(&one, 5, 5, 10), None, now), Err(Broken::Timeline));
    let huge = picture(&one, 11, 5, 17 << 20);
    assert!(matches!(chunker.push(&huge, None, now), Err(Broken::Unwritable(_))));
}

#[test]
fn another_record_of_the_same_tracks_is_a_generation_told_to_everyone() {
    let mut room = Room::new(10, 100);
    room.run(5);
    let mut cursor = room.join(true);
    room.take(&mut cursor);
    room.config = config(0x64, false);
    room.next = 10;
    room.run(2);
    let Step::Send { chunk, before, .. } = cursor.step(&room.ring, room.now) else { panic!() };
    assert_eq!(before, Before::Headers);
    let stream = [b"FLV\x01\x01\0\0\0\x09\0\0\0\0", &chunk.headers(Framing::Plain)[..]].concat();
    let header = &tags(&stream)[0];
    assert_eq!((&header.body[..2], header.body[6]), (&[0x17, 0][..], 0x64));
    assert_eq!(header.timestamp_ms, 400);
    let Step::Send { before, .. } = cursor.step(&room.ring, room.now) else { panic!() };
    assert_eq!(before, Before::Nothing);
}

#[test]
fn viewers_join_at_a_key_frame() {
    let mut room = Room::new(10, 100);
    room.run(25);
    let (mut cached, mut live) = (room.join(true), room.join(false));
    assert_eq!(room.take(&mut cached).0, [20, 21, 22, 23, 24]);
    assert!(room.take(&mut live).0.is_empty());
    room.run(4);
    assert!(room.take(&mut live).0.is_empty());
    room.run(2);
    assert_eq!(room.take(&mut live).0, [30]);
    assert_eq!(room.take(&mut cached).0, (25..31).collect::<Vec<_>>());
}

#[test]
fn who_lags_goes_on_at_the_newest_key_frame_and_leaves_after_three_times() {
    let mut room = Room::new(10, 100);
    room.run(5);
    let mut cursor = room.join(true);
    room.take(&mut cursor);
    for _ in 0..2 {
        room.run(200); // 8 s
        let newest = (room.next - 1) / 10 * 10;
        let (taken, moved, close) = room.take(&mut cursor);
        assert_eq!((taken, moved, close), ((newest..room.next).collect(), true, None));
    }
    room.run(200);
    assert_eq!(room.take(&mut cursor), (vec![], false, Some(Close::Lagging)));
}

#[test]
fn skips_that_are_long_ago_are_forgiven() {
    let mut room = Room::new(10, 100);
    room.run(5);
    let mut cursor = room.join(true);
    room.take(&mut cursor);
    for _ in 0..5 {
        room.run(100);
        assert!(room.take(&mut cursor).1);
        for _ in 0..30 {
            room.run(25);
            assert!(!room.take(&mut cursor).1, "a second behind is nothing");
        }
    }
}

#[test]
fn bytes_count_as_lag_too_but_not_those_of_the_gop_one_joins_with() {
    let mut room = Room::new(100, 150_000);
    room.run(60); // 9 MB since the key frame
    let mut cursor = room.join(true);
    assert_eq!(room.take(&mut cursor).0.len(), 60);
    room.run(20); // 3 MB
    assert_eq!(room.take(&mut cursor).0.len(), 20);
    room.run(15);
    room.run(15); // 4.5 MB in 1.2 s, and a key frame among them
    let (taken, moved, _) = room.take(&mut cursor);
    assert_eq!((taken, moved), ((100..110).collect(), true));
}

#[test]
fn who_lags_without_a_later_key_frame_waits_for_one() {
    let mut room = Room::new(200, 100);
    room.run(5);
    let mut cursor = room.join(true);
    room.take(&mut cursor);
    room.run(100);
    assert_eq!(room.take(&mut cursor), (vec![], true, None));
    room.run(94);
    assert_eq!(room.take(&mut cursor), (vec![], false, None));
    room.run(2);
    assert_eq!(room.take(&mut cursor).0, [200]);
}

#[test]
fn the_end_comes_behind_the_last_chunk() {
    let mut room = Room::new(10, 100);
    room.run(12);
    let (mut cursor, mut waiting) = (room.join(true), room.join(false));
    room.ring.end(Close::Ended);
    room.ring.end(Close::Failed);
    assert_eq!(room.take(&mut cursor), (vec![10, 11], false, Some(Close::Ended)));
    assert_eq!(room.take(&mut waiting), (vec![], false, Some(Close::Ended)));
}

#[test]
fn a_ring_keeps_the_gop_and_a_little_more_within_its_bound() {
    let mut room = Room::new(10, 1000);
    room.run(1000);
    assert!(room.ring.get(room.next - 110).is_none());
    assert!(room.ring.get(room.next - 90).is_some(), "3.6 s back");
    let mut endless = Room::new(u64::MAX, 1 << 20);
    endless.run(100);
    assert_eq!(endless.ring.newest_key(), None);
    let held = (0..100).filter(|s| endless.ring.get(*s).is_some()).count() as u64;
    assert!(held << 20 <= ring::MAX_RING_BYTES);
    assert!(endless.take(&mut endless.join(true)).0.is_empty(), "waits for the next key frame");
}

proptest! {
    /// Whatever a viewer's pace, what it gets is a stream: time goes on, and after a jump comes a key
    /// frame.
    #[test]
    fn every_viewer_gets_a_stream(
        gop in 1_u64..120,
        paces in prop::collection::vec((1_u64..150, 0_usize..60), 1..40),
        cached in any::<bool>(),
    ) {
        let mut room = Room::new(gop, 200);
        room.run(gop + 3);
        let mut cursor = room.join(cached);
        let mut stream = Vec::new();
        'pace: for (pictures, steps) in paces {
            room.run(pictures);
            for _ in 0..steps {
                match cursor.step(&room.ring, room.now) {
                    Step::Send { chunk, before, .. } => {
                        match before {
                            Before::Nothing => {}
                            Before::Head => stream.extend_from_slice(chunk.head(Framing::Plain)),
                            Before::Headers => stream.extend_from_slice(chunk.headers(Framing::Plain)),
                        }
                        stream.extend_from_slice(chunk.bytes(Framing::Plain));
                    }
                    Step::Wait { .. } => break,
                    Step::Close(_) => break 'pace,
                }
            }
        }
        let mut last = None;
        for tag in tags(&stream).iter().filter(|t| t.kind == TagKind::Video && t.body[1] == 1) {
            let follows = last.is_some_and(|last| tag.timestamp_ms == last + 40);
            prop_assert!(follows || tag.body[0] >> 4 == 1, "torn at {}", tag.timestamp_ms);
            prop_assert!(last.is_none_or(|last| tag.timestamp_ms > last));
            last = Some(tag.timestamp_ms);
        }
    }
}
