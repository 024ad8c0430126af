//! `tidewater cluster …`

use clap::Subcommand;

use super::{
    Ask,
    client::Client,
    table::{or_dash, table},
};
use crate::{admin::view, config::Sources};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the leader and all nodes
    Status {
        #[command(flatten)]
        ask: Ask,
    },
}

pub(super) fn execute(command: Command, sources: Sources) -> anyhow::Result<()> {
    let Command::Status { ask } = command;
    let cluster: view::Cluster = Client::new(&ask, sources)?.get("/api/v1/cluster")?;
    if ask.json {
        println!("{}", serde_json::to_string(&cluster)?);
        return Ok(());
    }
    println!("cluster   {}", cluster.cluster);
    println!("leader    {}", or_dash(cluster.leader.as_ref()));
    println!("term      {}", cluster.term);
    println!("revision  {}", cluster.revision);
    println!("rooms     {}\n", cluster.rooms);
    let rows: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| {
            [
                node.id.clone(),
                node.state.clone(),
                node.roles.join(","),
                node.region.clone(),
                node.rooms.to_string(),
                or_dash(node.viewers),
                node.address.clone(),
            ]
        })
        .collect();
    print!("{}", table(["NODE", "STATE", "ROLES", "REGION", "ROOMS", "VIEWERS", "ADDRESS"], &rows));
    Ok(())
}
