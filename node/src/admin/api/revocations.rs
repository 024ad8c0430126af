//! `/api/v1/revocations`: tokens taken back, one by one, by user or by room.
//!
//! In: requests that the guard let through, at any node. Out: bars in the replicated state, of which every
//! node hears by its watch: sessions that such a token let in end, and it lets nobody in again.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use wire::control::{Bar, Barred, MAX_BARRED_BYTES};

use super::{Answer, Page, asked, json, limit, next_page, page, tokens::MAX_LIFETIME};
use crate::admin::{Shown, audit::Subject, problem::Problem, view};
use crate::when::now_ms;

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new().route("/api/v1/revocations", get(list).post(revoke).delete(pardon))
}

/// `?token=…`, `?user=…&room=…` or `?room=…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    token: Option<String>,
    user: Option<String>,
    room: Option<String>,
}

async fn revoke(State(shown): State<Shown>, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    let new: view::Revocation = json(&headers, &body)?;
    let on = barred(new.token, new.user, new.room)?;
    let now_s = now_ms() / 1000;
    let before_unix_s = match (&on, new.before_unix_s) {
        (Barred::Token(_), Some(_)) => {
            return Err(Problem::bad_request("before_unix_s is for users and rooms"));
        }
        (Barred::Token(_), None) => 0,
        // A token of this very second goes too.
        (_, before) => before.unwrap_or(now_s + 1),
    };
    let until_unix_s = new.until_unix_s.unwrap_or(now_s + MAX_LIFETIME.as_secs());
    if until_unix_s <= now_s {
        return Err(Problem::bad_request("until_unix_s: it is over already"));
    }
    if new.reason.len() > MAX_BARRED_BYTES {
        let what = format!("reason: at most {MAX_BARRED_BYTES} bytes");
        return Err(Problem::bad_request(what));
    }
    let bar = Bar { before_unix_s, until_unix_s, set_unix_s: now_s, reason: new.reason };
    asked(shown.client.set_bar(&on, Some(bar.clone()))).await?;
    tracing::info!(?on, "tokens revoked by the operator");
    let subject = Subject(format!("{on:?}"));
    Ok((StatusCode::CREATED, Extension(subject), Json(revocation(&on, &bar))).into_response())
}

async fn pardon(
    State(shown): State<Shown>,
    query: Result<Query<Named>, QueryRejection>,
) -> Answer<StatusCode> {
    let Query(named) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let on = barred(named.token, named.user, named.room)?;
    asked(shown.client.set_bar(&on, None)).await?;
    tracing::info!(?on, "revocation lifted by the operator");
    Ok(StatusCode::NO_CONTENT)
}

async fn list(
    State(shown): State<Shown>,
    query: Result<Query<Page>, QueryRejection>,
) -> Answer<Json<view::Revocations>> {
    let page = page(query)?;
    let limit = limit(&page)?;
    // Bars on pushes come first; no token has an empty name.
    let first = Barred::Token(String::new());
    let after = page.after.as_deref().map(cursor).transpose()?.unwrap_or(first);
    let bars = asked(shown.client.list_bars(Some(&after), limit)).await?;
    let next = next_page(&bars, limit, |(on, _)| cursor_text(on));
    let now_s = now_ms() / 1000;
    let standing = bars.iter().filter(|(_, bar)| bar.until_unix_s >= now_s);
    let revocations = standing.map(|(on, bar)| revocation(on, bar)).collect();
    Ok(Json(view::Revocations { revocations, next }))
}

fn barred(token: Option<String>, user: Option<String>, room: Option<String>) -> Answer<Barred> {
    let on = match (token, user, room) {
        (Some(id), None, None) => Barred::Token(id),
        (None, Some(user), rooms) => {
            Barred::User { user, rooms: rooms.unwrap_or_else(|| "*".to_owned()) }
        }
        (None, None, Some(rooms)) => Barred::Rooms(rooms),
        _ => return Err(Problem::bad_request("name a token, a user (and a room), or a room")),
    };
    on.check().map_err(Problem::bad_request)?;
    Ok(on)
}

fn revocation(on: &Barred, bar: &Bar) -> view::Revocation {
    let (token, user, room) = match on.clone() {
        Barred::Token(id) => (Some(id), None, None),
        Barred::User { user, rooms } => (None, Some(user), Some(rooms)),
        Barred::Rooms(rooms) => (None, None, Some(rooms)),
        Barred::Push(room) => (None, None, Some(room.to_string())),
    };
    view::Revocation {
        token,
        user,
        room,
        before_unix_s: Some(bar.before_unix_s).filter(|before| *before > 0),
        until_unix_s: Some(bar.until_unix_s),
        reason: bar.reason.clone(),
    }
}

/// A place in the list, as text that callers hand back: the parts in hexadecimal.
fn cursor_text(on: &Barred) -> String {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    match on {
        Barred::Push(room) => format!("p{}", hex(room.as_str())),
        Barred::Token(id) => format!("t{}", hex(id)),
        Barred::User { user, rooms } => format!("u{}-{}", hex(user), hex(rooms)),
        Barred::Rooms(rooms) => format!("r{}", hex(rooms)),
    }
}

fn cursor(text: &str) -> Answer<Barred> {
    let hex = |text: &str| {
        let pairs = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()
    };
    let read = || match (text.chars().next()?, text.get(1..)?) {
        ('t', id) => Some(Barred::Token(hex(id)?)),
        ('u', both) => {
            let (user, rooms) = both.split_once('-')?;
            Some(Barred::User { user: hex(user)?, rooms: hex(rooms)? })
        }
        ('r', rooms) => Some(Barred::Rooms(hex(rooms)?)),
        _ => None,
    };
    read().ok_or_else(|| Problem::bad_request("after must be the next of an earlier page"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_their_text() {
        for on in [
            Barred::Token("a-b é".to_owned()),
            Barred::User { user: "u-7".to_owned(), rooms: "live/*".to_owned() },
            Barred::Rooms("live/c".to_owned()),
        ] {
            assert_eq!(cursor(&cursor_text(&on)).ok(), Some(on));
        }
        for foul in ["", "t6", "tzz", "u6161", "x61", "é"] {
            assert!(cursor(foul).is_err(), "{foul}");
        }
    }
}
