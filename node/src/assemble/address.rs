//! Addresses of nodes: resolving those of others, finding out the own one.
//!
//! In: names from the configuration. Out: socket addresses. Asks the resolver and the routing table,
//! sends nothing.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::time::Instant;
use wire::NodeId;

use super::Plan;
use crate::config::ControlNode;

/// How long the names in `cluster.control` may take to resolve: in an orchestrator they appear with
/// the nodes.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an unresolved name is tried again.
const RESOLVE_EVERY: Duration = Duration::from_secs(1);
/// Resolves the list of control nodes.
///
/// # Errors
/// The entry whose name has no address within [`RESOLVE_TIMEOUT`].
pub(super) async fn resolve_all(
    control: &[ControlNode],
) -> anyhow::Result<Vec<(NodeId, SocketAddr)>> {
    let mut resolved = Vec::with_capacity(control.len());
    for node in control {
        let address = resolve(&node.address)
            .await
            .with_context(|| format!("cluster.control: {}@{}", node.id, node.address))?;
        resolved.push((node.id.clone(), address));
    }
    Ok(resolved)
}

/// Resolves `host:port`, again and again for [`RESOLVE_TIMEOUT`].
async fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    loop {
        let error = match tokio::net::lookup_host(address).await {
            Ok(mut found) => match found.next() {
                Some(address) => return Ok(address),
                None => anyhow::anyhow!("the name has no address"),
            },
            Err(error) => error.into(),
        };
        if Instant::now() >= deadline {
            return Err(error.context("cannot resolve the name"));
        }
        tracing::warn!(address, %error, "cannot resolve the name; trying again");
        tokio::time::sleep(RESOLVE_EVERY).await;
    }
}

/// Where others reach this node: as configured, else its own entry in the list of control nodes,
/// else what it listens on, else the address from which it reaches the first control node.
///
/// # Errors
/// When it cannot be found out and must be configured.
pub(super) async fn advertised(
    plan: &Plan,
    bound: SocketAddr,
    control: &[(NodeId, SocketAddr)],
) -> anyhow::Result<SocketAddr> {
    if let Some(advertise) = &plan.advertise {
        return resolve(advertise).await.context("cluster.advertise");
    }
    if let Some((_, address)) = control.iter().find(|(id, _)| *id == plan.id) {
        return Ok(*address);
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    let Some((_, first)) = control.first() else {
        // Alone: nobody else needs to reach it.
        return Ok(SocketAddr::from(([127, 0, 0, 1], bound.port())));
    };
    match route_to(*first) {
        Ok(ip) => Ok(SocketAddr::new(ip, bound.port())),
        Err(error) => bail!(
            "cluster.advertise: set the address other nodes reach this one at; it cannot be found \
             out, because there is no route to {first}: {error}"
        ),
    }
}

/// The local address from which packets to `target` leave. Connecting a UDP socket sends nothing.
fn route_to(target: SocketAddr) -> std::io::Result<std::net::IpAddr> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}
