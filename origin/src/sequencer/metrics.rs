//! What the sequencer counts. No label names a room or a user.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use wire::room::{Code, Lane};

use super::core::Count;

/// Counters of the rooms ordered at this node.
#[derive(Debug)]
pub(crate) struct Metrics {
    placed: [IntCounter; Lane::ALL.len()],
    refused: IntCounterVec,
    local: IntCounter,
    lagged: IntCounter,
    pub(super) rooms: IntGauge,
    filter_phrases: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let placed = counters(
            "tidewater_room_placed_items_total",
            "Items given their place in a room's order by this home.",
            "lane",
        )?;
        let refused = counters(
            "tidewater_room_home_refused_total",
            "Messages and gifts this home refused, by the protocol's code.",
            "code",
        )?;
        Code::ALL.iter().for_each(|code| drop(refused.with_label_values(&[code.label()])));
        Ok(Self {
            placed: Lane::ALL.map(|lane| placed.with_label_values(&[lane.label()])),
            refused,
            local: counter(
                "tidewater_room_local_messages_total",
                "Messages over a room's rate, shown on their sender's edge alone.",
            )?,
            lagged: counter(
                "tidewater_room_lagging_edges_total",
                "Edges let go because they did not take a room's messages.",
            )?,
            rooms: gauge("tidewater_room_sequencers", "Rooms whose messages this node orders.")?,
            filter_phrases: gauge(
                "tidewater_room_filter_phrases",
                "Phrases of the word filter in use.",
            )?,
        })
    }

    pub(super) fn count(&self, count: Count) {
        match count {
            Count::Placed(lane) => self.placed[lane as usize].inc(),
            Count::Local => self.local.inc(),
            Count::Refused(code) => self.refused.with_label_values(&[code.label()]).inc(),
        }
    }

    pub(super) fn lagged(&self) {
        self.lagged.inc();
    }

    pub(super) fn phrases(&self, phrases: usize) {
        self.filter_phrases.set(i64::try_from(phrases).unwrap_or(i64::MAX));
    }
}
