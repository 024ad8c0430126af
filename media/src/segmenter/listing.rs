//! What the room lists: its header with the constants and bit rates, and the window of segments.
//!
//! In: segments as they close. Out: header entries when they must be said again, and window entries
//! when old segments leave.

use std::collections::VecDeque;

use super::Settings;
use super::cutter::Closed;
use crate::manifest::{Constants, Entry, Header, Manifest, Msn, WindowStart};

/// Segments listed at most, however short they are: a quarter of what a manifest takes.
pub(super) const MAX_LISTED: usize = 1_024;

/// Beyond TARGETDURATION: where a segment is cut without a key frame.
pub(super) const CUT_SLACK: u64 = 36_000;

/// Beyond TARGETDURATION: the longest EXTINF that still rounds down to it
/// (RFC 8216bis-22 section 4.4.3.1).
const ROUND_SLACK: u64 = 44_100;

/// Growth of the peak bit rate, in percent, that is worth a new header.
const PEAK_GROWTH_PERCENT: u64 = 10;

/// Segments after which the average bit rate is said again.
const AVERAGE_EVERY: u64 = 32;

const SECOND: u64 = 90_000;

/// The header and the window of one room.
#[derive(Debug)]
pub(super) struct Listing {
    header: Header,
    said: Option<Header>,
    listed: VecDeque<Closed>,
    listed_ticks: u64,
    window: WindowStart,
    total_bytes: u64,
    total_ticks: u64,
    peak_bps: u64,
    segments: u64,
    min_segments: usize,
    full_ticks: u64,
    target_duration_s: u32,
    max_target_duration_s: u32,
}

/// Values a discontinuity base takes, see [`discontinuity_base`].
const DISCONTINUITY_BASES: u64 = 16_384;

/// Media sequence numbers that share a discontinuity base: two seconds of their time-derived start.
const MSN_PER_DISCONTINUITY_BASE: u64 = 8;

/// `EXT-X-DISCONTINUITY-SEQUENCE` of a stream without a known past, which starts at segment `first`.
///
/// It must differ from that of an earlier stream under the same URL, and must be small: hls.js (1.7.4
/// at least) walks an array as long as this number at every playlist update. Activations two seconds
/// to nine hours apart get rising ones.
pub(super) fn discontinuity_base(first: Msn) -> u64 {
    first.0 / MSN_PER_DISCONTINUITY_BASE % DISCONTINUITY_BASES
}

impl Listing {
    pub(super) fn new(settings: &Settings, header: Header, first: Msn) -> Self {
        Self {
            header,
            said: None,
            listed: VecDeque::new(),
            listed_ticks: 0,
            window: WindowStart { first, discontinuity_sequence: discontinuity_base(first) },
            total_bytes: 0,
            total_ticks: 0,
            peak_bps: 0,
            segments: 0,
            min_segments: settings.window.clamp(1, MAX_LISTED),
            full_ticks: u64::from(settings.segment_ms.saturating_sub(super::KEY_EARLY_MS)) * 90,
            target_duration_s: settings.target_duration_s,
            max_target_duration_s: settings.max_target_duration_s,
        }
    }

    /// The list of an earlier home, with `header` for what follows. Its open segment is not listed.
    pub(super) fn take_over(settings: &Settings, header: Header, past: &Manifest) -> Self {
        let mut listing = Self::new(settings, header, past.window().first);
        for segment in past.segments() {
            let Some(duration) = segment.duration else { continue };
            let (msn, discontinuity) = (segment.open.msn, segment.open.discontinuity);
            listing.listed.push_back(Closed { msn, duration, bytes: 0, discontinuity });
            listing.listed_ticks += u64::from(duration);
        }
        listing.window = past.window();
        listing.segments = listing.listed.len().max(1) as u64;
        listing.peak_bps = listing.header.bandwidth_bps;
        listing.total_ticks = listing.listed_ticks;
        let bits = u128::from(listing.header.average_bandwidth_bps);
        let bytes = bits * u128::from(listing.listed_ticks) / u128::from(8 * SECOND);
        listing.total_bytes = u64::try_from(bytes).unwrap_or(0);
        listing
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn window(&self) -> WindowStart {
        self.window
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.header.constants.is_some()
    }

    /// Beyond which length a segment is cut without a key frame, in ticks.
    pub(super) fn cut_length(&self) -> u64 {
        u64::from(self.limit_s()) * SECOND + CUT_SLACK
    }

    /// The longest EXTINF that keeps TARGETDURATION, in ticks.
    pub(super) fn longest(&self) -> u64 {
        u64::from(self.limit_s()) * SECOND + ROUND_SLACK
    }

    fn limit_s(&self) -> u32 {
        self.header.constants.map_or(self.max_target_duration_s, |c| c.target_duration_s)
    }

    /// Freezes the constants as the first segment closes after `length` ticks.
    pub(super) fn freeze(&mut self, length: u64, part_target_ms: u32) {
        let whole = u32::try_from(length.div_ceil(SECOND)).unwrap_or(u32::MAX);
        let target_duration_s = whole.max(self.target_duration_s).min(self.max_target_duration_s);
        self.header.constants = Some(Constants { target_duration_s, part_target_ms });
    }

    pub(super) fn set_frame_rate(&mut self, frame_rate_milli: Option<u32>) {
        self.header.frame_rate_milli = frame_rate_milli;
    }

    /// Takes the bit rate of a closed segment into account.
    pub(super) fn measure(&mut self, closed: Closed) {
        self.segments += 1;
        self.total_bytes += closed.bytes;
        self.total_ticks += u64::from(closed.duration);
        let average = rate_bps(self.total_bytes, self.total_ticks);
        let duration = u64::from(closed.duration);
        if duration >= self.full_ticks || self.segments == 1 {
            self.peak_bps = self.peak_bps.max(rate_bps(closed.bytes, duration));
        }
        let peak = self.peak_bps.max(average);
        let was = self.header.bandwidth_bps;
        let grown = peak > was + was * PEAK_GROWTH_PERCENT / 100;
        if grown || self.segments.is_multiple_of(AVERAGE_EVERY) {
            self.header.bandwidth_bps = peak.max(was);
            self.header.average_bandwidth_bps = average;
        }
    }

    /// Lists a closed segment. Returns the new window when old ones leave it.
    pub(super) fn list(&mut self, closed: Closed) -> Option<WindowStart> {
        self.listed.push_back(closed);
        self.listed_ticks += u64::from(closed.duration);
        let before = self.window;
        while let Some(oldest) = self.listed.front().copied() {
            let others = self.listed_ticks - u64::from(oldest.duration);
            let longest = self.listed.iter().skip(1).map(|c| u64::from(c.duration)).max();
            let needed = 6 * u64::from(self.limit_s()) * SECOND + longest.unwrap_or(0);
            let enough = self.listed.len() > self.min_segments && others >= needed;
            if !enough && self.listed.len() <= MAX_LISTED {
                break;
            }
            self.listed.pop_front();
            self.listed_ticks = others;
            self.window.first = oldest.msn.next();
            self.window.discontinuity_sequence += u64::from(oldest.discontinuity);
        }
        (self.window != before).then_some(self.window)
    }

    /// The header, when it differs from what was said last.
    pub(super) fn news(&mut self) -> Option<Entry> {
        if self.said.as_ref() == Some(&self.header) {
            return None;
        }
        self.said = Some(self.header.clone());
        Some(Entry::Header(self.header.clone()))
    }
}

fn rate_bps(bytes: u64, ticks: u64) -> u64 {
    let bits = u128::from(bytes) * 8 * u128::from(SECOND);
    u64::try_from(bits.div_ceil(u128::from(ticks.max(1)))).unwrap_or(u64::MAX)
}
