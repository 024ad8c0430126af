//! `/api/v1/rooms/{app}/{name}/…`: what moderators do in a room, and what goes on there.
//!
//! In: requests that the guard let through, at any node. Out: acts of the room's sequencer, and its
//! figures; the room's home is asked, wherever that is.

use std::net::IpAddr;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use wire::RoomId;
use wire::inquiry::{Finding, Inquiry, TalkFigures};
use wire::room::model::{Mode, User};
use wire::room::relay::{Act, Sanction, Whom};

use super::{Answer, json};
use crate::admin::{Shown, problem::Problem};
use crate::when::now_ms;

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new()
        .route("/api/v1/rooms/{app}/{name}/moderation", post(moderate))
        .route("/api/v1/rooms/{app}/{name}/interaction", get(interaction))
        .route("/api/v1/rooms/{app}/{name}/members", get(members))
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
    edges: u32,
    offset: u64,
    mode: Mode,
    sanctions: u32,
}

/// Who is in a room.
#[derive(Debug, Serialize)]
struct Members {
    /// How many.
    members: u64,
    /// Host and moderators first; of a large room some.
    users: Vec<User>,
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
    let moderate = Inquiry::Moderate { room: room.clone(), by: "api".to_owned(), act };
    match asked(&shown, &room, moderate).await? {
        Finding::Moderated => Ok(StatusCode::NO_CONTENT),
        other => Err(unexpected(&other)),
    }
}

async fn interaction(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<Json<Interaction>> {
    let room = room(&app, &name)?;
    let figures = figures(&shown, &room).await?;
    Ok(Json(Interaction {
        members: figures.members,
        likes: figures.likes,
        likes_per_second: figures.likes_per_s,
        edges: figures.edges,
        offset: figures.head,
        mode: figures.mode,
        sanctions: figures.sanctions,
    }))
}

async fn members(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
) -> Answer<Json<Members>> {
    let TalkFigures { members, users, .. } = figures(&shown, &room(&app, &name)?).await?;
    let users = users.iter().filter_map(|bytes| User::decode(&**bytes).ok()).collect();
    Ok(Json(Members { members, users }))
}

async fn figures(shown: &Shown, room: &RoomId) -> Answer<TalkFigures> {
    match asked(shown, room, Inquiry::Talk { room: room.clone() }).await? {
        Finding::Talk { figures: Some(figures) } => Ok(figures),
        Finding::Talk { figures: None } => {
            Err(Problem::not_found(format!("nobody talks in {room}")))
        }
        other => Err(unexpected(&other)),
    }
}

/// Asks the room's home.
pub(super) async fn asked(shown: &Shown, room: &RoomId, inquiry: Inquiry) -> Answer<Finding> {
    match shown.inquiries.talk(&shown.client, room, inquiry).await {
        Ok(Finding::Unheard { why, later: true }) => Err(Problem::unavailable(why)),
        Ok(Finding::Unheard { why, later: false }) => Err(Problem::bad_request(why)),
        Ok(found) => Ok(found),
        Err(error) => Err(Problem::unavailable(format!("the home of {room}: {error}"))),
    }
}

/// A home that answers something else than it was asked.
pub(super) fn unexpected(found: &Finding) -> Problem {
    tracing::warn!(?found, "the home of a room answered something else than it was asked");
    Problem::unavailable("the room's home gave no answer that can be read")
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
