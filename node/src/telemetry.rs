//! Logs and the metrics registries.
//!
//! In: `[log]`, and what the roles register. Out: log lines on stderr (stdout belongs to answers),
//! and the text that `/metrics` serves. Each node of a process has its own [`Registry`], because the
//! roles register the same names; a process that runs several (`tidewater dev`) shows their sum.

use std::{collections::BTreeMap, io::IsTerminal, sync::Arc};

use parking_lot::Mutex;
use prometheus::{
    IntCounterVec, Opts, Registry, TextEncoder,
    core::Collector,
    proto::{Metric, MetricFamily, MetricType},
};
use tracing_subscriber::{
    EnvFilter, Layer, layer::SubscriberExt, registry, reload, util::SubscriberInitExt,
};

use crate::{
    config::{Log, LogFormat},
    version::Versions,
};

/// Gauges that say how bad or how far something is: a sum over nodes would mean nothing, the
/// highest is what an operator looks for.
const HIGHEST_COUNTS: [&str; 3] = ["_seconds", "_term", "_info"];

/// Changes what is logged while the node runs.
#[derive(Clone)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, registry::Registry>,
}

impl Logs {
    /// Starts logging to stderr. Only the first call of a process has an effect on where lines go.
    ///
    /// # Errors
    /// If the filter is not one; the configuration has checked it before.
    pub fn start(log: &Log) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&log.filter)?);
        let human = match log.format {
            LogFormat::Auto => std::io::stderr().is_terminal(),
            LogFormat::Human => true,
            LogFormat::Json => false,
        };
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = if human {
            lines.with_ansi(std::io::stderr().is_terminal()).boxed()
        } else {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        };
        // A second node of the same process (tests) keeps the first one's subscriber.
        if registry::Registry::default().with(filter).with(lines).try_init().is_ok() {
            std::panic::set_hook(Box::new(log_panic));
        }
        Ok(Self { filter: handle })
    }

    /// Takes a new filter over.
    pub fn set_filter(&self, filter: &str) {
        let new = EnvFilter::try_new(filter).map_err(|e| e.to_string());
        if let Err(error) = new.and_then(|new| self.filter.reload(new).map_err(|e| e.to_string())) {
            tracing::warn!(%filter, %error, "log filter not changed");
        }
    }
}

/// A panic is a bug of ours: it goes where the other lines go, in their form.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("no text");
    tracing::error!(at, what, "panic");
}

/// All registries of the process.
#[derive(Clone)]
pub struct Metrics {
    process: Registry,
    nodes: Arc<Mutex<Vec<Registry>>>,
}

/// What one node's roles register on and count refusals with.
#[derive(Clone)]
pub struct NodeMetrics {
    /// The node's registry.
    pub registry: Registry,
    /// `tidewater_refused_total{role,reason}`, shared by all roles.
    pub refused: IntCounterVec,
}

impl Metrics {
    /// Registers what belongs to the process: `process_*` and `tidewater_build_info`.
    ///
    /// # Errors
    /// If a metric cannot be made: a mistake in this crate.
    pub fn new(versions: &Versions) -> anyhow::Result<Self> {
        let process = Registry::new();
        process.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build = prometheus::IntGaugeVec::new(
            Opts::new(
                "tidewater_build_info",
                "Always 1; the labels say which build this is and which formats it speaks",
            ),
            &["version", "wire", "log", "render"],
        )?;
        let Versions { version, wire, log, render } = versions;
        build
            .with_label_values(&[version, &wire.to_string(), &log.to_string(), &render.to_string()])
            .set(1);
        process.register(Box::new(build))?;
        Ok(Self { process, nodes: Arc::default() })
    }

    /// A registry for one more node.
    ///
    /// # Errors
    /// If a metric cannot be made: a mistake in this crate.
    pub fn node(&self) -> anyhow::Result<NodeMetrics> {
        let registry = Registry::new();
        let refused = IntCounterVec::new(
            Opts::new(
                "tidewater_refused_total",
                "Connections and requests refused, by the role that refused and why",
            ),
            &["role", "reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        self.nodes.lock().push(registry.clone());
        Ok(NodeMetrics { registry, refused })
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// If a collected family is malformed: a mistake of whoever registered it.
    pub fn render(&self) -> anyhow::Result<String> {
        let mut families = self.process.gather();
        let nodes = self.nodes.lock().clone();
        match nodes.as_slice() {
            [one] => families.extend(one.gather()),
            several => families.extend(sum(several.iter().flat_map(Registry::gather))),
        }
        // A family without a metric yet would be a HELP line alone.
        families.retain(|family| !family.get_metric().is_empty());
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }

    /// The registry of the process, for what is neither a node's nor a role's.
    #[must_use]
    pub fn process(&self) -> &Registry {
        &self.process
    }
}

/// Adds up equal metrics of several nodes.
fn sum(families: impl Iterator<Item = MetricFamily>) -> Vec<MetricFamily> {
    let mut sums: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in families {
        match sums.get_mut(family.name()) {
            None => {
                sums.insert(family.name().to_owned(), family);
            }
            Some(into) => {
                let name = family.name().to_owned();
                let kind = family.get_field_type();
                for metric in family.take_metric() {
                    add(into, kind, &name, metric);
                }
            }
        }
    }
    sums.into_values().collect()
}

fn add(into: &mut MetricFamily, kind: MetricType, name: &str, metric: Metric) {
    let same = |other: &&mut Metric| other.get_label() == metric.get_label();
    let Some(found) = into.mut_metric().iter_mut().find(same) else {
        into.mut_metric().push(metric);
        return;
    };
    match kind {
        MetricType::COUNTER => {
            let mut counter = found.get_counter().clone();
            counter.set_value(counter.get_value() + metric.get_counter().get_value());
            found.set_counter(counter);
        }
        MetricType::HISTOGRAM => {
            let (mut to, from) = (found.get_histogram().clone(), metric.get_histogram());
            to.set_sample_count(to.get_sample_count() + from.get_sample_count());
            to.set_sample_sum(to.get_sample_sum() + from.get_sample_sum());
            let mut buckets = to.get_bucket().to_vec();
            for (to, from) in buckets.iter_mut().zip(from.get_bucket()) {
                to.set_cumulative_count(to.cumulative_count() + from.cumulative_count());
            }
            to.set_bucket(buckets);
            found.set_histogram(to);
        }
        _ => {
            let (one, two) = (found.get_gauge().get_value(), metric.get_gauge().get_value());
            let mut gauge = found.get_gauge().clone();
            let highest = HIGHEST_COUNTS.iter().any(|ending| name.ends_with(ending));
            gauge.set_value(if highest { one.max(two) } else { one + two });
            found.set_gauge(gauge);
        }
    }
}

/// Registers a collector and returns it, for metrics made in this crate.
///
/// # Errors
/// If its name is taken: a mistake in this crate.
pub fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> anyhow::Result<C> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use prometheus::{Gauge, Histogram, HistogramOpts, IntGaugeVec};

    use super::*;

    fn metrics() -> Metrics {
        let versions = Versions { version: "1.2.3".into(), wire: 1, log: 2, render: 3 };
        Metrics::new(&versions).unwrap()
    }

    #[test]
    fn the_build_and_the_process_show_themselves() {
        let text = metrics().render().unwrap();
        let build = r#"tidewater_build_info{log="2",render="3",version="1.2.3",wire="1"} 1"#;
        assert!(text.contains(build), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn several_nodes_show_their_sum() {
        let metrics = metrics();
        for value in [1_i64, 2] {
            let node = metrics.node().unwrap();
            node.refused.with_label_values(&["edge", "full"]).inc_by(value as u64);
            let viewers = IntGaugeVec::new(Opts::new("t_viewers", "h"), &["protocol"]);
            let viewers = registered(&node.registry, viewers).unwrap();
            viewers.with_label_values(&["hls"]).set(value);
            if value == 2 {
                viewers.with_label_values(&["flv"]).set(5);
            }
            registered(&node.registry, Gauge::new("t_lag_seconds", "h")).unwrap().set(value as f64);
            let times = HistogramOpts::new("t_times", "h").buckets(vec![1.0, 2.0]);
            registered(&node.registry, Histogram::with_opts(times)).unwrap().observe(value as f64);
        }
        let text = metrics.render().unwrap();
        for line in [
            r#"tidewater_refused_total{reason="full",role="edge"} 3"#,
            r#"t_viewers{protocol="hls"} 3"#,
            r#"t_viewers{protocol="flv"} 5"#,
            "t_lag_seconds 2",
            r#"t_times_bucket{le="1"} 1"#,
            r#"t_times_bucket{le="2"} 2"#,
            "t_times_sum 3",
            "t_times_count 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# HELP t_viewers").count(), 1);
    }

    #[test]
    fn families_without_a_metric_do_not_show() {
        let metrics = metrics();
        metrics.node().unwrap();
        assert!(!metrics.render().unwrap().contains("tidewater_refused_total"));
    }
}
