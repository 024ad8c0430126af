//! `tidewater key …`

use std::time::Duration;

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
        /// For one push only
        #[arg(long)]
        once: bool,
        /// How long it opens, as in 90s, 10m, 24h; for good unless said
        #[arg(long, value_name = "TIME", value_parser = super::token::lifetime)]
        ttl: Option<Duration>,
        /// A network it may be used from, as 203.0.113.0/24; may be repeated
        #[arg(long, value_name = "NETWORK")]
        allow: Vec<String>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Make a key in place of another, on the same terms
    Rotate {
        /// The id of the other, as list shows it
        #[arg(value_parser = key_id)]
        id: KeyId,
        /// How long the other one opens yet, as in 10m; not at all unless said
        #[arg(long, value_name = "TIME", value_parser = super::token::lifetime)]
        overlap: Option<Duration>,
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
        Command::Create { room, once, ttl, allow, ask } => {
            let now_s = crate::when::now_ms() / 1000;
            let until_unix_s = ttl.map(|ttl| now_s.saturating_add(ttl.as_secs()));
            let terms = view::KeyTerms { from_unix_s: None, until_unix_s, once, allow };
            let body = NewKey { room: room.to_string(), terms };
            let key = Client::new(&ask, sources)?.post("/api/v1/keys", &body)?;
            show(&key, &ask)
        }
        Command::Rotate { id, overlap, ask } => {
            let overlap_s = overlap.map_or(0, |overlap| overlap.as_secs());
            let overlap_s = u32::try_from(overlap_s).unwrap_or(u32::MAX);
            let path = format!("/api/v1/keys/{id}/rotate");
            let key = Client::new(&ask, sources)?.post(&path, &view::Rotation { overlap_s })?;
            show(&key, &ask)
        }
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

fn show(key: &view::CreatedKey, ask: &Ask) -> anyhow::Result<()> {
    if ask.json {
        println!("{}", serde_json::to_string(key)?);
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
        .map(|key| {
            let (id, room) = (key.id.clone(), key.room.clone());
            [id, room, age(key.created_unix_s), opens(key)]
        })
        .collect();
    print!("{}", table(["ID", "ROOM", "AGE", "OPENS"], &rows));
    Ok(())
}

/// When and from where a key opens, in a few words.
fn opens(key: &view::Key) -> String {
    let now_s = crate::when::now_ms() / 1000;
    let terms = &key.terms;
    let mut words = Vec::new();
    match (terms.from_unix_s, terms.until_unix_s) {
        (Some(from), _) if now_s < from => words.push(format!("in {} s", from - now_s)),
        (_, Some(until)) if now_s >= until => words.push("no longer".to_owned()),
        (_, Some(until)) => words.push(format!("for {} s", until - now_s)),
        _ => {}
    }
    match (terms.once, key.used) {
        (_, true) => words.push("used".to_owned()),
        (true, false) => words.push("once".to_owned()),
        _ => {}
    }
    if !terms.allow.is_empty() {
        words.push(format!("from {}", terms.allow.join(" ")));
    }
    if words.is_empty() { "always".to_owned() } else { words.join(", ") }
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
