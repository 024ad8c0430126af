//! A stream made by hand: the test clip over and over, cut into parts of 0.2 s and segments of 1 s.

use bytes::Bytes;
use media::codec::aac::AudioConfig;
use media::codec::avc;
use media::feed::{Feed, Limits};
use media::flv::reader::Reader;
use media::flv::{Body, TagKind, audio, video};
use media::frame::Frame;
use media::manifest::{
    Config, Constants, Entry, Epoch, Header, Msn, PartEnd, PartNumber, SegmentClose, SegmentOpen,
    TrackTimes, WindowStart,
};
use media::track::{Track, TrackId};

const CLIP: &[u8] = include_bytes!("../../../../media/testdata/clip.flv");
const VIDEO_FRAME: u64 = 3000;
const AUDIO_FRAME: u64 = 1024;
/// Video frames of a part.
const PART_FRAMES: u64 = 6;
pub(crate) const PARTS_PER_SEGMENT: u64 = 5;
/// Complete segments listed.
const WINDOW: u64 = 14;

/// Plays the home: pushes frames and says what they are.
pub(crate) struct Reel {
    pub(crate) feed: Feed,
    header: Header,
    config: Config,
    video: Vec<(i32, bool, Bytes)>,
    audio: Vec<Bytes>,
    next_video: u64,
    next_audio: u64,
    msn: u64,
    first_msn: u64,
    part: u64,
    /// Parts of the open segment; none while no segment is open.
    parts: Option<u64>,
    frames_end: u32,
    discontinuity: bool,
    only: Option<TrackId>,
}

/// Frames that were said and not yet delivered.
pub(crate) struct Undelivered {
    msn: Msn,
    first: u32,
    frames: Vec<Frame>,
}

impl Reel {
    /// A room with audio and video at the start of its life.
    pub(crate) fn new() -> Self {
        Self::with_epoch(7, 100)
    }

    pub(crate) fn with_epoch(epoch: u64, first_msn: u64) -> Self {
        let header = Header {
            epoch: Epoch(epoch),
            generation: 1,
            render_version: 1,
            constants: Some(Constants { target_duration_s: 2, part_target_ms: 210 }),
            bandwidth_bps: 200_000,
            average_bandwidth_bps: 150_000,
            frame_rate_milli: Some(30_000),
        };
        let (config, video, audio) = clip();
        let feed = Feed::new(header.clone(), Limits::default());
        let reel = Self {
            feed,
            header,
            config,
            video,
            audio,
            next_video: 0,
            next_audio: 0,
            msn: first_msn,
            first_msn,
            part: first_msn * 10,
            parts: None,
            frames_end: 0,
            discontinuity: false,
            only: None,
        };
        let entries = vec![
            Entry::Header(reel.header.clone()),
            Entry::Config(reel.config.clone()),
            Entry::Window(WindowStart { first: Msn(first_msn), discontinuity_sequence: 3 }),
        ];
        reel.feed.apply(entries).unwrap();
        reel
    }

    /// A live room with this many complete segments.
    pub(crate) fn running(segments: u64) -> Self {
        let mut reel = Self::new();
        for _ in 0..segments {
            reel.segment();
        }
        reel
    }

    /// The number of the next part.
    pub(crate) fn next_part(&self) -> u64 {
        self.part
    }

    /// The segment the next part belongs to.
    pub(crate) fn msn(&self) -> u64 {
        self.msn
    }

    /// Parts published of the open segment.
    pub(crate) fn parts(&self) -> u64 {
        self.parts.unwrap_or(0)
    }

    /// Makes payloads this much larger, for streams that fill sockets.
    pub(crate) fn fatten(&mut self, bytes: usize) {
        for (_, _, payload) in &mut self.video {
            let mut fat = payload.to_vec();
            // One more NAL unit of filler data (type 12).
            fat.extend_from_slice(&u32::try_from(bytes).unwrap().to_be_bytes());
            fat.push(12);
            fat.resize(fat.len() + bytes - 1, 0xff);
            *payload = fat.into();
        }
    }

    /// Publishes the next part, and the segment's end with its last.
    pub(crate) fn part(&mut self) {
        let undelivered = self.say_part();
        self.deliver(&undelivered);
    }

    /// Publishes the rest of a segment.
    pub(crate) fn segment(&mut self) {
        self.part();
        while self.parts.is_some() {
            self.part();
        }
    }

    /// Says the next part; its bytes are still to come.
    pub(crate) fn say_part(&mut self) -> Undelivered {
        let mut entries = Vec::new();
        if self.parts.is_none() {
            self.parts = Some(0);
            self.frames_end = 0;
            entries.push(Entry::Open(SegmentOpen {
                msn: Msn(self.msn),
                epoch: self.header.epoch,
                config: self.config.id,
                discontinuity: std::mem::take(&mut self.discontinuity),
                pdt_ms: 1_790_000_000_000 + self.next_video / 30 * 1000,
                start: self.times(),
                first_part: PartNumber(self.part),
            }));
        }
        let first = self.frames_end;
        let independent = self.next_video.is_multiple_of(30);
        let frames = self.frames();
        self.frames_end += u32::try_from(frames.len()).unwrap();
        let msn = Msn(self.msn);
        entries.push(Entry::Part(PartEnd {
            msn,
            part: PartNumber(self.part),
            frames_end: self.frames_end,
            duration: u32::try_from(PART_FRAMES * VIDEO_FRAME).unwrap(),
            independent,
            end: self.times(),
        }));
        self.part += 1;
        self.parts = self.parts.map(|p| p + 1);
        if self.parts == Some(PARTS_PER_SEGMENT) {
            let duration = u32::try_from(PARTS_PER_SEGMENT * PART_FRAMES * VIDEO_FRAME).unwrap();
            entries.push(Entry::Close(SegmentClose { msn, duration }));
            self.parts = None;
            self.msn += 1;
            let first = self.msn.saturating_sub(WINDOW).max(self.first_msn);
            entries
                .push(Entry::Window(WindowStart { first: Msn(first), discontinuity_sequence: 3 }));
        }
        self.feed.apply(entries).unwrap();
        Undelivered { msn, first, frames }
    }

    /// Brings the bytes of a part that was said.
    pub(crate) fn deliver(&self, part: &Undelivered) {
        for (index, frame) in (part.first..).zip(&part.frames) {
            assert!(self.feed.push(part.msn, index, frame.clone()).unwrap());
        }
    }

    /// The publisher goes: a segment must be complete.
    pub(crate) fn grace(&self) {
        self.feed.apply(vec![Entry::Grace]).unwrap();
    }

    /// And comes back: the next segment carries a discontinuity.
    pub(crate) fn resume(&mut self) {
        self.discontinuity = true;
        self.feed.apply(vec![Entry::Resumed]).unwrap();
    }

    pub(crate) fn end(&self) {
        self.feed.apply(vec![Entry::End]).unwrap();
    }

    /// The encoder changes its configuration at the next segment: the same tracks, another record.
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(&mut Vec<Track>)) {
        self.config.id += 1;
        change(&mut self.config.tracks);
        self.discontinuity = true;
        self.feed.apply(vec![Entry::Config(self.config.clone())]).unwrap();
    }

    fn times(&self) -> TrackTimes {
        let has = |id| self.config.track(id).is_some();
        TrackTimes {
            video: has(TrackId::Video).then_some(self.next_video * VIDEO_FRAME),
            audio: has(TrackId::Audio).then_some(self.next_audio * AUDIO_FRAME),
        }
    }

    /// The frames of the next part in the order a publisher sends them.
    fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        for _ in 0..PART_FRAMES {
            let (cts, key, payload) = &self.video[self.next_video as usize % self.video.len()];
            frames.push(Frame {
                track: TrackId::Video,
                dts: self.next_video * VIDEO_FRAME,
                cts: *cts,
                key: *key,
                payload: payload.clone(),
            });
            self.next_video += 1;
            let until = self.next_video * VIDEO_FRAME * 48_000 / 90_000;
            while self.config.track(TrackId::Audio).is_some()
                && (self.next_audio + 1) * AUDIO_FRAME <= until
            {
                frames.push(Frame {
                    track: TrackId::Audio,
                    dts: self.next_audio * AUDIO_FRAME,
                    cts: 0,
                    key: true,
                    payload: self.audio[self.next_audio as usize % self.audio.len()].clone(),
                });
                self.next_audio += 1;
            }
        }
        frames.retain(|f| self.only.is_none_or(|only| f.track == only));
        frames
    }
}

type Clip = (Config, Vec<(i32, bool, Bytes)>, Vec<Bytes>);

fn clip() -> Clip {
    let mut reader = Reader::new();
    reader.push(CLIP);
    let (mut tracks, mut pictures, mut sounds) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(tag) = reader.next_tag().unwrap() {
        let body = match tag.kind {
            TagKind::Video => video::parse(&tag.body).unwrap(),
            TagKind::Audio => audio::parse(&tag.body).unwrap(),
            TagKind::Script => continue,
        };
        match (tag.kind, body) {
            (TagKind::Video, Body::SequenceHeader { config, .. }) => {
                tracks.push(avc::DecoderConfig::parse(&config).unwrap().track());
            }
            (TagKind::Audio, Body::SequenceHeader { config, .. }) => {
                tracks.push(AudioConfig::parse(&config).unwrap().track());
            }
            (TagKind::Video, Body::Frame { cts_ms, payload, .. }) => {
                pictures.push((cts_ms * 90, avc::is_key(&payload).unwrap(), payload));
            }
            (TagKind::Audio, Body::Frame { payload, .. }) => sounds.push(payload),
            _ => {}
        }
    }
    tracks.sort_by_key(|t| t.id);
    assert_eq!(pictures.len(), 60);
    (Config { id: 1, tracks }, pictures, sounds)
}

impl Undelivered {
    /// Brings the bytes from elsewhere than the reel.
    pub(crate) fn deliver_to(&self, feed: &Feed) {
        for (index, frame) in (self.first..).zip(&self.frames) {
            assert!(feed.push(self.msn, index, frame.clone()).unwrap());
        }
    }
}

impl Reel {
    /// Publishes a part of a stream that has only `track`.
    pub(crate) fn part_of(&mut self, track: TrackId) {
        assert!(self.config.tracks.iter().all(|t| t.id == track));
        self.only = Some(track);
        self.part();
    }
}
