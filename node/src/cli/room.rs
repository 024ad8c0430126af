//! `tidewater room …`

use clap::Subcommand;
use wire::{NodeId, RoomId};

use super::{
    Ask,
    client::Client,
    table::{or_dash, table},
};
use crate::{
    admin::view::{self, NewHome, Placed, RoomState},
    config::Sources,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the active rooms
    List {
        #[command(flatten)]
        ask: Ask,
    },
    /// End a room's stream at once
    Kick {
        /// The room, as app/name
        #[arg(value_parser = RoomId::parse)]
        room: RoomId,
        #[command(flatten)]
        ask: Ask,
    },
    /// Move a room to another origin; its viewers go on
    Place {
        /// The room, as app/name
        #[arg(value_parser = RoomId::parse)]
        room: RoomId,
        /// The origin; without it, the best other one
        #[arg(value_parser = NodeId::new)]
        node: Option<NodeId>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show one room
    Show {
        /// The room, as app/name
        #[arg(value_parser = RoomId::parse)]
        room: RoomId,
        #[command(flatten)]
        ask: Ask,
    },
}

pub(super) fn execute(command: Command, sources: Sources) -> anyhow::Result<()> {
    match command {
        Command::List { ask } => list(&ask, sources),
        Command::Kick { room, ask } => {
            let path = format!("/api/v1/rooms/{room}/kick");
            Client::new(&ask, sources)?.act(&path, &serde_json::json!({}))?;
            match ask.json {
                true => println!("{}", serde_json::json!({ "kicked": room })),
                false => println!("{room}: the stream is ended"),
            }
            Ok(())
        }
        Command::Place { room, node, ask } => {
            let body = NewHome { to: node.as_ref().map(ToString::to_string) };
            let path = format!("/api/v1/rooms/{room}/place");
            let placed: Placed = Client::new(&ask, sources)?.post(&path, &body)?;
            match ask.json {
                true => println!("{}", serde_json::to_string(&placed)?),
                false => println!("{room}: its home is {}, epoch {}", placed.home, placed.epoch),
            }
            Ok(())
        }
        Command::Show { room, ask } => show(&room, &ask, sources),
    }
}

fn list(ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    let client = Client::new(ask, sources)?;
    let mut rooms = Vec::new();
    let mut path = "/api/v1/rooms".to_owned();
    loop {
        let page: view::Rooms = client.get(&path)?;
        rooms.extend(page.rooms);
        match page.next {
            Some(after) => path = format!("/api/v1/rooms?after={after}"),
            None => break,
        }
    }
    if ask.json {
        println!("{}", serde_json::to_string(&rooms)?);
        return Ok(());
    }
    let rows: Vec<_> = rooms
        .iter()
        .map(|room| {
            [
                room.room.clone(),
                or_dash(room.state.map(state)),
                room.home.clone(),
                or_dash(room.ingest.as_ref()),
                or_dash(room.viewers),
                room.epoch.to_string(),
            ]
        })
        .collect();
    print!("{}", table(["ROOM", "STATE", "HOME", "INGEST", "VIEWERS", "EPOCH"], &rows));
    Ok(())
}

fn show(room: &RoomId, ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    let room: view::Room = Client::new(ask, sources)?.get(&format!("/api/v1/rooms/{room}"))?;
    if ask.json {
        println!("{}", serde_json::to_string(&room)?);
        return Ok(());
    }
    println!("room     {}", room.room);
    println!("state    {}", or_dash(room.state.map(state)));
    println!("home     {}", room.home);
    println!("ingest   {}", or_dash(room.ingest.as_ref()));
    println!("viewers  {}", or_dash(room.viewers));
    println!("edges    {}", or_dash(room.subscribers));
    println!("epoch    {}", room.epoch);
    for (name, value) in
        [("source", room.source), ("encoder", room.encoder), ("advice", room.advice)]
    {
        if let Some(value) = value {
            println!("{name:<7}  {value}");
        }
    }
    Ok(())
}

fn state(state: RoomState) -> &'static str {
    match state {
        RoomState::Live => "live",
        RoomState::Grace => "grace",
        RoomState::Idle => "idle",
    }
}
