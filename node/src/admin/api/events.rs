//! `/api/v1/events`: what was kept, and what the gifts add up to.
//!
//! In: requests that the guard let through. Out: pages of records in the form of the export, sums. The
//! node that keeps the store answers, whichever node is asked.

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::events::{Cursor, MAX_PAGE, Refusal, Span, Totals};

use super::{Answer, room_id};
use crate::{
    admin::{Shown, problem::Problem},
    when::{now_ms, when},
};

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new().route("/api/v1/events", get(page)).route("/api/v1/events/totals", get(totals))
}

/// `?since=…&until=…&room=…&after=…&limit=…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    since: Option<String>,
    until: Option<String>,
    room: Option<String>,
    after: Option<String>,
    limit: Option<u16>,
}

/// A page of records.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    /// The records, each in the form of a line of the export.
    pub(crate) events: Vec<Value>,
    /// What to ask for `after`, if there may be more.
    pub(crate) next: Option<String>,
}

/// What the gifts of a span add up to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sums {
    /// Rows in the ledger.
    pub(crate) rows: u64,
    /// Gifts in them.
    pub(crate) count: u64,
    /// What was paid for them.
    pub(crate) value: u64,
    /// Rows without a place in their room's order.
    pub(crate) unsequenced: u64,
    /// Rows that repeat another: 0, or the ledger is broken.
    pub(crate) duplicates: u64,
    /// By gift, the most valuable first.
    pub(crate) by_gift: Vec<Sum>,
}

/// What one kind of gift adds up to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sum {
    /// The gift.
    pub(crate) gift: String,
    /// Rows in the ledger.
    pub(crate) rows: u64,
    /// Gifts in them.
    pub(crate) count: u64,
    /// What was paid for them.
    pub(crate) value: u64,
}

async fn page(
    State(shown): State<Shown>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer<Json<Page>> {
    let asked = asked(query)?;
    let limit = asked.limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!("limit must be from 1 to {MAX_PAGE}")));
    }
    let after = asked.after.as_deref().map(cursor).transpose()?;
    let found = shown.events.export(&span(&asked)?, after, limit).await;
    let found = found.map_err(|refusal| problem(&refusal))?;
    let next = found.last().filter(|_| found.len() == usize::from(limit));
    let next = next.map(|record| cursor_text(record.cursor));
    let events = found.iter().map(::events::export::object).collect();
    Ok(Json(Page { events, next }))
}

async fn totals(
    State(shown): State<Shown>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer<Json<Sums>> {
    let found = shown.events.totals(&span(&asked(query)?)?).await;
    let Totals { rows, count, value, unsequenced, duplicates, by_gift } =
        found.map_err(|refusal| problem(&refusal))?;
    let by_gift = by_gift.into_iter().map(|sum| Sum {
        gift: sum.gift.into(),
        rows: sum.rows,
        count: sum.count,
        value: sum.value,
    });
    Ok(Json(Sums { rows, count, value, unsequenced, duplicates, by_gift: by_gift.collect() }))
}

fn asked(query: Result<Query<Asked>, QueryRejection>) -> Answer<Asked> {
    query.map(|Query(asked)| asked).map_err(|error| Problem::bad_request(error.body_text()))
}

fn span(asked: &Asked) -> Answer<Span> {
    let time = |name: &str, text: &Option<String>, default: u64| match text {
        Some(text) => when(text, now_ms())
            .map_err(|why| Problem::bad_request(format!("{name} {text:?}: {why}"))),
        None => Ok(default),
    };
    Ok(Span {
        since_unix_ms: time("since", &asked.since, 0)?,
        until_unix_ms: time("until", &asked.until, i64::MAX as u64)?,
        room: asked.room.as_deref().map(room_id).transpose()?,
    })
}

fn cursor_text(cursor: Cursor) -> String {
    let kind = if cursor.is_event { 'e' } else { 'g' };
    format!("{}{kind}{}", cursor.at_unix_ms, cursor.id)
}

fn cursor(text: &str) -> Answer<Cursor> {
    let read = || {
        let at = text.find(['e', 'g'])?;
        let (time, id) = (text.get(..at)?, text.get(at + 1..)?);
        let is_event = text.as_bytes().get(at) == Some(&b'e');
        Some(Cursor { at_unix_ms: time.parse().ok()?, is_event, id: id.parse().ok()? })
    };
    read().ok_or_else(|| Problem::bad_request("after must be the next of an earlier page"))
}

fn problem(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Invalid(what) => Problem::bad_request(what.as_str()),
        other => Problem::unavailable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_their_text() {
        for is_event in [false, true] {
            let place = Cursor { at_unix_ms: 1_795_350_000_123, is_event, id: 77 };
            assert_eq!(cursor(&cursor_text(place)).ok(), Some(place));
        }
        for foul in ["", "e", "12", "1x2", "e5", "5e", "-1e2", "5ee2", "5e2g"] {
            assert!(cursor(foul).is_err(), "{foul}");
        }
    }
}
