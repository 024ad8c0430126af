//! What must hold at every edge, looked at after every step.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use media::feed::{Feed, Lookup};
use media::frame::Frame;
use media::manifest::{Epoch, Manifest, Msn, SegmentMeta};
use media::track::TrackId;

use super::EDGES;
use super::edge::Edge;

/// What a video and an audio frame of the card last, in ticks of their tracks.
const VIDEO_STEP: u64 = 3_000;
const AUDIO_STEP: u64 = 1_024;

/// What happened how often.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    takeovers: u64,
    seamless: u64,
    begun: u64,
    parts: u64,
    segments: u64,
    /// Feeds that edges gave up.
    given_up: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.takeovers += other.takeovers;
        self.seamless += other.seamless;
        self.begun += other.begun;
        self.parts += other.parts;
        self.segments += other.segments;
        self.given_up += other.given_up;
    }
}

#[derive(Default)]
pub(super) struct Checker {
    /// The content of every name ever shown.
    parts: BTreeMap<(u64, u64), u64>,
    segments: BTreeMap<(u64, u64), u64>,
    /// How many pushes began under each epoch that were not gone on with.
    begun: BTreeMap<u64, usize>,
    /// Segments with a discontinuity, by the epoch that opened them.
    breaks: BTreeMap<u64, BTreeSet<u64>>,
    edges: [View; EDGES],
    heads: Vec<Option<u64>>,
    pub(super) counts: Counts,
}

/// What an edge has shown.
#[derive(Default)]
struct View {
    incarnation: u64,
    seen: Option<Arc<Manifest>>,
    /// The newest segment whose frames were looked at, by number and name, and where each track ended
    /// there.
    last: Option<((Msn, Epoch), Ends)>,
}

type Ends = BTreeMap<u8, u64>;

impl Checker {
    /// A push begins under `epoch`, with a discontinuity or as if nothing had happened.
    pub(super) fn begins(&mut self, epoch: u64, is_whole: bool) {
        if is_whole {
            self.counts.seamless += 1;
        } else {
            self.counts.begun += 1;
            *self.begun.entry(epoch).or_default() += 1;
        }
    }

    /// An edge found that what it has and what a home says cannot both be.
    pub(super) fn gave_up(&mut self) {
        self.counts.given_up += 1;
    }

    /// Another home goes on with the stream.
    pub(super) fn taken_over(&mut self) {
        self.counts.takeovers += 1;
    }

    /// Looks at what an edge shows now.
    pub(super) fn look(
        &mut self,
        edge: usize,
        incarnation: u64,
        feed: &Feed,
    ) -> Result<(), String> {
        let now = feed.manifest();
        if self.edges[edge].incarnation != incarnation {
            self.edges[edge] = View { incarnation, ..View::default() };
        }
        if self.edges[edge].seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &now)) {
            return Ok(());
        }
        if let Some(before) = &self.edges[edge].seen {
            never_lowered(before, &now).map_err(|what| format!("edge {edge} lowers {what}"))?;
        }
        for segment in now.segments().iter().rev().take(3).rev() {
            self.names(feed, segment).map_err(|what| format!("at edge {edge}: {what}"))?;
            let before = segment.open.msn.0.checked_sub(1).and_then(|msn| now.segment(Msn(msn)));
            let before = before.map(|before| (before.open.msn, before.name_epoch()));
            self.frames(edge, feed, segment, before)
                .map_err(|what| format!("at edge {edge}: {what}"))?;
        }
        self.edges[edge].seen = Some(now);
        Ok(())
    }

    /// No name has two contents, and discontinuities are as many as there were reasons.
    fn names(&mut self, feed: &Feed, segment: &SegmentMeta) -> Result<(), String> {
        let open = &segment.open;
        for part in &segment.parts {
            let Lookup::Ready(found) = feed.part(open.epoch, part.part) else { continue };
            let content = digest(&found.frames);
            self.counts.parts += 1;
            let known = *self.parts.entry((open.epoch.0, part.part.0)).or_insert(content);
            if known != content {
                return Err(format!("p{}-{} has two contents", open.epoch.0, part.part.0));
            }
        }
        if segment.duration.is_some()
            && let Lookup::Ready(parts) = feed.segment(segment.name_epoch(), open.msn)
        {
            let mut hasher = DefaultHasher::new();
            parts.iter().for_each(|part| digest(&part.frames).hash(&mut hasher));
            let (name, content) = ((segment.name_epoch().0, open.msn.0), hasher.finish());
            self.counts.segments += 1;
            if *self.segments.entry(name).or_insert(content) != content {
                return Err(format!("s{}-{} has two contents", name.1, name.0));
            }
        }
        if open.discontinuity {
            let breaks = self.breaks.entry(open.epoch.0).or_default();
            breaks.insert(open.msn.0);
            let reasons = self.begun.get(&open.epoch.0).copied().unwrap_or(0);
            if breaks.len() > reasons {
                return Err(format!("{breaks:?} of epoch {} for {reasons} reasons", open.epoch.0));
            }
        }
        Ok(())
    }

    /// No frame is missing, doubled or moved without a discontinuity, from one segment of the list to
    /// the next. One that was taken back and came again under another name is looked at anew.
    fn frames(
        &mut self,
        edge: usize,
        feed: &Feed,
        segment: &SegmentMeta,
        before: Option<(Msn, Epoch)>,
    ) -> Result<(), String> {
        let (open, view) = (&segment.open, &mut self.edges[edge]);
        let name = (open.msn, segment.name_epoch());
        let is_new = view.last.as_ref().is_none_or(|(last, _)| *last < name);
        if segment.duration.is_none() || !is_new {
            return Ok(());
        }
        let Lookup::Ready(parts) = feed.segment(segment.name_epoch(), open.msn) else {
            return Ok(());
        };
        let follows = view.last.take().filter(|(last, _)| Some(*last) == before);
        let mut ends = follows.filter(|_| !open.discontinuity).map_or_else(Ends::new, |(_, e)| e);
        for frame in parts.iter().flat_map(|part| &part.frames) {
            let (track, step) = match frame.track {
                TrackId::Video => (0, VIDEO_STEP),
                TrackId::Audio => (1, AUDIO_STEP),
            };
            if let Some(due) = ends.insert(track, frame.dts + step)
                && due != frame.dts
            {
                let what = format!("{:?} at {} where {due} is due", frame.track, frame.dts);
                return Err(format!("{what} in s{}-{}", open.msn.0, segment.name_epoch().0));
            }
        }
        view.last = Some((name, ends));
        Ok(())
    }

    /// Some time after everything was healed: from here on all must move.
    pub(super) fn remember_heads(&mut self, edges: &[Edge]) {
        self.heads = edges.iter().map(head).collect();
    }

    /// At the end every edge has gone on, and all are about as far.
    pub(super) fn ended(&self, edges: &[Edge]) -> Result<(), String> {
        let now: Vec<_> = edges.iter().map(head).collect();
        let moved = self.heads.iter().zip(&now).all(|(then, now)| now > then && now.is_some());
        let (least, most) = (now.iter().min(), now.iter().max());
        let level = least.zip(most).is_some_and(|(least, most)| {
            least.zip(*most).is_some_and(|(least, most)| most <= least + 1)
        });
        if moved && level {
            Ok(())
        } else {
            Err(format!("after healing the heads went from {:?} to {now:?}", self.heads))
        }
    }

    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.parts, &self.segments).hash(&mut hasher);
        hasher.finish()
    }
}

fn head(edge: &Edge) -> Option<u64> {
    edge.feed.as_ref().map(|feed| feed.manifest().head().msn.0)
}

fn never_lowered(before: &Manifest, now: &Manifest) -> Result<(), String> {
    let (was, is) = (before.head(), now.head());
    if now.header().epoch < before.header().epoch {
        return Err(format!("the epoch, {:?} to {:?}", before.header().epoch, now.header().epoch));
    }
    if now.window().first < before.window().first
        || now.window().discontinuity_sequence < before.window().discontinuity_sequence
    {
        return Err(format!("the window, {:?} to {:?}", before.window(), now.window()));
    }
    if before.is_playable() && !now.is_playable() {
        return Err(format!("the playlist: none is left after {was:?}"));
    }
    if (is.msn, is.parts) < (was.msn, was.parts) {
        return Err(format!("the head, {was:?} to {is:?}"));
    }
    Ok(())
}

fn digest(frames: &[Frame]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for frame in frames {
        let track = matches!(frame.track, TrackId::Video);
        (track, frame.dts, frame.cts, frame.key, frame.payload.len()).hash(&mut hasher);
        frame.payload.get(..32.min(frame.payload.len())).hash(&mut hasher);
    }
    hasher.finish()
}
