//! `tidewater room …`

use std::time::Duration;

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
    /// Say where to push, watch and talk, with what lets the publisher and a user in
    Open {
        /// The room, as app/name
        #[arg(value_parser = RoomId::parse)]
        room: RoomId,
        /// The user to let in; a guest without
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        /// The name to show
        #[arg(long)]
        name: Option<String>,
        /// Give the room its home now
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// End a room's stream at once and let nobody push to it
    Forbid {
        /// The room, as app/name
        #[arg(value_parser = RoomId::parse)]
        room: RoomId,
        /// For how long, as in 90s, 10m, 24h; for good unless said
        #[arg(long = "for", value_name = "TIME", value_parser = super::token::lifetime)]
        time: Option<Duration>,
        /// Why, as the publisher is told
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Let publishers push to a room again
    Resume {
        /// The room, as app/name
        #[arg(value_parser = RoomId::parse)]
        room: RoomId,
        #[command(flatten)]
        ask: Ask,
    },
    /// List the rooms that nobody may push to
    Forbidden {
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
        Command::Open { room, user, name, now, ask } => {
            let wanted = view::RoomWanted { user, name, open: now, ..view::RoomWanted::default() };
            let path = format!("/api/v1/rooms/{room}");
            let opened = Client::new(&ask, sources)?.put(&path, &wanted)?;
            show_opened(&opened, &ask)
        }
        Command::Forbid { room, time, reason, ask } => {
            let seconds = time.map(|time| time.as_secs());
            let body = view::NewForbidden { seconds, until_unix_s: None, reason };
            let path = format!("/api/v1/rooms/{room}/push/forbid");
            let forbidden: view::Forbidden = Client::new(&ask, sources)?.post(&path, &body)?;
            match ask.json {
                true => println!("{}", serde_json::to_string(&forbidden)?),
                false => println!("{room}: the stream is ended, and nobody may push"),
            }
            Ok(())
        }
        Command::Resume { room, ask } => {
            let path = format!("/api/v1/rooms/{room}/push/resume");
            Client::new(&ask, sources)?.act(&path, &serde_json::json!({}))?;
            match ask.json {
                true => println!("{}", serde_json::json!({ "resumed": room })),
                false => println!("{room}: publishers may push again"),
            }
            Ok(())
        }
        Command::Forbidden { ask } => forbidden(&ask, sources),
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

fn show_opened(opened: &view::RoomOpened, ask: &Ask) -> anyhow::Result<()> {
    if ask.json {
        println!("{}", serde_json::to_string(opened)?);
        return Ok(());
    }
    let line = |name: &str, value: Option<&String>| {
        if let Some(value) = value {
            println!("{name:<14}  {value}");
        }
    };
    line("push to", opened.push_url.as_ref());
    line("push to (tx)", opened.push_url_tx.as_ref());
    line("OBS server", opened.obs.as_ref().map(|obs| &obs.server));
    line("OBS stream key", opened.obs.as_ref().map(|obs| &obs.key));
    line("HLS", opened.play.as_ref().map(|play| &play.hls));
    line("FLV", opened.play.as_ref().map(|play| &play.flv));
    line("FLV, WebSocket", opened.play.as_ref().map(|play| &play.wsflv));
    line("talk at", Some(&opened.ws));
    line("token", opened.token.as_ref());
    opened.advice.iter().for_each(|advice| line("note", Some(advice)));
    Ok(())
}

fn forbidden(ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    let client = Client::new(ask, sources)?;
    let mut all = Vec::new();
    let mut path = "/api/v1/forbidden".to_owned();
    loop {
        let page: view::AllForbidden = client.get(&path)?;
        all.extend(page.forbidden);
        match page.next {
            Some(after) => path = format!("/api/v1/forbidden?after={after}"),
            None => break,
        }
    }
    if ask.json {
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    let now_s = crate::when::now_ms() / 1000;
    let left = |until: u64| format!("{} s", until.saturating_sub(now_s));
    let rows: Vec<_> = all
        .into_iter()
        .map(|one| [one.room, one.until_unix_s.map_or("for good".to_owned(), left), one.reason])
        .collect();
    print!("{}", table(["ROOM", "FOR", "REASON"], &rows));
    Ok(())
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
