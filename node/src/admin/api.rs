//! `/api/v1`: rooms and keys; the cluster in [`cluster`], gifts and events in [`events`],
//! what applications say in rooms in [`messages`].
//!
//! In: requests that the guard let through. Out: JSON of [`view`], or problem documents. Every answer
//! comes from the control plane under [`CONTROL_TIMEOUT`], with what the home of a room knows added
//! where it is in this process.

mod cluster;
mod events;
mod messages;
mod tokens;

use std::{future::Future, net::SocketAddr};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use wire::{
    RoomId,
    control::{Grant, KeyId, NodeState, Refusal, Roles},
};

use super::{CONTROL_TIMEOUT, Shown, problem::Problem, version, view};
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
        .merge(cluster::routes())
        .merge(events::routes())
        .merge(messages::routes())
        .merge(tokens::routes())
        .route("/api/v1/rooms", get(rooms))
        .route("/api/v1/rooms/{app}/{name}", get(room))
        .route("/api/v1/rooms/{app}/{name}/kick", post(kick))
        .route("/api/v1/keys", get(keys).post(create_key))
        .route("/api/v1/keys/{id}", delete(revoke_key))
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
    let rooms = grants.iter().map(|grant| room_view(&shown, grant)).collect();
    Ok(Json(view::Rooms { rooms, next }))
}

async fn room(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<Json<view::Room>> {
    let room = RoomId::new(&app, &name).map_err(|e| Problem::bad_request(e.to_string()))?;
    let location = asked(shown.client.locate(&room)).await?;
    match location.placement {
        Some(grant) => Ok(Json(room_view(&shown, &grant))),
        None => Err(not_active(&room)),
    }
}

/// Ends the stream at once: viewers see its end, the publisher is told why.
async fn kick(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let room = RoomId::new(&app, &name).map_err(|e| Problem::bad_request(e.to_string()))?;
    if shown.facts.kick(&room).await {
        tracing::info!(%room, "stream ended by the operator");
        return Ok(StatusCode::NO_CONTENT);
    }
    match asked(shown.client.locate(&room)).await?.placement {
        Some(grant) => {
            let what = format!("the home of {room} is {}; ask its admin listener", grant.home);
            Err(Problem::new(StatusCode::CONFLICT, what))
        }
        None => Err(not_active(&room)),
    }
}

async fn keys(
    State(shown): State<Shown>,
    query: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Answer<Json<view::Keys>> {
    let page = page(query)?;
    let after = page.after.as_deref().map(key_id).transpose()?;
    let room = page.room.as_deref().map(room_id).transpose()?;
    let limit = limit(&page)?;
    let keys = asked(shown.client.list_keys(room.as_ref(), after, limit)).await?;
    let next = next_page(&keys, limit, |key| key.id.to_string());
    let keys = keys
        .into_iter()
        .map(|key| view::Key {
            id: key.id.to_string(),
            room: key.room.to_string(),
            created_unix_s: key.created_unix_s,
        })
        .collect();
    Ok(Json(view::Keys { keys, next }))
}

async fn create_key(
    State(shown): State<Shown>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let new: view::NewKey = json(&headers, &body)?;
    let room = room_id(&new.room)?;
    let ::cluster::NewKey { id, key } = asked(shown.client.create_key(&room)).await?;
    tracing::info!(%room, key = %id, "publish key created");
    let push_url = format!("rtmp://{}/{room}?token={key}", push_host(&shown, &headers).await?);
    let created = view::CreatedKey { id: id.to_string(), room: room.to_string(), key, push_url };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

async fn revoke_key(State(shown): State<Shown>, Path(id): Path<String>) -> Answer<StatusCode> {
    let id = key_id(&id)?;
    if !asked(shown.client.revoke_key(id)).await? {
        return Err(Problem::not_found(format!("there is no publish key {id}")));
    }
    tracing::info!(key = %id, "publish key revoked");
    Ok(StatusCode::NO_CONTENT)
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
        ::cluster::Error::Refused(Refusal::Conflict(_)) => StatusCode::CONFLICT,
        error if error.is_retryable() => return Problem::unavailable(error.to_string()),
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, error.to_string())
}

fn room_view(shown: &Shown, grant: &Grant) -> view::Room {
    let report = shown.facts.room(&grant.room).filter(|report| report.epoch == grant.epoch);
    let facts = report.as_ref().map(|report| &report.facts);
    view::Room {
        room: grant.room.to_string(),
        home: grant.home.to_string(),
        ingest: facts.and_then(|f| f.ingest.as_ref()).map(ToString::to_string),
        epoch: grant.epoch.0,
        state: facts.map(|f| match f.state {
            origin::State::Idle => view::RoomState::Idle,
            origin::State::Live => view::RoomState::Live,
            origin::State::Grace => view::RoomState::Grace,
        }),
        viewers: report.as_ref().map(|r| r.viewers),
        subscribers: report.as_ref().map(|r| r.subscribers),
        source: facts.and_then(|f| f.source).map(|address| address.to_string()),
        encoder: facts.and_then(|f| f.encoder.clone()),
        since_unix_ms: facts.and_then(|f| f.since_unix_ms),
        advice: facts.and_then(|f| f.advice).map(str::to_owned),
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
        None => Err(Problem::unavailable("the key was made, but no origin is up to push to")),
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
fn next_page<T>(items: &[T], limit: u16, name: impl Fn(&T) -> String) -> Option<String> {
    items.last().filter(|_| items.len() >= usize::from(limit)).map(name)
}

fn room_id(text: &str) -> Answer<RoomId> {
    RoomId::parse(text).map_err(|e| Problem::bad_request(format!("room {text:?}: {e}")))
}

fn key_id(text: &str) -> Answer<KeyId> {
    let form = "a key's id is 16 hexadecimal digits";
    text.parse().map_err(|_| Problem::bad_request(form))
}
