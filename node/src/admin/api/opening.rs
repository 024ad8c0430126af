//! `PUT /api/v1/rooms/{app}/{name}`: everything an app hands out for a room, in one answer.
//!
//! In: for whom and for how long. Out: where to push, to watch and to talk, with what lets the publisher and
//! the user in. Keeps nothing: asked again, the answer is as good, with tokens of its own. With `open` the
//! room gets its home at once.

use ::cluster::access::{Role, Scope};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    routing::put,
};
use http::HeaderMap;
use wire::{
    RoomId,
    control::{NodeState, Roles},
};

use super::tokens::{self, Holder, signed};
use super::{Answer, asked, optional_json, push_host, pushes, reachable, room_of};
use crate::admin::{Shown, problem::Problem, view};
use crate::assemble::tx_keys;
use crate::config::Config;
use crate::when::now_ms;

/// How long push URLs are good, unless the caller says: a day of streaming.
const PUSH_TTL_S: u64 = 86_400;
/// How long the token and the play URLs are good, unless the caller says.
const TTL_S: u64 = 4 * 3600;

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new().route("/api/v1/rooms/{app}/{name}", put(open))
}

async fn open(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<view::RoomOpened>> {
    let room = room_of(&app, &name)?;
    let wanted: view::RoomWanted = optional_json(&headers, &body)?;
    let config = shown.config.borrow().clone();
    let now_s = now_ms() / 1000;
    let push_until_s = now_s.saturating_add(wanted.push_ttl_s.unwrap_or(PUSH_TTL_S));
    let until_s = now_s.saturating_add(wanted.ttl_s.unwrap_or(TTL_S));
    let mut opened =
        blank(&room, format!("{}/ws", websocket(&viewer_base(&shown, &headers).await?)));
    opened.forbidden = pushes::forbidden(&shown, &room);
    let push = format!("rtmp://{}/{room}", push_host(&shown, &headers).await?);
    add_push(&mut opened, &config, (&room, &push), push_until_s)?;
    let base = viewer_base(&shown, &headers).await?;
    add_play(&mut opened, &config, (&room, &base), (wanted.clone(), until_s))?;
    opened.home = home(&shown, &room, wanted.open).await?;
    Ok(Json(opened))
}

fn blank(room: &RoomId, ws: String) -> view::RoomOpened {
    view::RoomOpened {
        room: room.to_string(),
        home: None,
        push_url: None,
        push_url_tx: None,
        obs: None,
        push_expires_unix_s: None,
        play: None,
        play_tx: None,
        ws,
        token: None,
        token_id: None,
        expires_unix_s: None,
        forbidden: None,
        advice: Vec::new(),
    }
}

/// Where to push: open, with a token, or signed.
fn add_push(
    opened: &mut view::RoomOpened,
    config: &Config,
    (room, url): (&RoomId, &str),
    until_s: u64,
) -> Answer<()> {
    let auth = &config.auth;
    let signs = tx_keys(&auth.tx_push, auth.tx_grace);
    opened.push_url_tx = signs.map(|keys| format!("{url}?{}", keys.sign(room, until_s)));
    opened.push_expires_unix_s = Some(until_s);
    if auth.publish_open {
        opened.push_url = Some(url.to_owned());
        opened.push_expires_unix_s = None;
    } else if auth.token_secret.is_some() {
        let holder = Holder { role: Role::Publisher, user: None, name: None };
        let made = signed(config, Scope::Room(room.clone()), holder, until_s)?;
        opened.push_url = Some(format!("{url}?token={}", made.token));
    } else if opened.push_url_tx.is_some() {
        opened.push_url.clone_from(&opened.push_url_tx);
    } else {
        opened.push_expires_unix_s = None;
        let what = "no push_url: set auth.token_secret on all nodes, or make a key of the room";
        opened.advice.push(format!("{what} (POST /api/v1/keys)"));
    }
    opened.obs = opened.push_url.as_ref().and_then(|url| {
        let app_end = url.find(room.as_str())? + room.app().len();
        let (server, key) = (url.get(..app_end)?, url.get(app_end + 1..)?);
        Some(view::Obs { server: server.to_owned(), key: key.to_owned() })
    });
    Ok(())
}

/// Where to watch and what lets the user talk.
fn add_play(
    opened: &mut view::RoomOpened,
    config: &Config,
    (room, base): (&RoomId, &str),
    (wanted, until_s): (view::RoomWanted, u64),
) -> Answer<()> {
    let auth = &config.auth;
    let signs = tx_keys(&auth.tx_play, auth.tx_grace);
    opened.play_tx = signs.map(|keys| play(base, room, &format!("?{}", keys.sign(room, until_s))));
    let role = match (wanted.role.as_deref().map(tokens::role).transpose()?, &wanted.user) {
        (Some(Role::Publisher), _) => {
            return Err(Problem::bad_request("role: a publisher neither watches nor talks"));
        }
        (Some(role), Some(_)) | (Some(role @ Role::Guest), None) => role,
        (Some(_), None) => return Err(Problem::bad_request("role: give the user too")),
        (None, Some(_)) => Role::Member,
        (None, None) => Role::Guest,
    };
    opened.expires_unix_s = Some(until_s);
    if auth.token_secret.is_some() {
        let holder = Holder { role, user: wanted.user, name: wanted.name };
        let made = signed(config, Scope::Room(room.clone()), holder, until_s)?;
        let query =
            if auth.allow_guests { String::new() } else { format!("?token={}", made.token) };
        opened.play = Some(play(base, room, &query));
        (opened.token, opened.token_id) = (Some(made.token), Some(made.id));
    } else if auth.allow_guests {
        opened.play = Some(play(base, room, ""));
        opened.expires_unix_s = None;
    } else {
        opened.play.clone_from(&opened.play_tx);
    }
    if opened.token.is_none() {
        let what = "no token: set auth.token_secret on all nodes, or let your own issuer sign";
        opened.advice.push(format!("{what} (auth.jwks)"));
    }
    if opened.play.is_none() {
        opened.expires_unix_s = None;
    }
    Ok(())
}

fn play(base: &str, room: &RoomId, query: &str) -> view::Play {
    view::Play {
        hls: format!("{base}/{room}.m3u8{query}"),
        flv: format!("{base}/{room}.flv{query}"),
        wsflv: format!("{}/{room}.flv{query}", websocket(base)),
    }
}

/// The same base for WebSocket.
fn websocket(base: &str) -> String {
    base.strip_prefix("http").map_or_else(|| base.to_owned(), |rest| format!("ws{rest}"))
}

/// The home of the room; given one now if it shall have one.
async fn home(shown: &Shown, room: &RoomId, open: bool) -> Answer<Option<String>> {
    let grant = if open {
        Some(asked(shown.client.claim(room, shown.client.node())).await?)
    } else {
        asked(shown.client.locate(room)).await?.placement
    };
    Ok(grant.map(|grant| grant.home.to_string()))
}

/// Where viewers are sent, without a slash at its end.
async fn viewer_base(shown: &Shown, headers: &HeaderMap) -> Answer<String> {
    let config = shown.config.borrow().clone();
    if let Some(url) = config.public_http.as_ref().or(config.http.advertise.as_ref()) {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    if let Some(http) = shown.http {
        let scheme = if config.http.tls.is_some() { "https" } else { "http" };
        return Ok(format!("{scheme}://{}", reachable(http, headers)));
    }
    let status = asked(shown.client.status()).await?;
    let up = status
        .nodes
        .iter()
        .filter(|node| node.info.spec.roles.has(Roles::EDGE) && node.info.state == NodeState::Up);
    let named = up.filter_map(|node| node.info.spec.viewer_urls.first()).next();
    named.map(|url| url.trim_end_matches('/').to_owned()).ok_or_else(|| {
        Problem::unavailable(
            "no edge says where viewers reach it: set public.http or http.advertise",
        )
    })
}
