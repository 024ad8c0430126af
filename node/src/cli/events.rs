//! `tidewater events …`

use clap::{Subcommand, ValueEnum};
use wire::RoomId;

use super::{Ask, client::Client, table::table};
use crate::{
    admin::{EventPage, EventSums},
    config::Sources,
    when::{now_ms, when},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write gifts and events to standard output, oldest first
    Export {
        /// From when on: 2026-11-22T18:00:00Z, 2026-11-22, or 24h (ago)
        #[arg(long, value_name = "WHEN")]
        since: String,
        /// Until when; by default, now
        #[arg(long, value_name = "WHEN")]
        until: Option<String>,
        /// Of this room alone
        #[arg(long, value_name = "APP/NAME", value_parser = RoomId::parse)]
        room: Option<RoomId>,
        /// How: one JSON object a line
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        #[command(flatten)]
        ask: Ask,
    },
    /// Add up the gifts in the ledger
    Totals {
        /// From when on; by default, from the beginning
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// Until when; by default, now
        #[arg(long, value_name = "WHEN")]
        until: Option<String>,
        /// Of this room alone
        #[arg(long, value_name = "APP/NAME", value_parser = RoomId::parse)]
        room: Option<RoomId>,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object a line.
    Jsonl,
}

pub(super) fn execute(command: Command, sources: Sources) -> anyhow::Result<()> {
    match command {
        Command::Export { since, until, room, format: Format::Jsonl, ask } => {
            let query = query(Some(&since), until.as_deref(), room.as_ref())?;
            export(&Client::new(&ask, sources)?, &query)
        }
        Command::Totals { since, until, room, ask } => {
            let query = query(since.as_deref(), until.as_deref(), room.as_ref())?;
            totals(&Client::new(&ask, sources)?, &query, ask.json)
        }
    }
}

/// The times are read here, so that "24h ago" means the same on every page.
fn query(
    since: Option<&str>,
    until: Option<&str>,
    room: Option<&RoomId>,
) -> anyhow::Result<String> {
    let now = now_ms();
    let time = |name: &str, text: &str| {
        when(text, now).map_err(|why| anyhow::anyhow!("--{name} {text}: {why}"))
    };
    let until = until.map_or(Ok(now), |text| time("until", text))?;
    let since = since.map_or(Ok(0), |text| time("since", text))?;
    let room = room.map(|room| format!("&room={room}")).unwrap_or_default();
    Ok(format!("since={since}&until={until}{room}"))
}

/// Page by page, so that memory does not grow with what is exported.
fn export(client: &Client, query: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut after = String::new();
    loop {
        let page: EventPage = client.get(&format!("/api/v1/events?{query}{after}"))?;
        let mut out = std::io::stdout().lock();
        for event in &page.events {
            writeln!(out, "{event}")?;
        }
        out.flush()?;
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(()),
        }
    }
}

fn totals(client: &Client, query: &str, json: bool) -> anyhow::Result<()> {
    let sums: EventSums = client.get(&format!("/api/v1/events/totals?{query}"))?;
    if json {
        println!("{}", serde_json::to_string(&sums)?);
        return Ok(());
    }
    let number = |number: u64| number.to_string();
    let row = |gift: &str, rows: u64, count: u64, value: u64| {
        [gift.to_owned(), number(rows), number(count), number(value)]
    };
    let mut rows: Vec<_> =
        sums.by_gift.iter().map(|sum| row(&sum.gift, sum.rows, sum.count, sum.value)).collect();
    rows.push(row("(all)", sums.rows, sums.count, sums.value));
    print!("{}", table(["GIFT", "ROWS", "COUNT", "VALUE"], &rows));
    println!("without a place in their room's order: {}", sums.unsequenced);
    println!("duplicates: {}", sums.duplicates);
    Ok(())
}
