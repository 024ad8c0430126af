//! What the rooms of a node count. No label names a room.

use prometheus::{IntCounter, IntGauge, Registry};

/// Counters and gauges of the rooms at home on this node.
#[derive(Debug)]
pub(crate) struct Metrics {
    rooms: IntGauge,
    subscriptions: IntGauge,
    ignored: IntCounter,
    replaced: IntCounter,
    taken_over: IntCounter,
    gone_on: IntCounter,
    fenced: IntCounter,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If a name is registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            rooms: gauge("tidewater_origin_rooms", "Rooms this node is the home of.")?,
            subscriptions: gauge(
                "tidewater_origin_subscriptions",
                "Subscriptions of edges to rooms on this node.",
            )?,
            ignored: counter(
                "tidewater_origin_ignored_messages_total",
                "Media messages of publishers that were of no use, for instance broken frames.",
            )?,
            replaced: counter(
                "tidewater_origin_replaced_publishers_total",
                "Silent publishers replaced by another push to the same room.",
            )?,
            taken_over: counter(
                "tidewater_origin_takeovers_total",
                "Rooms that went on here with the stream of an earlier home.",
            )?,
            gone_on: counter(
                "tidewater_origin_resumed_pushes_total",
                "Pushes that went on at another home without a discontinuity.",
            )?,
            fenced: counter(
                "tidewater_origin_fenced_rooms_total",
                "Rooms given up here because placement had named another home.",
            )?,
        })
    }

    /// A message was of no use.
    pub(crate) fn ignored(&self) {
        self.ignored.inc();
    }

    /// A silent publisher was replaced.
    pub(crate) fn replaced(&self) {
        self.replaced.inc();
    }

    /// A stream was taken over from an earlier home.
    pub(crate) fn taken_over(&self) {
        self.taken_over.inc();
    }

    /// A push went on without a discontinuity.
    pub(crate) fn gone_on(&self) {
        self.gone_on.inc();
    }

    /// A room has another home.
    pub(crate) fn fenced(&self) {
        self.fenced.inc();
    }

    /// Counts a room for as long as the guard lives.
    pub(crate) fn room(&self) -> Gauged {
        Gauged::new(&self.rooms)
    }

    /// Counts a subscription for as long as the guard lives.
    pub(crate) fn subscription(&self) -> Gauged {
        Gauged::new(&self.subscriptions)
    }
}

/// One unit of a gauge, taken back on drop.
#[derive(Debug)]
pub(crate) struct Gauged(IntGauge);

impl Gauged {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.dec();
    }
}
