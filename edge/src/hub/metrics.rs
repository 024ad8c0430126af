//! What the rooms of an edge count. No label names a room or a user.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use wire::room::{Code, Lane};

use super::core::Resumed;

/// Why a member's connection ended; the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client left.
    Left,
    /// It broke the WebSocket protocol.
    Protocol,
    /// 4001.
    BadFrame,
    /// 4002.
    TooLarge,
    /// 4003.
    Unauthorised,
    /// 4004.
    Gone,
    /// 4005.
    Removed,
    /// 4008.
    Slow,
    /// 4009.
    Silent,
    /// 4010.
    TooMany,
    /// 4012.
    Draining,
    /// 4013.
    Overloaded,
    /// 4014.
    Replaced,
}

impl Ended {
    const ALL: [Self; 13] = [
        Self::Left,
        Self::Protocol,
        Self::BadFrame,
        Self::TooLarge,
        Self::Unauthorised,
        Self::Gone,
        Self::Removed,
        Self::Slow,
        Self::Silent,
        Self::TooMany,
        Self::Draining,
        Self::Overloaded,
        Self::Replaced,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Protocol => "protocol",
            Self::BadFrame => "bad_frame",
            Self::TooLarge => "too_large",
            Self::Unauthorised => "unauthorised",
            Self::Gone => "gone",
            Self::Removed => "removed",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::TooMany => "too_many",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Replaced => "replaced",
        }
    }

    /// The close code, where it is one of the protocol's own.
    pub(crate) fn code(self) -> Option<u16> {
        match self {
            Self::Left | Self::Protocol => None,
            Self::BadFrame => Some(4001),
            Self::TooLarge => Some(4002),
            Self::Unauthorised => Some(4003),
            Self::Gone => Some(4004),
            Self::Removed => Some(4005),
            Self::Slow => Some(4008),
            Self::Silent => Some(4009),
            Self::TooMany => Some(4010),
            Self::Draining => Some(4012),
            Self::Overloaded => Some(4013),
            Self::Replaced => Some(4014),
        }
    }
}

/// Counters and gauges of an edge's rooms.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) members: IntGauge,
    pub(crate) hubs: IntGauge,
    ended: [IntCounter; Ended::ALL.len()],
    resumes: [IntCounter; 3],
    refused: IntCounterVec,
    shed: [IntCounter; Lane::ALL.len()],
    pub(crate) merged: IntCounter,
    pub(crate) accepted: IntCounter,
    pub(crate) frames: IntCounter,
    pub(crate) lean_frames: IntCounter,
    pub(crate) sent_bytes: IntCounter,
    pub(crate) tick_lag_seconds: Histogram,
    pub(crate) fanout_seconds: Histogram,
    pub(crate) answer_seconds: Histogram,
}

/// Seconds.
const LAG_BUCKETS: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

struct Registering<'a>(&'a Registry);

impl Registering<'_> {
    fn kept<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.kept(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.kept(IntCounter::new(name, help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.kept(IntGauge::new(name, help)?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).buckets(LAG_BUCKETS.to_vec());
        self.kept(Histogram::with_opts(opts)?)
    }
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let add = Registering(registry);
        let ended = add.counters(
            "tidewater_room_closed_total",
            "Connections of members that ended, by reason.",
            "reason",
        )?;
        let resumes = add.counters(
            "tidewater_room_resumes_total",
            "Members that came in: new, with all they missed, or after too long.",
            "outcome",
        )?;
        let shed = add.counters(
            "tidewater_room_shed_items_total",
            "Items that this edge's members were not shown, only told of.",
            "lane",
        )?;
        let refused = add.counters(
            "tidewater_room_refused_total",
            "Messages and gifts refused by this edge, by the protocol's code.",
            "code",
        )?;
        Code::ALL.iter().for_each(|code| drop(refused.with_label_values(&[code.label()])));
        Ok(Self {
            members: add.gauge("tidewater_room_members", "Members connected to this edge.")?,
            hubs: add.gauge("tidewater_room_hubs", "Rooms whose members this edge serves.")?,
            ended: Ended::ALL.map(|ended_by| ended.with_label_values(&[ended_by.label()])),
            resumes: ["fresh", "recovered", "lost"].map(|o| resumes.with_label_values(&[o])),
            refused,
            shed: Lane::ALL.map(|lane| shed.with_label_values(&[lane.label()])),
            merged: add.counter(
                "tidewater_room_merged_items_total",
                "Messages shown as part of an equal one.",
            )?,
            accepted: add.counter(
                "tidewater_room_accepted_total",
                "Messages and gifts of members passed on to their room's home.",
            )?,
            frames: add.counter("tidewater_room_frames_total", "Batches sent to members.")?,
            lean_frames: add.counter(
                "tidewater_room_lean_frames_total",
                "Batches sent without chat to members that were behind.",
            )?,
            sent_bytes: add.counter("tidewater_room_sent_bytes_total", "Bytes sent to members.")?,
            tick_lag_seconds: add.histogram(
                "tidewater_room_tick_lag_seconds",
                "How late ticks were, against when they were due.",
            )?,
            fanout_seconds: add.histogram(
                "tidewater_room_fanout_seconds",
                "From a tick to the last of one task's members having been given it.",
            )?,
            answer_seconds: add.histogram(
                "tidewater_room_answer_seconds",
                "From something a member of this edge says to its home's answer, behind the item itself.",
            )?,
        })
    }

    pub(crate) fn ended(&self, why: Ended) {
        self.ended[why as usize].inc();
    }

    pub(crate) fn resumed(&self, how: Resumed) {
        self.resumes[how as usize].inc();
    }

    pub(crate) fn refuse(&self, code: Code) {
        self.refused.with_label_values(&[code.label()]).inc();
    }

    pub(crate) fn shed(&self, lane_number: u32, count: u32) {
        if let Some(counter) = self.shed.get(lane_number as usize) {
            counter.inc_by(u64::from(count));
        }
    }
}
