//! `/api/v1/rooms/{app}/{name}/…`: what moderators do in a room, and what goes on there.
//!
//! In: requests that the guard let through, at the node that is the room's home (or may become it). Out:
//! the sequencer's acts, and its figures.

use std::net::IpAddr;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use origin::sequencer::{Act, Unheard};
use serde::{Deserialize, Serialize};
use wire::RoomId;
use wire::room::model::Mode;
use wire::room::relay::{Sanction, Whom};

use super::{Answer, json};
use crate::admin::{Shown, problem::Problem};
use crate::when::now_ms;

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new()
        .route("/api/v1/rooms/{app}/{name}/moderation", post(moderate))
        .route("/api/v1/rooms/{app}/{name}/interaction", get(interaction))
}

/// What a moderator does.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Moderation {
    Delete { ids: Vec<String> },
    Clear { user: String },
    Mute { user: Option<String>, address: Option<IpAddr>, seconds: Option<u64> },
    Ban { user: Option<String>, address: Option<IpAddr>, seconds: Option<u64> },
    Pardon { user: Option<String>, address: Option<IpAddr> },
    Kick { user: Option<String>, address: Option<IpAddr> },
    Mode(Mode),
    Pin { text: String },
    Set { key: String, value: String },
}

/// What goes on among a room's members.
#[derive(Debug, Serialize)]
struct Interaction {
    members: u64,
    likes: u64,
    likes_per_second: u64,
    edges: usize,
    offset: u64,
    mode: Mode,
    sanctions: usize,
}

async fn moderate(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<StatusCode> {
    let room = room(&app, &name)?;
    let act = act(json(&headers, &body)?)?;
    tracing::info!(%room, ?act, "moderation by the API");
    origin(&shown)?.act(&room, "api", act).await.map_err(unheard)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn interaction(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<Json<Interaction>> {
    let room = room(&app, &name)?;
    let Some(figures) = origin(&shown)?.figures(&room).await else {
        return Err(Problem::not_found(format!("nobody talks in {room} at this node")));
    };
    Ok(Json(Interaction {
        members: figures.members,
        likes: figures.likes,
        likes_per_second: figures.likes_per_s,
        edges: figures.edges,
        offset: figures.head,
        mode: figures.mode,
        sanctions: figures.state.sanctions.len(),
    }))
}

fn act(asked: Moderation) -> Answer<Act> {
    let sanction = |user, address, seconds: Option<u64>, ban| {
        let until_unix_ms = seconds.map(|s| now_ms().saturating_add(s.saturating_mul(1000)));
        Ok::<_, Problem>(Act::Sanction(Sanction { whom: whom(user, address)?, ban, until_unix_ms }))
    };
    Ok(match asked {
        Moderation::Delete { ids } => Act::Delete(ids),
        Moderation::Clear { user } => Act::Clear(user),
        Moderation::Mute { user, address, seconds } => sanction(user, address, seconds, false)?,
        Moderation::Ban { user, address, seconds } => sanction(user, address, seconds, true)?,
        Moderation::Pardon { user, address } => Act::Pardon(whom(user, address)?),
        Moderation::Kick { user, address } => Act::Kick(whom(user, address)?),
        Moderation::Mode(mode) => Act::Mode(mode),
        Moderation::Pin { text } => Act::Set("pin".to_owned(), text),
        Moderation::Set { key, .. } if key == "mode" || key == "pin" => {
            return Err(Problem::bad_request("mode and pin have actions of their own"));
        }
        Moderation::Set { key, value } => Act::Set(key, value),
    })
}

fn whom(user: Option<String>, address: Option<IpAddr>) -> Answer<Whom> {
    match (user, address) {
        (Some(user), None) if !user.is_empty() => Ok(Whom::User(user)),
        (None, Some(address)) => Ok(Whom::Address(address.to_canonical())),
        _ => Err(Problem::bad_request("name a user or an address")),
    }
}

fn room(app: &str, name: &str) -> Answer<RoomId> {
    RoomId::new(app, name).map_err(|e| Problem::bad_request(e.to_string()))
}

/// The origin of this process.
fn origin(shown: &Shown) -> Answer<origin::Rooms> {
    let what = "this node is no origin; ask the admin listener of the room's home";
    shown.facts.origin().ok_or_else(|| Problem::new(StatusCode::CONFLICT, what))
}

fn unheard(error: Unheard) -> Problem {
    match error {
        Unheard::Elsewhere(_) => {
            Problem::new(StatusCode::CONFLICT, format!("{error}; ask its admin listener"))
        }
        Unheard::Refused(what) => Problem::bad_request(what),
        error => Problem::unavailable(error.to_string()),
    }
}
