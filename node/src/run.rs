//! One node as its own process: what `tidewater run` does.
//!
//! In: the configuration and the operator's signals. Out: a node that serves until it is told to
//! stop, or the reason why it could not. The order of the steps is the order they stand in.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context as _, bail};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use wire::IdentityFiles;

use crate::{
    admin::{self, Shown, open_door},
    assemble::{Node, Plan, STOP_MARGIN},
    config::{Config, Role, Sources, value::host_port},
    facts::Facts,
    shutdown::{Signals, drained},
    telemetry::{Logs, Metrics},
    version::Versions,
};

/// Runs until a signal or a failure.
///
/// # Errors
/// What the configuration lacks, what could not be started, or which role has died.
pub async fn run(sources: Sources) -> anyhow::Result<()> {
    let config = Config::load(&sources)?;
    let logs = Logs::start(&config.log)?;
    let signals = Signals::listen().context("cannot listen for signals")?;
    for door in config.open_doors() {
        tracing::warn!("open to anyone: {}", open_door(door));
    }
    warn_if_unreachable(&config);

    let metrics = Metrics::new(&Versions::of_this_build())?;
    let facts = Facts::default();
    let node = Node::start(plan(&config)?, &config, metrics.node()?, &facts).await?;
    let (live, shown) = watch::channel(Arc::new(config));
    let shown = Shown {
        config: shown,
        client: node.client().clone(),
        events: node.events(),
        audit: node.audit(),
        inquiries: node.inquiries().clone(),
        refused: node.refused().clone(),
        metrics,
        facts,
        rtmp: node.rtmp(),
        http: node.http(),
        warns: true,
        stop: signals.stop.clone(),
    };
    let closed = CancellationToken::new();
    let admin = admin::Listener::admin(shown.clone(), closed.clone()).await?;
    let api = admin::Listener::api(shown, closed.clone()).await?;
    tracing::info!(
        node = %node.id(),
        cluster = %node.address(),
        rtmp = node.rtmp().map(tracing::field::display),
        http = node.http().map(tracing::field::display),
        admin = %admin.address,
        "running"
    );

    let failure = tokio::select! {
        () = signals.stop.cancelled() => None,
        failure = node.failed() => Some(failure),
        () = reload_on_signal(&signals, &sources, &live, &logs) => None,
    };
    signals.stop.cancel();
    let grace = live.borrow().node.shutdown_grace;
    let deadline = Instant::now() + grace;
    let drain = async {
        node.stop(deadline).await;
        closed.cancel();
        admin.closed().await;
        if let Some(api) = api {
            api.closed().await;
        }
    };
    if !drained(grace + STOP_MARGIN, drain).await {
        tracing::warn!(?grace, "not everything in flight was finished in time; cut off");
    }
    match failure {
        Some(failure) => Err(failure),
        None => {
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// Reads the configuration again at each SIGHUP and takes over what can be. Never returns.
pub(crate) async fn reload_on_signal(
    signals: &Signals,
    sources: &Sources,
    live: &watch::Sender<Arc<Config>>,
    logs: &Logs,
) {
    let mut reloads = signals.reloads.clone();
    while reloads.changed().await.is_ok() {
        match Config::load(sources) {
            Err(problems) => {
                for problem in problems.0 {
                    tracing::warn!(%problem, "configuration not reloaded");
                }
            }
            Ok(new) => {
                let old = Arc::clone(&live.borrow());
                let changes = new.changes_from(&old);
                for change in &changes {
                    if change.applied {
                        tracing::info!(key = change.key, "taken over");
                    } else {
                        tracing::warn!(key = change.key, "changed; takes effect after a restart");
                    }
                }
                if changes.is_empty() {
                    tracing::info!("configuration read again: nothing has changed");
                }
                logs.set_filter(&new.log.filter);
                live.send_replace(Arc::new(old.reloaded(&new)));
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Says at the start what would otherwise show as refused calls only.
fn warn_if_unreachable(config: &Config) {
    let admin = &config.admin;
    let host = host_port(&admin.listen).map_or("", |(host, _)| host);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback && admin.token.is_none() {
        tracing::warn!(
            listen = admin.listen,
            "admin.listen is not on loopback, but callers elsewhere are refused until a token is \
             set: TIDEWATER_ADMIN__TOKEN"
        );
    }
}

/// What the configuration says of this node.
fn plan(config: &Config) -> anyhow::Result<Plan> {
    let Some(id) = config.node.id.clone() else {
        bail!("node.id is not set; give this node the name that its certificate carries");
    };
    let cluster = &config.cluster;
    if cluster.control.is_empty() && !config.has(Role::Control) {
        bail!("cluster.control is not set; list the control nodes, as in [\"o1@10.0.0.1:7400\"]");
    }
    let (Some(ca), Some(cert), Some(key)) = (&cluster.ca, &cluster.cert, &cluster.key) else {
        bail!(
            "cluster.ca, cluster.cert and cluster.key must be set; make the files with: \
             tidewater certs init --dir certs && tidewater certs node --dir certs {id}"
        );
    };
    let files = IdentityFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() };
    Ok(Plan {
        identity: files.load(&id)?,
        files: Some(files),
        ca_key: cluster.ca_key.clone(),
        region: config.node.region.clone(),
        roles: config.node.roles.clone(),
        data: config.node.data.clone(),
        cluster_listen: cluster.listen,
        advertise: cluster.advertise.clone(),
        control: cluster.control.clone(),
        http_listen: config.http.listen,
        id,
    })
}
