//! What the members of rooms found, as part of a protocol's row.
//!
//! In: a tally. Out: fields of the row's JSON line, lines for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use super::{Quantiles, pair};
use crate::stats::RoomTally;

/// The figures of members. Counts of frames and messages are of the window.
#[derive(Debug, Clone, Serialize)]
pub struct RoomRow {
    /// Data frames received by all members.
    pub frames: u64,
    /// Messages received by all members: a message in a room of 1,000 is 1,000.
    pub deliveries: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages and gifts answered with a place in the room's order.
    pub accepted: u64,
    /// Answered as shown at one edge alone.
    pub local: u64,
    /// Answered as waiting for a moderator.
    pub held: u64,
    /// Never answered.
    pub unanswered: u64,
    /// Gifts sent.
    pub gifts: u64,
    /// Likes sent.
    pub likes: u64,
    /// Why messages and gifts were refused, how often.
    pub refused: BTreeMap<String, u64>,
    /// Messages left out and said to be, to the members that are timed.
    pub shed: u64,
    /// Messages that were missing, at the members that are timed.
    pub lost: u64,
    /// Messages that came twice, at the members that are timed.
    pub duplicated: u64,
    /// From when a message was due to its answer.
    pub ack_ms: Option<Quantiles>,
    /// Members welcomed since the run began, returns included.
    pub connects: u64,
    /// The most of them within one second.
    pub connects_per_s: u32,
    /// From the first packet to the welcome, of newcomers.
    pub connect_ms: Option<Quantiles>,
    /// Returns with everything that was missed.
    pub recovered: u64,
    /// Returns too late for that.
    pub not_recovered: u64,
    /// From the first packet to the welcome, of those who return.
    pub resume_ms: Option<Quantiles>,
    /// With what connections were closed, how often.
    pub closes: BTreeMap<String, u64>,
    /// Messages received for each CPU-second of the server.
    pub deliveries_per_server_cpu_s: Option<f64>,
}

impl RoomRow {
    /// From a tally, and what the server used meanwhile.
    #[must_use]
    pub fn new(tally: &RoomTally, cpu_s: Option<f64>) -> Self {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let deliveries = of(&tally.deliveries);
        Self {
            frames: of(&tally.frames),
            deliveries,
            sent: of(&tally.sent),
            accepted: of(&tally.accepted),
            local: of(&tally.local),
            held: of(&tally.held),
            unanswered: of(&tally.unanswered),
            gifts: of(&tally.gifts),
            likes: of(&tally.likes),
            refused: tally.refused.get(),
            shed: of(&tally.shed),
            lost: of(&tally.lost),
            duplicated: of(&tally.duplicated),
            ack_ms: Quantiles::of(&tally.ack.get()),
            connects: of(&tally.connects),
            connects_per_s: tally.most_in_a_second(),
            connect_ms: Quantiles::of(&tally.connect.get()),
            recovered: of(&tally.recovered),
            not_recovered: of(&tally.not_recovered),
            resume_ms: Quantiles::of(&tally.resume.get()),
            closes: tally.closes.get(),
            deliveries_per_server_cpu_s: cpu_s
                .filter(|cpu| *cpu > 0.0 && deliveries > 0)
                .map(|cpu| deliveries as f64 / cpu),
        }
    }

    /// For people.
    pub(super) fn write(&self, out: &mut String, window: Duration) {
        let secs = window.as_secs_f64().max(1e-3);
        let Self { sent, accepted, local, held, unanswered, gifts, likes, .. } = self;
        let _ = writeln!(
            out,
            "  rooms: {:.0} messages/s delivered in {:.0} frames/s, {:.0} per server-CPU-second",
            self.deliveries as f64 / secs,
            self.frames as f64 / secs,
            self.deliveries_per_server_cpu_s.unwrap_or_default(),
        );
        let _ = writeln!(
            out,
            "  sent {sent} messages, {gifts} gifts, {likes} likes: {accepted} accepted, {local} \
             local, {held} held, {unanswered} unanswered, {} ms to the answer",
            pair(self.ack_ms),
        );
        let _ = writeln!(
            out,
            "  seen: {} shed, {} lost, {} twice; refused {:?}; closed with {:?}",
            self.shed, self.lost, self.duplicated, self.refused, self.closes
        );
        let _ = writeln!(
            out,
            "  {} connections, at most {} a second, {} ms to the welcome; {} resumed, {} too late, \
             {} ms",
            self.connects,
            self.connects_per_s,
            pair(self.connect_ms),
            self.recovered,
            self.not_recovered,
            pair(self.resume_ms),
        );
    }
}
