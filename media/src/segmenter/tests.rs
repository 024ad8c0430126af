//! Tests of the segmenter: publishers of every kind against an oracle of the rules.

mod oracle;
mod source;

use oracle::Oracle;
use source::{Push, Source, Stamps, audio_track, now, video_track};

use super::{Identity, Output, Segmenter, Settings};
use crate::manifest::Epoch;

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

    fn settle(&mut self) {
        self.oracle.take(&mut self.out);
        self.oracle.check(&self.segmenter.counters());
    }
}

const RATES: [(u64, u64); 11] = [
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

#[test]
fn steady_rates_and_groups_give_full_parts() {
    for fps in RATES {
        for stamps in [Stamps::Rounded, Stamps::Truncated, Stamps::Jitter(2)] {
            for seconds_tenths in [0, 5, 10, 20] {
                let gop = (fps.0 * seconds_tenths / (fps.1 * 10)).max(1);
                let source = Source { fps: Some(fps), stamps, gop, ..Source::default() };
                let mut room = Room::new();
                room.publish(&source);
                room.end();
                let counters = room.segmenter.counters();
                assert!(room.oracle.segments.len() >= 5, "{source:?}");
                assert_eq!((counters.lost_grid, counters.forced_cuts), (0, 0), "{source:?}");
                room.oracle.check_steady(&counters);
            }
        }
    }
}
