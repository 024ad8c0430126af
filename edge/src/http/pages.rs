//! Pages, the room list, and the health of this node as load balancers ask for it.

use std::time::Duration;

use http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;

use super::body::Body;
use super::reply::{self, IMMUTABLE, NO_STORE, Reply};
use super::{App, accept};
use crate::assets::{self, File};

/// Rooms in one answer of the room list; who needs more asks the API.
const MAX_LISTED: usize = 1000;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Always asked for again: the page names the assets of its build.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// The outer bound. Each page narrows it to what it needs itself, with hashes for what is inline.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self' 'unsafe-inline'; media-src 'self' blob:; worker-src 'self' blob:; \
     connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
     form-action 'self'",
);

#[derive(Serialize)]
struct RoomList {
    rooms: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    room: String,
    state: &'static str,
    viewers: u64,
    url: String,
}

/// `/`: the room list, for people or as JSON.
pub(crate) fn room_list(app: &App, headers: &HeaderMap) -> Reply {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut reply = if accept.contains("application/json") && !accept.contains("text/html") {
        rooms(app)
    } else {
        page(assets::index())
    };
    reply.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    reply
}

/// `/watch/{app}/{name}`: the page finds the room in its own address.
pub(crate) fn watch() -> Reply {
    page(assets::watch())
}

/// `/assets/{path}`
pub(crate) fn file(path: &str, headers: &HeaderMap) -> Reply {
    let Some(file) = assets::asset(path) else {
        return reply::not_found("there is no such asset in this build");
    };
    let packed = assets::gzipped(path, &file).filter(|_| accept::gzip(headers));
    let is_packed = packed.is_some();
    let content_type = HeaderValue::from_static(file.content_type);
    let body = Body::full(packed.unwrap_or(file.bytes));
    let mut reply = reply::ok(content_type, IMMUTABLE, body);
    let headers = reply.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    reply
}

/// `/healthz`: the process answers.
pub(crate) fn healthz() -> Reply {
    reply::ok(TEXT, NO_STORE, Body::full("ok\n"))
}

/// `/readyz`: whether viewers should be sent here.
pub(crate) fn readyz(app: &App) -> Reply {
    let why = if app.drain.is_cancelled() {
        Some("shutting down".to_owned())
    } else if *app.draining.borrow() {
        Some("draining: ask another edge".to_owned())
    } else {
        app.rooms.unready()
    };
    match why {
        Some(why) => reply::unavailable(Duration::from_secs(1), &why),
        None => reply::ok(TEXT, NO_STORE, Body::full("ready\n")),
    }
}

fn rooms(app: &App) -> Reply {
    let listed = if app.allow_guests { app.rooms.list() } else { Vec::new() };
    let mut rooms: Vec<_> = listed
        .into_iter()
        .take(MAX_LISTED)
        .map(|summary| Entry {
            state: summary.state.as_str(),
            viewers: summary
                .viewers
                .unwrap_or_else(|| app.rooms.peek(&summary.room).map_or(0, |r| r.viewers())),
            url: format!("/watch/{}", summary.room),
            room: summary.room.to_string(),
        })
        .collect();
    rooms.sort_by(|a, b| a.room.cmp(&b.room));
    let text = serde_json::to_string(&RoomList { rooms }).unwrap_or_else(|_| "{}".into());
    reply::ok(JSON, NO_STORE, Body::full(text))
}

fn page(file: File) -> Reply {
    let content_type = HeaderValue::from_static(file.content_type);
    let mut reply = reply::ok(content_type, NO_CACHE, Body::full(file.bytes));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The address of a page may hold a token.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}
