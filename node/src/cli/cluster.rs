//! `tidewater cluster …`: commands to a running cluster. Those to a stopped node are in
//! [`super::disaster`].

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use wire::NodeId;

use super::{
    Ask,
    client::Client,
    disaster,
    table::{or_dash, table},
};
use crate::{
    admin::view::{self, Admitted, CreatedJoinToken, NewJoinToken, NewLeader, NewMember},
    config::{
        Sources,
        value::{duration, show},
    },
};

/// How often a drain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
    /// Hand leadership to another control node, and wait until it leads
    TransferLeader {
        /// To whom; without it, to the one that is furthest
        #[arg(value_parser = NodeId::new)]
        node: Option<NodeId>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Move all rooms off a node and send its viewers elsewhere; wait until the rooms are gone
    Drain {
        /// Its id
        #[arg(value_parser = NodeId::new)]
        node: NodeId,
        /// End the drain: the node takes rooms and viewers again, as it does after a restart
        #[arg(long)]
        undo: bool,
        /// Do not wait
        #[arg(long, conflicts_with = "undo")]
        no_wait: bool,
        /// How long to wait for the last room
        #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration)]
        timeout: Duration,
        #[command(flatten)]
        ask: Ask,
    },
    /// Make a token with which one new node gets its certificate: certs node --join
    Token {
        /// The only node it is for, new or not; without it, any that the cluster does not know
        #[arg(long, value_name = "ID", value_parser = NodeId::new)]
        node: Option<NodeId>,
        /// How long it is good, at most a week
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
        ttl: Duration,
        #[command(flatten)]
        ask: Ask,
    },
    /// Write a backup of placement, settings and keys to a file
    Backup {
        /// The file; it must not exist
        file: PathBuf,
        #[command(flatten)]
        ask: Ask,
    },
    /// Found a cluster from a backup, in the empty data folder of a stopped control node
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        node: disaster::Stopped,
    },
    /// Found a cluster from the data of the last control node, when a majority is lost for good
    Recover {
        /// Says that no other voter will ever come back
        #[arg(long, required = true)]
        sole_survivor: bool,
        #[command(flatten)]
        node: disaster::Stopped,
    },
}

pub(super) fn execute(command: Command, sources: Sources) -> anyhow::Result<()> {
    match command {
        Command::Status { ask } => status(&ask, sources),
        Command::Add { node, address, ask } => {
            let body = NewMember { id: node.to_string(), address };
            let admitted: Admitted =
                Client::new(&ask, sources)?.post("/api/v1/cluster/members", &body)?;
            let text = format!(
                "{node} is admitted as raft id {}; cluster status shows when it votes",
                admitted.raft_id
            );
            done(&ask, &admitted, &text)
        }
        Command::Remove { node, ask } => {
            Client::new(&ask, sources)?.delete(&format!("/api/v1/cluster/nodes/{node}"))?;
            done(&ask, &serde_json::json!({ "removed": node }), &format!("{node} is removed"))
        }
        Command::TransferLeader { node, ask } => {
            let client = Client::new(&ask, sources)?;
            let body = NewLeader { to: node.as_ref().map(ToString::to_string) };
            client.act("/api/v1/cluster/leader", &body)?;
            let leader = client.get::<view::Cluster>("/api/v1/cluster")?.leader;
            let text = leader
                .as_ref()
                .map_or("leadership has passed".to_owned(), |leader| format!("{leader} leads"));
            done(&ask, &serde_json::json!({ "leader": leader }), &text)
        }
        Command::Drain { node, undo, no_wait, timeout, ask } => {
            let client = Client::new(&ask, sources)?;
            let path = format!("/api/v1/cluster/nodes/{node}/drain");
            if undo {
                client.delete(&path)?;
                let json = serde_json::json!({ "node": node, "state": "up" });
                return done(&ask, &json, &format!("{node} takes rooms and viewers again"));
            }
            client.act(&path, &serde_json::json!({}))?;
            if no_wait {
                let json = serde_json::json!({ "node": node, "state": "draining" });
                return done(&ask, &json, &format!("{node} is draining"));
            }
            drained(&client, &node, timeout, &ask)
        }
        Command::Token { node, ttl, ask } => token(node.as_ref(), ttl, &ask, sources),
        Command::Backup { file, ask } => backup(&file, &ask, sources),
        Command::Restore { file, node } => disaster::restore(&file, &node, sources),
        Command::Recover { sole_survivor: _, node } => disaster::recover(&node, sources),
    }
}

/// Says that it is done, in JSON or in words.
pub(super) fn done(ask: &Ask, json: &impl serde::Serialize, text: &str) -> anyhow::Result<()> {
    match ask.json {
        true => println!("{}", serde_json::to_string(json)?),
        false => println!("{text}"),
    }
    Ok(())
}

/// Waits until the node has no room, and says how it went.
fn drained(client: &Client, node: &NodeId, timeout: Duration, ask: &Ask) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut last = None;
    loop {
        let cluster: view::Cluster = client.get("/api/v1/cluster")?;
        let row = cluster.nodes.into_iter().find(|row| row.id == node.as_str());
        let row = row.with_context(|| format!("{node} has left the cluster"))?;
        ensure!(row.state == "draining", "{node} is {} and drains no more", row.state);
        if row.rooms == 0 {
            let viewers = row.viewers.unwrap_or(0);
            let stay = match viewers {
                0 => String::new(),
                count => format!("; {count} viewers are left, and end with the node"),
            };
            let json = serde_json::json!({
                "node": node, "state": "draining", "rooms": 0, "viewers": viewers
            });
            return done(ask, &json, &format!("{node} is drained: it has no rooms{stay}"));
        }
        if Instant::now() >= deadline {
            bail!(
                "{node} still has {} rooms after {timeout:?}; no other origin can take them? \
                 It goes on draining; --undo ends that",
                row.rooms
            );
        }
        if !ask.json && last != Some(row.rooms) {
            eprintln!("{} rooms to go", row.rooms);
            last = Some(row.rooms);
        }
        Client::pause(LOOK_EVERY)?;
    }
}

fn token(node: Option<&NodeId>, ttl: Duration, ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    let body = NewJoinToken { node: node.map(ToString::to_string), ttl_s };
    let made: CreatedJoinToken =
        Client::new(ask, sources)?.post("/api/v1/cluster/tokens", &body)?;
    let id = node.map_or("ID", NodeId::as_str);
    let at = made.join.as_deref().unwrap_or("HOST:PORT-OF-A-NODE-WITH-cluster.ca_key");
    let text = format!(
        "{}\n\nGood once, for {}. On the new node:\n  \
         tidewater certs node {id} --join {at} --token {}",
        made.token,
        show(ttl),
        made.token
    );
    done(ask, &made, &text)
}

fn backup(file: &std::path::Path, ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    ensure!(!file.exists(), "{} exists; a backup overwrites nothing", file.display());
    let (revision, bytes) = Client::new(ask, sources)?.backup()?;
    disaster::write_new(file, &bytes)?;
    let json = serde_json::json!({
        "file": file, "revision": revision, "bytes": bytes.len()
    });
    let text = format!(
        "{}: the cluster as of revision {revision}, {} bytes\n\
         It holds the hashes of publish keys: keep it as you keep ca.key.",
        file.display(),
        bytes.len()
    );
    done(ask, &json, &text)
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
    let part = |id: &str| {
        if cluster.leader.as_deref() == Some(id) {
            return "leader".to_owned();
        }
        let member = cluster.members.iter().rfind(|member| member.id == id);
        or_dash(member.map(|member| &member.part))
    };
    let rows: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| {
            [
                node.id.clone(),
                node.state.clone(),
                part(&node.id),
                node.roles.join(","),
                node.region.clone(),
                node.rooms.to_string(),
                or_dash(node.viewers),
                or_dash(node.cpu_permille.map(|permille| format!("{}%", permille / 10))),
                node.address.clone(),
            ]
        })
        .collect();
    let head = ["NODE", "STATE", "RAFT", "ROLES", "REGION", "ROOMS", "VIEWERS", "CPU", "ADDRESS"];
    print!("{}", table(head, &rows));
    // Members that have not joined have no row of their own yet.
    for member in &cluster.members {
        if !cluster.nodes.iter().any(|node| node.id == member.id) {
            println!(
                "{} is {} at {}, and has not been heard of",
                member.id, member.part, member.address
            );
        }
    }
    Ok(())
}
