//! `tidewater cluster …`

use clap::Subcommand;
use wire::NodeId;

use super::{
    Ask,
    client::Client,
    table::{or_dash, table},
};
use crate::{
    admin::view::{self, Admitted, NewLeader, NewMember},
    config::Sources,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the leader and all nodes
    Status {
        #[command(flatten)]
        ask: Ask,
    },
    /// Admit a control node; it catches up and votes by itself
    Add {
        /// Its id
        #[arg(value_parser = NodeId::new)]
        node: NodeId,
        /// host:port of its QUIC endpoint
        address: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Remove a node for good; it must have no rooms
    Remove {
        /// Its id
        #[arg(value_parser = NodeId::new)]
        node: NodeId,
        #[command(flatten)]
        ask: Ask,
    },
    /// Hand leadership to another control node
    TransferLeader {
        /// To whom; without it, to the one that is furthest
        #[arg(value_parser = NodeId::new)]
        node: Option<NodeId>,
        #[command(flatten)]
        ask: Ask,
    },
}

pub(super) fn execute(command: Command, sources: Sources) -> anyhow::Result<()> {
    match command {
        Command::Status { ask } => status(&ask, sources),
        Command::Add { node, address, ask } => {
            let body = NewMember { id: node.to_string(), address };
            let admitted: Admitted =
                Client::new(&ask, sources)?.post("/api/v1/cluster/members", &body)?;
            let text = format!("{node} is admitted as raft id {}", admitted.raft_id);
            done(&ask, &admitted, &text)
        }
        Command::Remove { node, ask } => {
            Client::new(&ask, sources)?.delete(&format!("/api/v1/cluster/nodes/{node}"))?;
            done(&ask, &serde_json::json!({ "removed": node }), &format!("{node} is removed"))
        }
        Command::TransferLeader { node, ask } => {
            let body = NewLeader { to: node.as_ref().map(ToString::to_string) };
            Client::new(&ask, sources)?.act("/api/v1/cluster/leader", &body)?;
            let text = "leadership is being handed on; cluster status shows to whom";
            done(&ask, &serde_json::json!({ "to": node }), text)
        }
    }
}

/// Says that it is done, in JSON or in words.
fn done(ask: &Ask, json: &impl serde::Serialize, text: &str) -> anyhow::Result<()> {
    match ask.json {
        true => println!("{}", serde_json::to_string(json)?),
        false => println!("{text}"),
    }
    Ok(())
}

fn status(ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    let cluster: view::Cluster = Client::new(ask, sources)?.get("/api/v1/cluster")?;
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
