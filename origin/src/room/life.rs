//! Who publishes, and where a room is in its life. Pure: `(now, input) → verdicts`.
//!
//! In: pushes that want the room, media that came, pushes that ended, the time. Out: who is
//! accepted, refused or replaced, and when the stream ends and the room closes. Nothing here is
//! written to Raft: who publishes is the home's decision alone.
//!
//! Times are milliseconds of the room's own monotonic clock.

use std::collections::VecDeque;

/// A push that sends nothing for so long is replaced by one that wants its place.
pub(crate) const SILENT_MS: u64 = 2_000;

/// How long a push waits for an incumbent to turn out silent before it is refused.
pub(crate) const CONTEND_MS: u64 = 3_000;

/// Media that comes so long after a challenge was sent after it: bytes that were under way from a
/// publisher already dead have arrived by then.
pub(crate) const IN_FLIGHT_MS: u64 = 1_000;

/// Pushes that may wait for one room at a time; one more is refused at once.
pub(crate) const MAX_CHALLENGERS: usize = 4;

/// How long an ended stream stays to be read (ENDLIST, the last segments).
pub(crate) const ENDED_LINGER_MS: u64 = 60_000;

/// How long a room without publisher stays before its placement is given back.
pub(crate) const IDLE_MS: u64 = 60_000;

/// Names one push; counts up in a room.
pub(crate) type PublishId = u64;

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This push publishes from now on. `replaces` is the incumbent that lost its place.
    Accept {
        /// The push.
        id: PublishId,
        /// The one it replaces.
        replaces: Option<PublishId>,
    },
    /// Another push is sending, or too many wait.
    Refuse {
        /// The push.
        id: PublishId,
    },
    /// The grace time is over: the stream ends.
    End,
    /// Nothing is left to serve: the room closes.
    Close,
}

/// Where the room is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody has published yet.
    Idle {
        /// Since when.
        since_ms: u64,
    },
    /// A push is accepted.
    Live {
        /// The push.
        id: PublishId,
        /// When its last media came.
        media_ms: u64,
    },
    /// The push has gone; its return is awaited.
    Grace {
        /// When the wait is over.
        until_ms: u64,
    },
    /// The stream is over.
    Ended {
        /// When the room closes.
        until_ms: u64,
    },
    /// Closed.
    Closed,
}

#[derive(Debug)]
struct Challenger {
    id: PublishId,
    since_ms: u64,
}

/// The life of one room at its home.
#[derive(Debug)]
pub(crate) struct Life {
    phase: Phase,
    challengers: VecDeque<Challenger>,
    grace_ms: u64,
    /// Members keep the room open.
    held: bool,
}

impl Life {
    pub(crate) fn new(now_ms: u64, grace_ms: u64) -> Self {
        Self {
            phase: Phase::Idle { since_ms: now_ms },
            challengers: VecDeque::new(),
            grace_ms,
            held: false,
        }
    }

    /// A room taken over from an earlier home: its publisher is awaited.
    pub(crate) fn taken_over(now_ms: u64, grace_ms: u64) -> Self {
        let phase = Phase::Grace { until_ms: now_ms + grace_ms };
        Self { phase, ..Self::new(now_ms, grace_ms) }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// A push wants the room. The verdict may come now or by [`Self::poll`].
    pub(crate) fn challenge(&mut self, now_ms: u64, id: PublishId, out: &mut Vec<Verdict>) {
        match self.phase {
            Phase::Idle { .. } | Phase::Grace { .. } => self.accept(now_ms, id, None, out),
            Phase::Live { .. } if self.challengers.len() < MAX_CHALLENGERS => {
                self.challengers.push_back(Challenger { id, since_ms: now_ms });
                self.poll(now_ms, out);
            }
            Phase::Live { .. } | Phase::Ended { .. } | Phase::Closed => {
                out.push(Verdict::Refuse { id });
            }
        }
    }

    /// A waiting push gave up.
    pub(crate) fn withdraw(&mut self, id: PublishId) {
        self.challengers.retain(|c| c.id != id);
    }

    /// The accepted push sent media.
    pub(crate) fn media(&mut self, now_ms: u64, out: &mut Vec<Verdict>) {
        if let Phase::Live { media_ms, .. } = &mut self.phase {
            *media_ms = now_ms;
            if !self.challengers.is_empty() {
                self.poll(now_ms, out);
            }
        }
    }

    /// The accepted push ended, however it did.
    pub(crate) fn left(&mut self, now_ms: u64, out: &mut Vec<Verdict>) {
        if let Phase::Live { .. } = self.phase {
            self.phase = Phase::Grace { until_ms: now_ms + self.grace_ms };
            if let Some(next) = self.challengers.pop_front() {
                self.accept(now_ms, next.id, None, out);
            }
        }
    }

    /// An operator ends the stream at once.
    pub(crate) fn stop(&mut self, now_ms: u64, out: &mut Vec<Verdict>) {
        for challenger in self.challengers.drain(..) {
            out.push(Verdict::Refuse { id: challenger.id });
        }
        match self.phase {
            Phase::Live { .. } | Phase::Grace { .. } | Phase::Idle { .. } => {
                self.phase = Phase::Ended { until_ms: now_ms + ENDED_LINGER_MS };
                out.push(Verdict::End);
            }
            Phase::Ended { .. } | Phase::Closed => {}
        }
    }

    /// A new stream of this room is to begin elsewhere or anew: closes without waiting.
    pub(crate) fn close(&mut self, out: &mut Vec<Verdict>) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            out.push(Verdict::Close);
        }
    }

    /// Members keep the room open, or no longer: it closes a while after they have gone, at the
    /// earliest.
    pub(crate) fn hold(&mut self, now_ms: u64, held: bool) {
        self.held = held;
        match &mut self.phase {
            Phase::Idle { since_ms } => *since_ms = now_ms,
            Phase::Ended { until_ms } => *until_ms = (*until_ms).max(now_ms),
            _ => {}
        }
    }

    /// What the time alone decides.
    pub(crate) fn poll(&mut self, now_ms: u64, out: &mut Vec<Verdict>) {
        match self.phase {
            Phase::Idle { since_ms } if !self.held && now_ms >= since_ms + IDLE_MS => {
                self.close(out);
            }
            Phase::Grace { until_ms } if now_ms >= until_ms => {
                self.phase = Phase::Ended { until_ms: now_ms + ENDED_LINGER_MS };
                out.push(Verdict::End);
            }
            Phase::Ended { until_ms } if !self.held && now_ms >= until_ms => self.close(out),
            Phase::Live { id, media_ms } => self.judge(now_ms, id, media_ms, out),
            _ => {}
        }
    }

    /// When [`Self::poll`] has something to do next.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle { .. } | Phase::Ended { .. } if self.held => None,
            Phase::Idle { since_ms } => Some(since_ms + IDLE_MS),
            Phase::Grace { until_ms } | Phase::Ended { until_ms } => Some(until_ms),
            Phase::Live { media_ms, .. } => {
                let first = self.challengers.front()?;
                Some((media_ms + SILENT_MS).min(first.since_ms + CONTEND_MS))
            }
            Phase::Closed => None,
        }
    }

    fn judge(&mut self, now_ms: u64, id: PublishId, media_ms: u64, out: &mut Vec<Verdict>) {
        if now_ms >= media_ms + SILENT_MS
            && let Some(next) = self.challengers.pop_front()
        {
            self.accept(now_ms, next.id, Some(id), out);
            return;
        }
        // The incumbent is alive: what it sent came too late to have been under way already.
        while let Some(first) = self.challengers.front()
            && (media_ms >= first.since_ms + IN_FLIGHT_MS || now_ms >= first.since_ms + CONTEND_MS)
        {
            out.push(Verdict::Refuse { id: first.id });
            self.challengers.pop_front();
        }
    }

    fn accept(
        &mut self,
        now_ms: u64,
        id: PublishId,
        replaces: Option<PublishId>,
        out: &mut Vec<Verdict>,
    ) {
        self.phase = Phase::Live { id, media_ms: now_ms };
        out.push(Verdict::Accept { id, replaces });
        // Those who waited behind it now contend with a publisher that has just arrived.
        for challenger in &mut self.challengers {
            challenger.since_ms = now_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(life: &mut Life, f: impl FnOnce(&mut Life, &mut Vec<Verdict>)) -> Vec<Verdict> {
        let mut out = Vec::new();
        f(life, &mut out);
        out
    }

    fn live() -> Life {
        let mut life = Life::new(0, 10_000);
        let out = run(&mut life, |l, o| l.challenge(0, 1, o));
        assert_eq!(out, [Verdict::Accept { id: 1, replaces: None }]);
        life
    }

    #[test]
    fn a_sending_publisher_keeps_its_place() {
        let mut life = live();
        run(&mut life, |l, o| l.media(900, o));
        assert_eq!(run(&mut life, |l, o| l.challenge(1_000, 2, o)), []);
        assert_eq!(run(&mut life, |l, o| l.media(1_950, o)), [], "may have been under way");
        assert_eq!(run(&mut life, |l, o| l.media(2_000, o)), [Verdict::Refuse { id: 2 }]);
        assert_eq!(life.phase(), Phase::Live { id: 1, media_ms: 2_000 });
    }

    #[test]
    fn a_silent_publisher_is_replaced_within_two_seconds_of_its_last_media() {
        let mut life = live();
        run(&mut life, |l, o| l.media(900, o));
        assert_eq!(run(&mut life, |l, o| l.challenge(1_000, 2, o)), []);
        run(&mut life, |l, o| l.media(1_100, o));
        assert_eq!(life.deadline_ms(), Some(3_100));
        assert_eq!(run(&mut life, |l, o| l.poll(3_099, o)), []);
        assert_eq!(
            run(&mut life, |l, o| l.poll(3_100, o)),
            [Verdict::Accept { id: 2, replaces: Some(1) }]
        );
    }

    #[test]
    fn a_challenge_to_a_publisher_long_silent_is_decided_at_once() {
        let mut life = live();
        run(&mut life, |l, o| l.media(500, o));
        assert_eq!(
            run(&mut life, |l, o| l.challenge(9_000, 2, o)),
            [Verdict::Accept { id: 2, replaces: Some(1) }]
        );
    }

    #[test]
    fn no_challenge_waits_longer_than_three_seconds() {
        let mut life = live();
        run(&mut life, |l, o| l.challenge(0, 2, o));
        for now in (0..900).step_by(100) {
            assert_eq!(run(&mut life, |l, o| l.media(now, o)), []);
        }
        assert_eq!(life.deadline_ms(), Some(2_800));
        assert_eq!(
            run(&mut life, |l, o| l.poll(2_800, o)),
            [Verdict::Accept { id: 2, replaces: Some(1) }]
        );
    }

    #[test]
    fn too_many_challengers_are_refused_at_once() {
        let mut life = live();
        for id in 2..2 + MAX_CHALLENGERS as u64 {
            assert_eq!(run(&mut life, |l, o| l.challenge(100, id, o)), []);
        }
        assert_eq!(run(&mut life, |l, o| l.challenge(100, 99, o)), [Verdict::Refuse { id: 99 }]);
    }

    #[test]
    fn a_return_within_the_grace_time_is_accepted_and_after_it_the_stream_ends() {
        let mut life = live();
        run(&mut life, |l, o| l.left(5_000, o));
        assert_eq!(life.deadline_ms(), Some(15_000));
        assert_eq!(
            run(&mut life, |l, o| l.challenge(14_999, 2, o)),
            [Verdict::Accept { id: 2, replaces: None }]
        );
        run(&mut life, |l, o| l.left(20_000, o));
        assert_eq!(run(&mut life, |l, o| l.poll(30_000, o)), [Verdict::End]);
        assert_eq!(
            run(&mut life, |l, o| l.challenge(31_000, 3, o)),
            [Verdict::Refuse { id: 3 }],
            "an ended stream does not go on"
        );
        assert_eq!(run(&mut life, |l, o| l.poll(90_000, o)), [Verdict::Close]);
        assert_eq!(life.deadline_ms(), None);
    }

    #[test]
    fn a_waiting_push_takes_the_place_of_one_that_leaves() {
        let mut life = live();
        run(&mut life, |l, o| l.challenge(100, 2, o));
        assert_eq!(
            run(&mut life, |l, o| l.left(200, o)),
            [Verdict::Accept { id: 2, replaces: None }]
        );
    }

    #[test]
    fn an_idle_room_closes_after_a_minute() {
        let mut life = Life::new(5, 10_000);
        assert_eq!(life.deadline_ms(), Some(60_005));
        assert_eq!(run(&mut life, |l, o| l.poll(60_005, o)), [Verdict::Close]);
    }

    #[test]
    fn stop_ends_at_once_and_refuses_who_waits() {
        let mut life = live();
        run(&mut life, |l, o| l.challenge(100, 2, o));
        assert_eq!(
            run(&mut life, |l, o| l.stop(200, o)),
            [Verdict::Refuse { id: 2 }, Verdict::End]
        );
    }
}
