//! What a segmenter has counted since its room was activated.

/// Counters of one room. Every sample pushed is emitted, dropped under one of the reasons, or still
/// waits for the start: `pushed = emitted + dropped() + waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Samples pushed.
    pub pushed: u64,
    /// Frames passed on.
    pub emitted: u64,
    /// Samples that wait for the track set to be fixed or for the first key frame.
    pub waiting: u64,
    /// Video frames before the first key frame of a publish.
    pub dropped_leading: u64,
    /// Audio frames older than the first frame of a publish or of a new run of stamps.
    pub dropped_early: u64,
    /// Audio frames whose time was taken already.
    pub dropped_overlap: u64,
    /// Frames of a track without configuration, or without payload.
    pub dropped_unusable: u64,
    /// Frames of a new configuration that waits for its key frame.
    pub dropped_switching: u64,
    /// Samples pushed out of a full start-up buffer.
    pub dropped_overflow: u64,
    /// Samples without a publisher, or after the end.
    pub dropped_idle: u64,
    /// Samples that an earlier home has taken already.
    pub dropped_taken: u64,
    /// Stamps that jumped and went on where the room ended.
    pub reanchored: u64,
    /// Gaps in the audio that moved its decode time.
    pub audio_gaps: u64,
    /// Publishes and configurations that left the grid of a nominal rate.
    pub lost_grid: u64,
    /// Segments closed.
    pub segments: u64,
    /// Parts ended.
    pub parts: u64,
    /// Segments cut without a key frame.
    pub forced_cuts: u64,
    /// Segments with a discontinuity.
    pub discontinuities: u64,
    /// Parts shorter than 85 % of PART-TARGET that no exemption covers.
    pub short_parts: u64,
    /// Parts whose frames last longer than PART-TARGET, declared as PART-TARGET.
    pub irregular_parts: u64,
    /// Segments longer than TARGETDURATION allows, declared as the longest it allows.
    pub clamped_segments: u64,
}

impl Counters {
    /// Samples dropped, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_leading
            + self.dropped_early
            + self.dropped_overlap
            + self.dropped_unusable
            + self.dropped_switching
            + self.dropped_overflow
            + self.dropped_idle
            + self.dropped_taken
    }
}
