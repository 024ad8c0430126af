//! The pure functions on the path of a stream, each with a fixed input and one call to measure.
//!
//! In: the test card at 2 Mbit/s. Out: [`Work`]s, the same for the clock ([`speed`](../speed.rs)) and for
//! counting instructions ([`instructions`](../instructions.rs)). No randomness, no time, one thread.

use std::hint::black_box;
use std::sync::Arc;

use bench::card::{Card, Shape};
use bench::stamp::Stamp;
use bytes::{Bytes, BytesMut};
use media::codec::{aac, avc};
use media::feed::{Feed, Limits, Lookup, Part};
use media::flv::{Body, TagKind, audio, video, writer};
use media::frame::Frame;
use media::manifest::{Config, Entry, Epoch, Manifest, PartNumber};
use media::playlist::{self, Form};
use media::segmenter::{Identity, Now, Output, Sample, Segmenter, Settings};
use media::track::{Track, TrackId};
use origin::rtmp::chunk::Reader;
use origin::rtmp::message;
use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::messages::MessagePayload;
use rml_rtmp::time::RtmpTimestamp;
use wire::replica::FrameRecord;

const CARD: &[u8] = include_bytes!("../../node/assets/testcard.flv");
const BITS_PER_SECOND: u64 = 2_000_000;
/// What encoders set; 128 is where both sides begin.
const CHUNK_BYTES: u32 = 4096;
/// What one read takes off a socket.
const READ_BYTES: usize = 16 * 1024;
/// The longest flush of FLV: 350 ms of 30 fps, audio between.
const CHUNK_FRAMES: usize = 27;
const EPOCH: Epoch = Epoch(7);

/// Something to measure.
pub(crate) struct Work {
    /// Its name in the baseline.
    pub(crate) name: &'static str,
    /// What it works through, for bytes per second; 0 where bytes are not the point.
    pub(crate) bytes: usize,
    /// Does it once.
    pub(crate) run: Box<dyn FnMut()>,
}

/// Everything there is to measure.
pub(crate) fn all() -> Vec<Work> {
    let shape = Shape { bits_per_second: Some(BITS_PER_SECOND), gop: None };
    let card = Card::read(CARD, shape).expect("the card is part of the repository");
    let stage = Stage::of(&card);
    vec![
        chunk_reader(&card),
        tag_bodies(&card),
        segmenter(&card),
        stage.part(),
        stage.playlist("playlist-full", Form::Full),
        stage.playlist("playlist-delta", Form::Delta),
        stage.flv_chunk(),
        stage.wire_records(),
        stage.feed(),
    ]
}

/// The first `count` messages of the card.
fn messages(card: &Card, count: u64) -> Vec<(TagKind, u64, Bytes)> {
    let stamp = |index: u64| Stamp { micros: 1_795_305_600_000_000, sequence: index as u32 };
    let one = |index| {
        let (frame, at_ms) = card.frame(index);
        (frame.kind, at_ms, frame.body(stamp(index)))
    };
    (0..count).map(one).collect()
}

/// About a second of a push, as it comes off the socket, to whole messages.
fn chunk_reader(card: &Card) -> Work {
    let mut serializer = ChunkSerializer::new();
    let at = RtmpTimestamp::new(0);
    let mut stream = serializer.set_max_chunk_size(CHUNK_BYTES, at).expect("a legal size").bytes;
    for (kind, at_ms, data) in messages(card, 77) {
        let payload = MessagePayload {
            timestamp: RtmpTimestamp::new(at_ms as u32),
            type_id: kind as u8,
            message_stream_id: 1,
            data,
        };
        let packet = serializer.serialize(&payload, false, false).expect("a legal message");
        stream.extend(packet.bytes);
    }
    let run = {
        let stream = stream.clone();
        move || {
            let mut reader = Reader::new(message::Limits::PUBLISHER);
            for read in stream.chunks(READ_BYTES) {
                let mut input = read;
                while let Some(message) = reader.next(&mut input).expect("legal chunks") {
                    black_box(&message);
                }
            }
        }
    };
    Work { name: "chunk-reader", bytes: stream.len(), run: Box::new(run) }
}

/// What a message is, and whether it is a key frame by its bytes.
fn tag_bodies(card: &Card) -> Work {
    let messages = messages(card, 77);
    let bytes = messages.iter().map(|m| m.2.len()).sum();
    let run = move || {
        for (kind, _, body) in &messages {
            let body = match kind {
                TagKind::Video => video::parse(body),
                _ => audio::parse(body),
            };
            if let (TagKind::Video, Ok(Body::Frame { payload, .. })) = (kind, &body) {
                let _ = black_box(avc::is_key(payload));
            }
            let _ = black_box(body);
        }
    };
    Work { name: "tag-bodies", bytes, run: Box::new(run) }
}

/// The card's tracks and its frames as samples.
fn samples(card: &Card, count: u64) -> (Vec<Track>, Vec<(u64, Sample)>) {
    let tracks = card.headers.iter().map(|tag| {
        let body = match tag.kind {
            TagKind::Video => video::parse(&tag.body),
            _ => audio::parse(&tag.body),
        };
        let Ok(Body::SequenceHeader { config, .. }) = body else { panic!("no header: {body:?}") };
        match tag.kind {
            TagKind::Video => avc::DecoderConfig::parse(&config).expect("a valid record").track(),
            _ => aac::AudioConfig::parse(&config).expect("a valid configuration").track(),
        }
    });
    let sample = |(kind, at_ms, body): (TagKind, u64, Bytes)| {
        let (track, body) = match kind {
            TagKind::Video => (TrackId::Video, video::parse(&body)),
            _ => (TrackId::Audio, audio::parse(&body)),
        };
        let Ok(Body::Frame { cts_ms, payload, .. }) = body else { panic!("no frame: {body:?}") };
        let key = track == TrackId::Audio || avc::is_key(&payload).expect("whole NAL units");
        (at_ms, Sample { track, timestamp_ms: at_ms as u32, cts_ms, key, payload, piece: 0 })
    };
    (tracks.collect(), messages(card, count).into_iter().map(sample).collect())
}

fn cut(tracks: &[Track], samples: &[(u64, Sample)]) -> (Segmenter, Vec<Output>) {
    let identity = Identity { epoch: EPOCH, generation: 1, msn_base: 1000 };
    let mut segmenter = Segmenter::new(Settings::default(), identity);
    let mut out = Vec::new();
    let now = |at_ms: u64| Now { mono_ms: at_ms, unix_ms: 1_795_305_600_000 + at_ms };
    segmenter.begin(now(0), &mut out);
    for track in tracks {
        segmenter.configure(track.clone(), None);
    }
    for (at_ms, sample) in samples {
        segmenter.push(now(*at_ms), sample.clone(), &mut out);
    }
    (segmenter, out)
}

/// Sixteen seconds of samples to parts and segments.
fn segmenter(card: &Card) -> Work {
    let (tracks, samples) = samples(card, 1230);
    let run = move || {
        black_box(cut(&tracks, &samples));
    };
    Work { name: "segmenter", bytes: 0, run: Box::new(run) }
}

/// A room after sixteen seconds.
struct Stage {
    outputs: Vec<Output>,
    segmenter: Segmenter,
    manifest: Arc<Manifest>,
    config: Arc<Config>,
    part: Arc<Part>,
    frames: Vec<Frame>,
}

impl Stage {
    fn of(card: &Card) -> Self {
        let (tracks, samples) = samples(card, 1230);
        let (segmenter, outputs) = cut(&tracks, &samples);
        let feed = filled(&segmenter, &outputs);
        let manifest = feed.manifest();
        let config = Arc::clone(manifest.config().expect("tracks are known"));
        let next = manifest.next_part().expect("parts were cut");
        // The one before the last is a whole one within a segment or at its end.
        let Lookup::Ready(part) = feed.part(EPOCH, PartNumber(next.0 - 2)) else {
            panic!("the part is there")
        };
        let frames = outputs.iter().filter_map(|output| match output {
            Output::Frame { frame, .. } => Some(frame.clone()),
            Output::Entry(_) => None,
        });
        let frames = frames.collect();
        Self { segmenter, outputs, manifest, config, part, frames }
    }

    /// A part to fMP4.
    fn part(&self) -> Work {
        let (config, part) = (Arc::clone(&self.config), Arc::clone(&self.part));
        let bytes = part.frames.iter().map(|f| f.payload.len()).sum();
        let run = move || {
            let meta = &part.meta;
            let made = media::fmp4::part(&config, meta.part, part.start, meta.end, &part.frames);
            black_box(made.expect("a part of the segmenter"));
        };
        Work { name: "fmp4-part", bytes, run: Box::new(run) }
    }

    fn playlist(&self, name: &'static str, form: Form) -> Work {
        let manifest = Arc::clone(&self.manifest);
        let run = move || {
            black_box(playlist::media(&manifest, form).expect("the room is playable"));
        };
        Work { name, bytes: 0, run: Box::new(run) }
    }

    /// The frames of the longest flush to FLV tags in one buffer.
    fn flv_chunk(&self) -> Work {
        let frames = self.frames[..CHUNK_FRAMES].to_vec();
        let config = Arc::clone(&self.config);
        let bytes = frames.iter().map(|f| f.payload.len()).sum();
        let run = move || {
            let size = frames.iter().map(writer::tag_len).sum();
            let mut chunk = BytesMut::with_capacity(size);
            for frame in &frames {
                let track = config.track(frame.track).expect("a frame of a known track");
                writer::write_tag(&mut chunk, track, frame).expect("a frame of the card");
            }
            black_box(chunk.freeze());
        };
        Work { name: "flv-chunk", bytes, run: Box::new(run) }
    }

    /// The frames of a part to records and back.
    fn wire_records(&self) -> Work {
        let record = |frame: &Frame| FrameRecord {
            track: u8::from(frame.track == TrackId::Audio),
            key: frame.key,
            dts: frame.dts,
            cts: frame.cts,
            payload: frame.payload.clone(),
        };
        let records: Vec<_> = self.part.frames.iter().map(record).collect();
        let joined: Vec<Bytes> =
            records.iter().map(|r| [r.header(), r.payload.clone()].concat().into()).collect();
        let run = move || {
            for (record, joined) in records.iter().zip(&joined) {
                black_box(record.header());
                black_box(FrameRecord::decode(joined.clone()).expect("our own record"));
            }
        };
        Work { name: "wire-records", bytes: 0, run: Box::new(run) }
    }

    /// Sixteen seconds of entries and frames into a feed.
    fn feed(self) -> Work {
        let Self { segmenter, outputs, .. } = self;
        let run = move || {
            black_box(filled(&segmenter, &outputs));
        };
        Work { name: "feed-fill", bytes: 0, run: Box::new(run) }
    }
}

fn filled(segmenter: &Segmenter, outputs: &[Output]) -> Feed {
    let feed = Feed::new(segmenter.header(), Limits::default());
    let mut batch: Vec<Entry> = Vec::new();
    for output in outputs {
        match output {
            Output::Entry(entry) => batch.push(entry.clone()),
            Output::Frame { msn, frame } => {
                if !batch.is_empty() {
                    feed.apply(std::mem::take(&mut batch)).expect("entries in order");
                }
                feed.push_next(*msn, frame.clone()).expect("frames in order");
            }
        }
    }
    feed.apply(batch).expect("entries in order");
    feed
}
