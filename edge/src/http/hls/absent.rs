//! What it means that something asked for is not here. Pure.
//!
//! In: a manifest and a name. Out: whether to wait for it, and for what: another edge may be ahead of
//! this one, and a viewer may come from there.

use media::manifest::{Epoch, Manifest, Msn, PartNumber, SegmentMeta, Status};
use media::playlist::reload::{self, ADVANCE_SEGMENT_LIMIT};

/// What holds of something that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// Its bytes are to come: this segment's.
    Coming(Msn),
    /// It is the next part, as hinted.
    Next,
    /// It may be listed by an edge that is ahead of this one.
    Ahead,
    /// It never was, or is no more.
    Gone,
}

/// The segment of the manifest whose bytes are to come.
pub(super) fn coming(said: &Manifest, is_it: impl Fn(&SegmentMeta) -> bool) -> Absent {
    let segment = said.segments().iter().find(|s| is_it(s));
    segment.map_or(Absent::Gone, |s| Absent::Coming(s.open.msn))
}

/// How a part that nobody has told this edge of is absent.
pub(super) fn part(manifest: &Manifest, epoch: Epoch, number: PartNumber) -> Absent {
    if manifest.status() == Status::Ended {
        return Absent::Gone;
    }
    let header = manifest.header();
    let next = manifest.next_part().unwrap_or_default();
    if epoch > header.epoch {
        return Absent::Ahead; // another edge has met the new home already
    }
    let open = manifest.last().filter(|s| s.duration.is_none());
    if epoch != open.map_or(header.epoch, |s| s.open.epoch) || number < next {
        return Absent::Gone;
    }
    let limit = header.constants.map_or(3, |c| reload::advance_part_limit(&c));
    match number.0 - next.0 {
        0 => Absent::Next,
        ahead if ahead <= limit => Absent::Ahead,
        _ => Absent::Gone,
    }
}

/// How a segment that this edge does not know as complete is absent.
pub(super) fn segment(manifest: &Manifest, epoch: Epoch, msn: Msn) -> Absent {
    if manifest.status() == Status::Ended {
        return Absent::Gone;
    }
    let header = manifest.header();
    let open = manifest.last().filter(|s| s.duration.is_none());
    let known = epoch == header.epoch || open.is_some_and(|s| s.open.epoch == epoch);
    let last = manifest.segments().iter().rev().find(|s| s.duration.is_some());
    let last = last.map_or(manifest.window().first.0, |s| s.open.msn.0);
    let ahead = msn.0 > last && msn.0 - last <= ADVANCE_SEGMENT_LIMIT;
    if epoch > header.epoch || (known && ahead) { Absent::Ahead } else { Absent::Gone }
}
