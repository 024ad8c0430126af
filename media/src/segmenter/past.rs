//! Taking a stream over from an earlier home: its manifest in, a segmenter that goes on out.
//!
//! The open segment is sealed after its last complete part, and the next segment follows it. A push
//! whose messages are all there goes on in the middle of its group of pictures, without a
//! discontinuity; any other begins after one, as far behind the end as the past is old.

use super::cutter::Cutter;
use super::listing::Listing;
use super::live::Clock;
use super::{Identity, Output, Phase, Segmenter, Settings, audio_layout, sane};
use crate::manifest::{
    Entry, Epoch, Header, Manifest, Mark, RENDER_VERSION, SegmentMeta, SegmentSeal, Status,
};
use crate::timeline::{self, Timeline};
use crate::track::TrackId;

/// What a segmenter remembers of an earlier home until a publish is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past {
    mark: Option<Mark>,
    /// How long ago the earlier home said its last part.
    age_ms: u64,
}

impl Segmenter {
    /// A segmenter that goes on where the manifest `past` of an earlier home ends, its last part
    /// `age_ms` ago, and the entries that say so: to be applied together, first of all. None if there
    /// is nothing to go on from: the stream had not begun to be listed, or was over.
    #[must_use]
    pub fn take_over(
        settings: Settings,
        identity: Identity,
        past: &Manifest,
        age_ms: u64,
    ) -> Option<(Self, Vec<Entry>)> {
        let constants = past.header().constants?;
        let last = past.segments().iter().rev().find(|s| !s.parts.is_empty())?;
        if past.status() == Status::Ended || past.header().epoch >= identity.epoch {
            return None;
        }
        let settings = sane(settings);
        let header = Header {
            epoch: identity.epoch,
            generation: identity.generation,
            render_version: RENDER_VERSION,
            ..past.header().clone()
        };
        let sealed = sealed(past, header, last, identity.epoch)?;
        let mark = sealed.mark().copied();
        let mut cutter = Cutter::take_over(last.next_part(), mark);
        cutter.set_target(constants.part_target_ms);
        let mut segmenter = Self::new(settings, identity);
        segmenter.phase = Phase::Gone;
        segmenter.timeline = Timeline::take_over(timeline_past(&sealed, mark));
        segmenter.listing = Listing::take_over(&settings, sealed.header().clone(), &sealed);
        segmenter.cutter = cutter;
        segmenter.active = Some((*last.config).clone());
        segmenter.active_said = true;
        segmenter.part_target_ms = constants.part_target_ms;
        segmenter.next_msn = last.open.msn.next();
        let length = sealed.last().and_then(|s| s.duration).map_or(0, u64::from);
        let next = segmenter.next_ticks();
        segmenter.clock = Clock::take_over(next, length, last.open.pdt_ms);
        segmenter.past = Some(Past { mark, age_ms });
        Some((segmenter, sealed.dump()))
    }

    /// The frames that follow are of the push with this name; see [`Mark::publish`]. 0 is one without
    /// a name, which no other home can go on with.
    pub fn identify(&mut self, publish: u64) {
        self.cutter.identify(publish);
    }

    /// The push that can go on after a take-over, and its first message that is wanted again.
    #[must_use]
    pub fn wants(&self) -> Option<(u64, u64)> {
        let mark = self.past?.mark?;
        let pieces = [mark.video, mark.audio].into_iter().flatten().map(|track| track.piece);
        Some((mark.publish, pieces.min()? + 1))
    }

    /// The push that [`Self::wants`] names is here, with all its messages from that one on: it goes
    /// on without a discontinuity. Returns false if it cannot; then it has to [`Self::begin`].
    pub fn go_on(&mut self, out: &mut Vec<Output>) -> bool {
        if !matches!(self.phase, Phase::Gone) || self.wants().is_none() {
            return false;
        }
        out.push(Output::Entry(Entry::Resumed));
        self.phase = Phase::Live;
        self.forced_recently = 0;
        self.discontinuity_due = false;
        true
    }

    /// Whether the earlier home has taken this message of the push that goes on.
    pub(super) fn was_taken(&self, track: TrackId, piece: u64) -> bool {
        let taken = self.past.and_then(|past| past.mark).and_then(|mark| match track {
            TrackId::Video => mark.video,
            TrackId::Audio => mark.audio,
        });
        taken.is_some_and(|taken| piece <= taken.piece)
    }

    /// Where the video of a push that goes on is due, if one does.
    pub(super) fn continues(&self) -> Option<u64> {
        let goes_on = matches!(self.phase, Phase::Live) && self.past.is_some();
        goes_on.then(|| self.timeline.video().end())
    }

    /// The publish that was here may come again and go on.
    pub(super) fn keep_past(&mut self) {
        let mark = self.cutter.mark().filter(|_| self.listing.is_frozen());
        self.past = mark.map(|mark| Past { mark: Some(mark), age_ms: 0 });
    }

    /// What comes is not what an earlier home left: it begins where that ended, and as much later as
    /// that is ago.
    pub(super) fn lose_past(&mut self) {
        let Some(past) = self.past.take() else { return };
        let end = self.timeline.end();
        self.timeline.not_before(end + past.age_ms.saturating_mul(90));
    }

    /// Where the track that the clock follows is due next.
    fn next_ticks(&self) -> u64 {
        if self.has(TrackId::Video) {
            return self.timeline.video().end();
        }
        self.timeline.audio().map_or(0, crate::timeline::audio::AudioClock::end)
    }
}

/// The manifest under the new header, with its last segment sealed.
fn sealed(past: &Manifest, header: Header, last: &SegmentMeta, epoch: Epoch) -> Option<Manifest> {
    let mut sealed = Manifest::new(header);
    for entry in past.dump() {
        let passed = match &entry {
            Entry::Header(_) | Entry::Grace | Entry::Resumed => continue,
            Entry::Open(open) if open.msn > last.open.msn => continue,
            entry => sealed.apply(entry),
        };
        passed.ok()?;
    }
    if last.duration.is_none() {
        let ticks = last.parts.iter().map(|p| u64::from(p.duration)).sum::<u64>();
        let seal = SegmentSeal {
            msn: last.open.msn,
            epoch,
            duration: u32::try_from(ticks).ok()?,
            next_part: last.next_part(),
        };
        sealed.apply(&Entry::Seal(seal)).ok()?;
    }
    sealed.apply(&Entry::Grace).ok()?;
    Some(sealed)
}

fn timeline_past(sealed: &Manifest, mark: Option<Mark>) -> timeline::Past {
    let mut past = timeline::Past { mark, ..timeline::Past::default() };
    let Some(last) = sealed.last() else { return past };
    let end = last.part_start(last.parts.len());
    past.video_end = end.video.unwrap_or(0);
    if let Some(track) = last.config.track(TrackId::Audio) {
        let (rate, frame_samples) = audio_layout(track);
        past.audio = Some((end.audio.unwrap_or(0), rate, frame_samples));
    }
    past
}

#[cfg(test)]
mod tests;
