//! `/api/v1/rooms/{app}/{name}/push` and `/api/v1/forbidden`: pushes ended, forbidden, allowed again.
//!
//! In: requests that the guard let through, at any node. Out: a bar in the replicated state, of which every
//! node hears by its watch, and the end of the push at the room's home, wherever that is.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use wire::{
    RoomId,
    control::{Bar, Barred, FOR_GOOD, MAX_BARRED_BYTES},
};

use super::{
    Answer, Page, asked, limit, next_page, not_active, optional_json, page, room_id, room_of,
};
use crate::admin::{Shown, problem::Problem, view};
use crate::when::now_ms;

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new()
        .route("/api/v1/forbidden", get(all_forbidden))
        .route("/api/v1/rooms/{app}/{name}/push", get(push))
        .route("/api/v1/rooms/{app}/{name}/push/stop", post(stop))
        .route("/api/v1/rooms/{app}/{name}/push/forbid", post(forbid))
        .route("/api/v1/rooms/{app}/{name}/push/resume", post(resume))
        .route("/api/v1/rooms/{app}/{name}/kick", post(stop))
}

async fn push(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<Json<view::Push>> {
    let room = room_of(&app, &name)?;
    let forbidden = forbidden(&shown, &room);
    Ok(Json(view::Push { room: room.to_string(), forbidden }))
}

/// Ends the stream at once: viewers see its end, the publisher is told why. It may push again.
async fn stop(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let room = room_of(&app, &name)?;
    if end(&shown, &room, "ended by the operator").await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_active(&room))
    }
}

/// Forbids pushes for a time and ends the one there is.
async fn forbid(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<view::Forbidden>> {
    let room = room_of(&app, &name)?;
    let new: view::NewForbidden = optional_json(&headers, &body)?;
    let now_s = now_ms() / 1000;
    let until_unix_s = match (new.seconds, new.until_unix_s) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("give seconds or until_unix_s, not both"));
        }
        (Some(0), None) => return Err(Problem::bad_request("seconds: at least 1")),
        (Some(seconds), None) => now_s.saturating_add(seconds),
        (None, Some(until)) if until <= now_s => {
            return Err(Problem::bad_request("until_unix_s: it is over already"));
        }
        (None, Some(until)) => until,
        (None, None) => FOR_GOOD,
    };
    if new.reason.len() > MAX_BARRED_BYTES || new.reason.chars().any(char::is_control) {
        let what = format!("reason: at most {MAX_BARRED_BYTES} bytes, without control characters");
        return Err(Problem::bad_request(what));
    }
    let bar = Bar { before_unix_s: 0, until_unix_s, set_unix_s: now_s, reason: new.reason };
    let on = Barred::Push(room.clone());
    asked(shown.client.set_bar(&on, Some(bar.clone()))).await?;
    tracing::info!(%room, until_unix_s, "pushes forbidden by the operator");
    let why = match bar.reason.as_str() {
        "" => format!("publishing to {room} is forbidden"),
        reason => format!("publishing to {room} is forbidden: {reason}"),
    };
    // The ingest ends it too when it hears of the bar; told here, the stream's end is at once.
    end(&shown, &room, &why).await?;
    Ok(Json(forbidden_view(&room, &bar)))
}

async fn resume(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let room = room_of(&app, &name)?;
    asked(shown.client.set_bar(&Barred::Push(room.clone()), None)).await?;
    tracing::info!(%room, "pushes allowed again by the operator");
    Ok(StatusCode::NO_CONTENT)
}

async fn all_forbidden(
    State(shown): State<Shown>,
    query: Result<Query<Page>, QueryRejection>,
) -> Answer<Json<view::AllForbidden>> {
    let page = page(query)?;
    let limit = limit(&page)?;
    let after = page.after.as_deref().map(room_id).transpose()?.map(Barred::Push);
    let bars = asked(shown.client.list_bars(after.as_ref(), limit)).await?;
    let now_s = now_ms() / 1000;
    let pushes = |on: &Barred| match on {
        Barred::Push(room) => Some(room.clone()),
        _ => None,
    };
    // Bars on pushes come before all others: a page that holds another is the last.
    let next = next_page(&bars, limit, |(on, _)| pushes(on)).flatten();
    let standing = bars.iter().filter(|(_, bar)| bar.until_unix_s >= now_s);
    let forbidden = standing.filter_map(|(on, bar)| Some(forbidden_view(&pushes(on)?, bar)));
    let next = next.map(|room| room.to_string());
    Ok(Json(view::AllForbidden { forbidden: forbidden.collect(), next }))
}

/// The bar on pushes to a room, as this node has heard.
pub(super) fn forbidden(shown: &Shown, room: &RoomId) -> Option<view::Forbidden> {
    let bar = shown.client.bars().push(room, now_ms() / 1000)?;
    Some(forbidden_view(room, &bar))
}

fn forbidden_view(room: &RoomId, bar: &Bar) -> view::Forbidden {
    view::Forbidden {
        room: room.to_string(),
        until_unix_s: Some(bar.until_unix_s).filter(|until| *until != FOR_GOOD),
        since_unix_s: bar.set_unix_s,
        reason: bar.reason.clone(),
    }
}

/// Ends the stream of a room, wherever its home is. Whether it was active.
async fn end(shown: &Shown, room: &RoomId, why: &str) -> Answer<bool> {
    if shown.inquiries.stop_here(room, why).await {
        tracing::info!(%room, "stream ended by the operator");
        return Ok(true);
    }
    let Some(grant) = asked(shown.client.locate(room)).await?.placement else {
        return Ok(false);
    };
    match shown.inquiries.stop(&grant, why).await {
        Ok(true) => Ok(true),
        Ok(false) => {
            let what = format!("room {room} is moving away from {}; try again", grant.home);
            Err(Problem::unavailable(what))
        }
        Err(error) => Err(Problem::unavailable(format!("the home of {room}, {error}"))),
    }
}
