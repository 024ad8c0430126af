//! The player's clock: whether a viewer would have seen the picture freeze.
//!
//! Pure. In: when media up to some time has arrived. Out: stalls. The player starts a fixed buffer
//! behind the newest media of its first second, so that a burst on join is not taken for buffer that
//! a chasing player would not keep, plays in real time, and waits for its buffer again after a stall.

/// How long after the first media a player settles.
const SETTLE_MICROS: u64 = 1_000_000;

/// One viewer's player.
#[derive(Debug)]
pub(crate) struct Player {
    buffer_micros: u64,
    began: Option<u64>,
    /// Newest media time minus wall time, the largest while settling.
    lead: i64,
    newest: u64,
}

impl Player {
    /// A player that keeps `buffer_micros` of media.
    #[must_use]
    pub(crate) fn new(buffer_micros: u64) -> Self {
        Self { buffer_micros, began: None, lead: i64::MIN, newest: 0 }
    }

    /// Media up to `media` is there at `now`, both in microseconds; says whether the player had
    /// stalled before it came.
    pub(crate) fn arrived(&mut self, now: u64, media: u64) -> bool {
        let began = *self.began.get_or_insert(now);
        let lead = media as i64 - now as i64;
        if now < began + SETTLE_MICROS || self.newest == 0 {
            self.lead = self.lead.max(lead);
            self.newest = self.newest.max(media);
            return false;
        }
        let playhead = now as i64 + self.lead - self.buffer_micros as i64;
        let stalled = playhead > self.newest as i64;
        self.newest = self.newest.max(media);
        if stalled {
            self.lead = lead;
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames every 40 ms, each `delay(i)` late, seen by a player with 500 ms.
    fn stalls(delay: impl Fn(u64) -> u64) -> usize {
        let mut player = Player::new(500_000);
        (0..500).filter(|i| player.arrived(i * 40_000 + delay(*i), (i + 1) * 40_000)).count()
    }

    #[test]
    fn a_buffer_covers_what_is_shorter() {
        assert_eq!(stalls(|_| 0), 0);
        assert_eq!(stalls(|i| if i == 200 { 450_000 } else { 0 }), 0);
        assert_eq!(stalls(|i| if i % 2 == 0 { 400_000 } else { 0 }), 0);
    }

    #[test]
    fn a_longer_gap_is_one_stall() {
        let late = |i| if i >= 200 { 700_000 } else { 0 };
        assert_eq!(stalls(late), 1, "and the player is that much later ever after");
    }

    #[test]
    fn a_burst_on_join_is_no_buffer() {
        let mut player = Player::new(500_000);
        for i in 0..50 {
            player.arrived(10, i * 40_000);
        }
        let mut stalls = 0;
        for i in 50..200_u64 {
            let late = if i == 100 { 600_000 } else { 0 };
            stalls += usize::from(player.arrived((i - 49) * 40_000 + late, i * 40_000));
        }
        assert_eq!(stalls, 1);
    }
}
