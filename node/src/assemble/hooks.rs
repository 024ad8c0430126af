//! The webhooks of a node, out of the configuration.

use ::hooks::{Format, Hooks, Metrics};
use anyhow::Context as _;

use super::Plan;
use crate::{config::Config, telemetry::NodeMetrics};

/// Begins them, where there is a URL.
///
/// # Errors
/// When the URL or the certificates cannot be used, naming the key to change.
pub(super) fn start(
    plan: &Plan,
    config: &Config,
    metrics: &NodeMetrics,
) -> anyhow::Result<Option<Hooks>> {
    let settings = &config.hooks;
    let Some(url) = &settings.url else { return Ok(None) };
    let secret = settings.secret.as_ref().map(|secret| secret.reveal().as_bytes().to_vec());
    let hooks = ::hooks::Config {
        url: url.clone(),
        secret: secret.unwrap_or_default(),
        kinds: settings.kinds.clone(),
        format: if settings.srs { Format::Srs } else { Format::Tidewater },
        timeout: settings.timeout,
        fail_open: settings.fail_open,
        allow_private: settings.allow_private,
        ca: settings.ca.clone(),
        node: plan.id.to_string(),
    };
    let metrics = Metrics::register(&metrics.registry)?;
    Ok(Some(Hooks::start(hooks, metrics).context("hooks.url")?))
}
