//! `tidewater token …`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Subcommand, ValueEnum};

use super::{Ask, client::Client};
use crate::{
    admin::view::{CreatedToken, NewToken},
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
    let Command::Create { room, role, user, name, ttl, ask } = command;
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

fn lifetime(text: &str) -> Result<Duration, String> {
    match crate::config::value::duration(text) {
        Ok(ttl) if !ttl.is_zero() => Ok(ttl),
        Ok(_) => Err("a token must be valid for some time".to_owned()),
        Err(why) => Err(why),
    }
}
