//! What is done to a control node's data while the node is stopped: restore, recover.
//!
//! In: the node's configuration, a backup. Out: a data folder from which the node starts as the only
//! voter of a new cluster. The lock of the folder is held meanwhile, so that a node that runs is
//! refused and not damaged.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use cluster::Refounded;
use wire::NodeId;

use crate::{
    assemble,
    config::{Config, Role},
};

/// Founds a cluster from a backup, in this node's empty data folder.
///
/// # Errors
/// What the configuration lacks, who uses the folder, or what is wrong with the backup.
pub(crate) fn restore(config: &Config, file: &Path) -> anyhow::Result<(NodeId, Refounded)> {
    let backup = std::fs::read(file)
        .with_context(|| format!("cannot read the backup {}", file.display()))?;
    let (node, address) = member(config)?;
    let _lock = assemble::lock(&config.node.data)?;
    let refounded = cluster::restore(&backup, &config.node.data, &node, address)?;
    Ok((node, refounded))
}

/// Founds a cluster from this node's own store, the others being lost for good.
///
/// # Errors
/// What the configuration lacks, who uses the folder, or what is wrong with the store.
pub(crate) fn recover(config: &Config) -> anyhow::Result<(NodeId, Refounded)> {
    let (node, address) = member(config)?;
    let data = &config.node.data;
    ensure!(data.is_dir(), "node.data: {} is no folder; nothing to recover", data.display());
    let _lock = assemble::lock(data)?;
    let refounded = cluster::recover(data, &node, address)?;
    Ok((node, refounded))
}

/// Who this node is and where others reach it.
fn member(config: &Config) -> anyhow::Result<(NodeId, SocketAddr)> {
    let Some(id) = config.node.id.clone() else {
        bail!("node.id is not set; name the node's configuration with --config FILE");
    };
    ensure!(config.has(Role::Control), "node.roles: {id} has no control role");
    let cluster = &config.cluster;
    let own = cluster.control.iter().find(|listed| listed.id == id).map(|own| &own.address);
    let address = match cluster.advertise.as_ref().or(own) {
        Some(text) => text
            .to_socket_addrs()
            .with_context(|| format!("cannot resolve {text}"))?
            .next()
            .with_context(|| format!("{text} has no address"))?,
        None if !cluster.listen.ip().is_unspecified() => cluster.listen,
        // Alone, as it would start: nobody else needs to reach it.
        None => SocketAddr::from(([127, 0, 0, 1], cluster.listen.port())),
    };
    Ok((id, address))
}
