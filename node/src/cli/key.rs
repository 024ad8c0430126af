//! `tidewater key …`

use clap::Subcommand;
use wire::{RoomId, control::KeyId};

use super::{Ask, client::Client, table::table};
use crate::{
    admin::view::{self, NewKey},
    config::Sources,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a publish key for a room; its secret is shown this once
    Create {
        /// The room, as app/name
        #[arg(value_parser = RoomId::parse)]
        room: RoomId,
        #[command(flatten)]
        ask: Ask,
    },
    /// List publish keys, without their secrets
    List {
        /// Only those of this room
        #[arg(value_parser = RoomId::parse)]
        room: Option<RoomId>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Revoke a publish key
    Revoke {
        /// Its id, as list shows it
        #[arg(value_parser = key_id)]
        id: KeyId,
        #[command(flatten)]
        ask: Ask,
    },
}

pub(super) fn execute(command: Command, sources: Sources) -> anyhow::Result<()> {
    match command {
        Command::Create { room, ask } => create(&room, &ask, sources),
        Command::List { room, ask } => list(room.as_ref(), &ask, sources),
        Command::Revoke { id, ask } => {
            Client::new(&ask, sources)?.delete(&format!("/api/v1/keys/{id}"))?;
            if ask.json {
                println!("{}", serde_json::json!({ "revoked": id.to_string() }));
            } else {
                println!("revoked {id}");
            }
            Ok(())
        }
    }
}

fn create(room: &RoomId, ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    let body = NewKey { room: room.to_string() };
    let key: view::CreatedKey = Client::new(ask, sources)?.post("/api/v1/keys", &body)?;
    if ask.json {
        println!("{}", serde_json::to_string(&key)?);
        return Ok(());
    }
    let (server, stream_key) = key.push_url.rsplit_once('/').unwrap_or((&key.push_url, ""));
    println!("id              {}", key.id);
    println!("key             {}   (shown this once)", key.key);
    println!("push to         {}", key.push_url);
    println!("OBS server      {server}");
    println!("OBS stream key  {stream_key}");
    Ok(())
}

fn list(room: Option<&RoomId>, ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    let client = Client::new(ask, sources)?;
    let filter = room.map_or(String::new(), |room| format!("&room={room}"));
    let mut keys = Vec::new();
    let mut after = None;
    loop {
        let after_key = after.map_or(String::new(), |after| format!("&after={after}"));
        let page: view::Keys = client.get(&format!("/api/v1/keys?{filter}{after_key}"))?;
        keys.extend(page.keys);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if ask.json {
        println!("{}", serde_json::to_string(&keys)?);
        return Ok(());
    }
    let rows: Vec<_> = keys
        .iter()
        .map(|key| [key.id.clone(), key.room.clone(), age(key.created_unix_s)])
        .collect();
    print!("{}", table(["ID", "ROOM", "AGE"], &rows));
    Ok(())
}

fn age(created_unix_s: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    match now.unwrap_or_default().as_secs().saturating_sub(created_unix_s) {
        s if s < 120 => format!("{s}s"),
        s if s < 2 * 3600 => format!("{}m", s / 60),
        s if s < 2 * 86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

fn key_id(text: &str) -> Result<KeyId, String> {
    text.parse().map_err(|_| "a key's id is 16 hexadecimal digits, as key list shows it".to_owned())
}
