//! Tests of the segmenter: publishers of every kind against an oracle of the rules.

mod hostile;
mod irregular;
mod life;
mod oracle;
pub(in crate::segmenter) mod source;
mod steady;

use oracle::{Oracle, Segment};
use source::{Push, Source, audio_track, now, video_track};

use super::{Counters, Identity, Output, Segmenter, Settings};
use crate::frame::Frame;
use crate::manifest::Epoch;
use crate::track::TrackId;

const IDENTITY: Identity = Identity { epoch: Epoch(3), generation: 1, msn_base: 1_000 };

/// A segmenter and the oracle that follows it.
struct Room {
    segmenter: Segmenter,
    oracle: Oracle,
    out: Vec<Output>,
    now_ms: u64,
}

impl Room {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let segmenter = Segmenter::new(settings, IDENTITY);
        let oracle = Oracle::new(settings, &segmenter);
        Self { segmenter, oracle, out: Vec::new(), now_ms: 0 }
    }

    fn begin(&mut self) {
        self.segmenter.begin(now(self.now_ms), &mut self.out);
        self.settle();
    }

    fn push(&mut self, (at, sample): Push) {
        self.now_ms = self.now_ms.max(at);
        if self.segmenter.deadline_ms().is_some_and(|d| d <= self.now_ms) {
            self.segmenter.tick(now(self.now_ms), &mut self.out);
            self.settle();
        }
        self.segmenter.push(now(self.now_ms), sample, &mut self.out);
        self.settle();
    }

    fn tick(&mut self) {
        self.segmenter.tick(now(self.now_ms), &mut self.out);
        self.settle();
    }

    /// A whole publish of `source`, without the publisher leaving.
    fn publish(&mut self, source: &Source) {
        self.begin();
        if source.fps.is_some() {
            self.segmenter.configure(video_track(0), None);
        }
        if let Some(rate) = source.audio {
            self.segmenter.configure(audio_track(rate), None);
        }
        for push in source.pushes(self.now_ms) {
            self.push(push);
        }
    }

    fn gone(&mut self) {
        self.segmenter.gone(&mut self.out);
        self.settle();
    }

    fn end(&mut self) {
        self.segmenter.end(&mut self.out);
        self.settle();
    }

    fn counters(&self) -> Counters {
        self.segmenter.counters()
    }

    fn segments(&self) -> &[Segment] {
        &self.oracle.segments
    }

    /// The frames of a track in all closed segments.
    fn frames(&self, track: TrackId) -> Vec<&Frame> {
        self.segments().iter().flat_map(|s| &s.frames).filter(|f| f.track == track).collect()
    }

    fn settle(&mut self) {
        self.oracle.take(&mut self.out);
        self.oracle.check(&self.segmenter.counters());
    }
}

/// A room that took one publish of `source` to its end.
fn room_of(source: &Source) -> Room {
    let mut room = Room::new();
    room.publish(source);
    room.end();
    room
}
