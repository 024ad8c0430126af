//! `/api/v1`: rooms; what an app hands out for one in [`opening`], publish keys in [`keys`], pushes in
//! [`pushes`], tokens in [`tokens`] and [`revocations`]; the cluster in [`cluster`], gifts and events in
//! [`events`], what applications say in rooms in [`messages`], what moderators do there in [`talk`].
//!
//! In: requests that the guard let through. Out: JSON of [`view`], or problem documents. Every answer
//! comes from the control plane under [`CONTROL_TIMEOUT`], with what the home of a room knows added,
//! asked of it over the cluster where it is another node.

mod cluster;
mod events;
mod keys;
mod messages;
mod opening;
mod pushes;
mod revocations;
mod talk;
mod tokens;

use std::{future::Future, net::SocketAddr};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use wire::{
    RoomId,
    control::{Grant, NodeState, Refusal, Roles},
    inquiry::{RoomFacts, RoomState},
};

use super::{CONTROL_TIMEOUT, Shown, openapi, problem::Problem, version, view};
use crate::config::value::host_port;

/// The RTMP port of a node that says no other (RTMP 1.0, section 1).
const RTMP_PORT: u16 = 1935;
/// Items on a page, unless the caller asks for fewer.
const PAGE: u16 = 100;

pub(crate) use self::events::{Page as EventPage, Sums as EventSums};

type Answer<T> = Result<T, Problem>;

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new()
        .route("/api/v1/version", get(version))
        .route("/api/v1/openapi.json", get(openapi))
        .merge(cluster::routes())
        .merge(events::routes())
        .merge(talk::routes())
        .merge(tokens::routes())
        .merge(messages::routes())
        .merge(keys::routes())
        .merge(opening::routes())
        .merge(pushes::routes())
        .merge(revocations::routes())
        .route("/api/v1/rooms", get(rooms))
        .route("/api/v1/rooms/{app}/{name}", get(room))
        .route("/api/v1/rooms/{app}/{name}/place", post(place))
}

/// `?after=…&limit=…&room=…`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
    limit: Option<u16>,
    room: Option<String>,
}

async fn rooms(
    State(shown): State<Shown>,
    query: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Answer<Json<view::Rooms>> {
    let page = page(query)?;
    let after = page.after.as_deref().map(room_id).transpose()?;
    let limit = limit(&page)?;
    let grants = asked(shown.client.rooms(after.as_ref(), limit)).await?;
    let next = next_page(&grants, limit, |grant| grant.room.to_string());
    let facts = shown.inquiries.rooms(&grants).await;
    let rooms = grants.iter().zip(facts).map(|(grant, facts)| room_view(grant, facts)).collect();
    Ok(Json(view::Rooms { rooms, next }))
}

async fn room(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<Json<view::Room>> {
    let room = room_of(&app, &name)?;
    let location = asked(shown.client.locate(&room)).await?;
    match location.placement {
        Some(grant) => {
            let facts = shown.inquiries.rooms(std::slice::from_ref(&grant)).await.pop().flatten();
            Ok(Json(room_view(&grant, facts)))
        }
        None => Err(not_active(&room)),
    }
}

/// Moves the room; viewers go on.
async fn place(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<view::Placed>> {
    let room = room_of(&app, &name)?;
    let new: view::NewHome = json(&headers, &body)?;
    let to = new.to.as_deref().map(cluster::node_id).transpose()?;
    let grant = asked(shown.client.place(&room, to.as_ref())).await?;
    tracing::info!(%room, home = %grant.home, epoch = %grant.epoch, "room placed by the operator");
    let (room, home) = (grant.room.to_string(), grant.home.to_string());
    Ok(Json(view::Placed { room, home, epoch: grant.epoch.0 }))
}

/// Asks the control plane, and turns its refusals into problems.
async fn asked<T>(question: impl Future<Output = Result<T, ::cluster::Error>>) -> Answer<T> {
    match tokio::time::timeout(CONTROL_TIMEOUT, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(refusal(&error)),
        Err(_) => {
            let s = CONTROL_TIMEOUT.as_secs();
            Err(Problem::unavailable(format!("the control plane gave no answer within {s} s")))
        }
    }
}

fn not_active(room: &RoomId) -> Problem {
    Problem::not_found(format!("room {room} is not active: nobody publishes it"))
}

fn refusal(error: &::cluster::Error) -> Problem {
    let status = match error {
        ::cluster::Error::Refused(
            Refusal::UnknownRoom(_) | Refusal::UnknownKey(_) | Refusal::UnknownNode(_),
        ) => StatusCode::NOT_FOUND,
        ::cluster::Error::Refused(Refusal::Invalid(_)) => StatusCode::BAD_REQUEST,
        ::cluster::Error::Refused(Refusal::Conflict(_) | Refusal::Removed(_)) => {
            StatusCode::CONFLICT
        }
        error if error.is_retryable() => return Problem::unavailable(error.to_string()),
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, error.to_string())
}

fn room_view(grant: &Grant, facts: Option<RoomFacts>) -> view::Room {
    let facts = facts.as_ref();
    view::Room {
        room: grant.room.to_string(),
        home: grant.home.to_string(),
        ingest: facts.and_then(|f| f.ingest.as_ref()).map(ToString::to_string),
        epoch: grant.epoch.0,
        state: facts.map(|f| match f.state {
            RoomState::Idle => view::RoomState::Idle,
            RoomState::Live => view::RoomState::Live,
            RoomState::Grace => view::RoomState::Grace,
        }),
        viewers: facts.map(|f| f.viewers),
        subscribers: facts.map(|f| f.subscribers),
        source: facts.and_then(|f| f.source).map(|address| address.to_string()),
        encoder: facts.and_then(|f| f.encoder.clone()),
        since_unix_ms: facts.and_then(|f| f.since_unix_ms),
        advice: facts.and_then(|f| f.advice.clone()),
    }
}

/// `host:port` that a publisher should push to.
async fn push_host(shown: &Shown, headers: &HeaderMap) -> Answer<String> {
    if let Some(advertised) = &shown.config.borrow().rtmp.advertise {
        return Ok(advertised.clone());
    }
    if let Some(rtmp) = shown.rtmp {
        return Ok(reachable(rtmp, headers));
    }
    // A node without RTMP names an origin that is up.
    let status = asked(shown.client.status()).await?;
    let origin = status
        .nodes
        .iter()
        .find(|node| node.info.spec.roles.has(Roles::ORIGIN) && node.info.state == NodeState::Up);
    match origin {
        Some(node) => Ok(SocketAddr::new(node.info.spec.addr.ip(), RTMP_PORT).to_string()),
        None => Err(Problem::unavailable("no origin is up to push to")),
    }
}

/// `listen` as the caller can reach it: a wildcard becomes the host it called us by.
fn reachable(listen: SocketAddr, headers: &HeaderMap) -> String {
    if !listen.ip().is_unspecified() {
        return listen.to_string();
    }
    let called = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = called.map_or("127.0.0.1", |host| {
        host_port(host).map_or(host, |(_, port)| host.trim_end_matches(&format!(":{port}")))
    });
    format!("{host}:{}", listen.port())
}

fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Answer<T> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let what = "send the body as application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    serde_json::from_slice(body).map_err(|e| Problem::bad_request(format!("body: {e}")))
}

/// As [`json`]; no body is one without anything in it.
fn optional_json<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &[u8]) -> Answer<T> {
    if body.is_empty() { Ok(T::default()) } else { json(headers, body) }
}

fn page(query: Result<Query<Page>, axum::extract::rejection::QueryRejection>) -> Answer<Page> {
    query.map(|Query(page)| page).map_err(|e| Problem::bad_request(e.body_text()))
}

fn limit(page: &Page) -> Answer<u16> {
    match page.limit.unwrap_or(PAGE) {
        limit @ 1..=wire::control::MAX_PAGE => Ok(limit),
        _ => {
            let max = wire::control::MAX_PAGE;
            Err(Problem::bad_request(format!("limit must be from 1 to {max}")))
        }
    }
}

/// What comes after a full page; a page that is not full is the last.
fn next_page<T, N>(items: &[T], limit: u16, name: impl Fn(&T) -> N) -> Option<N> {
    items.last().filter(|_| items.len() >= usize::from(limit)).map(name)
}

fn room_of(app: &str, name: &str) -> Answer<RoomId> {
    RoomId::new(app, name).map_err(|e| Problem::bad_request(e.to_string()))
}

fn room_id(text: &str) -> Answer<RoomId> {
    RoomId::parse(text).map_err(|e| Problem::bad_request(format!("room {text:?}: {e}")))
}
