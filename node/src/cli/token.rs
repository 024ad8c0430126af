//! `tidewater token …`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    Ask,
    client::Client,
    table::{or_dash, table},
};
use crate::{
    admin::view::{CreatedToken, NewAdminToken, NewToken, Revocation, Revocations},
    config::Sources,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Sign a token with auth.token_secret, for publishing, watching or talking
    Create {
        /// What it is for: app/name, or app/* for all rooms of an app
        room: String,
        /// What its holder is there
        #[arg(long, value_enum, default_value_t = Role::Guest)]
        role: Role,
        /// Who holds it
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        /// The name to show
        #[arg(long)]
        name: Option<String>,
        /// How long it is valid, as in 90s, 10m, 24h
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
        ttl: Duration,
        #[command(flatten)]
        ask: Ask,
    },
    /// Sign a token for a caller of the API, with some scopes
    Admin {
        /// Who holds it, for the audit
        name: String,
        /// What it allows: read, rooms, keys, moderate, cluster; may be repeated
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// How long it is valid, as in 24h, 30d
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = lifetime)]
        ttl: Duration,
        #[command(flatten)]
        ask: Ask,
    },
    /// Take tokens back: sessions they let in end, and they let nobody in again
    Revoke {
        #[command(flatten)]
        which: Which,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Lift a revocation
    Pardon {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        ask: Ask,
    },
    /// List what is revoked
    Revoked {
        #[command(flatten)]
        ask: Ask,
    },
}

/// Which tokens: one by its id, a user's, or all of a room.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Which {
    /// The id of one token, its jti
    #[arg(long, value_name = "ID", conflicts_with_all = ["user", "room"])]
    id: Option<String>,
    /// The tokens of a user
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Those for these rooms: app/name, or app/*
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
}

/// The roles a token may name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Role {
    Guest,
    Member,
    Mod,
    Host,
    Publisher,
}

pub(super) fn execute(command: Command, sources: Sources) -> anyhow::Result<()> {
    match command {
        Command::Create { .. } => create(command, sources),
        Command::Admin { name, scopes, ttl, ask } => {
            let expires_unix_s = (crate::when::now_ms() / 1000).saturating_add(ttl.as_secs());
            let body = NewAdminToken { name, scopes, expires_unix_s };
            let made: CreatedToken =
                Client::new(&ask, sources)?.post("/api/v1/admin-tokens", &body)?;
            match ask.json {
                true => println!("{}", serde_json::to_string(&made)?),
                false => println!("{}", made.token),
            }
            Ok(())
        }
        Command::Revoke { which, reason, ask } => {
            let Which { id, user, room } = which;
            let body = Revocation { token: id, user, room, reason, ..Revocation::default() };
            let made: Revocation =
                Client::new(&ask, sources)?.post("/api/v1/revocations", &body)?;
            match ask.json {
                true => println!("{}", serde_json::to_string(&made)?),
                false => println!("revoked"),
            }
            Ok(())
        }
        Command::Pardon { which, ask } => {
            let Which { id, user, room } = which;
            let named = [("token", id), ("user", user), ("room", room)];
            let named = named.into_iter().filter_map(|(key, value)| Some((key, value?)));
            let query: Vec<_> =
                named.map(|(key, value)| format!("{key}={}", escaped(&value))).collect();
            let path = format!("/api/v1/revocations?{}", query.join("&"));
            Client::new(&ask, sources)?.delete(&path)?;
            match ask.json {
                true => println!("{}", serde_json::json!({ "pardoned": true })),
                false => println!("no longer revoked"),
            }
            Ok(())
        }
        Command::Revoked { ask } => revoked(&ask, sources),
    }
}

fn revoked(ask: &Ask, sources: Sources) -> anyhow::Result<()> {
    let client = Client::new(ask, sources)?;
    let mut all = Vec::new();
    let mut path = "/api/v1/revocations".to_owned();
    loop {
        let page: Revocations = client.get(&path)?;
        all.extend(page.revocations);
        match page.next {
            Some(after) => path = format!("/api/v1/revocations?after={after}"),
            None => break,
        }
    }
    if ask.json {
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    let rows: Vec<_> = all
        .into_iter()
        .map(|one| [or_dash(one.token), or_dash(one.user), or_dash(one.room), one.reason])
        .collect();
    print!("{}", table(["TOKEN", "USER", "ROOM", "REASON"], &rows));
    Ok(())
}

/// Text as part of a query (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

fn create(command: Command, sources: Sources) -> anyhow::Result<()> {
    let Command::Create { room, role, user, name, ttl, ask } = command else { return Ok(()) };
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let role =
        role.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let body =
        NewToken { room, role, user, name, expires_unix_s: now_s.saturating_add(ttl.as_secs()) };
    let made: CreatedToken = Client::new(&ask, sources)?.post("/api/v1/tokens", &body)?;
    if ask.json {
        println!("{}", serde_json::to_string(&made)?);
    } else {
        println!("{}", made.token);
    }
    Ok(())
}

pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    match crate::config::value::duration(text) {
        Ok(ttl) if !ttl.is_zero() => Ok(ttl),
        Ok(_) => Err("it must be some time".to_owned()),
        Err(why) => Err(why),
    }
}
