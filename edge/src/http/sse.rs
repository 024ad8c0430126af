//! Rooms without a WebSocket: server-sent events one way, POST the other (WHATWG HTML, 9.2).
//!
//! In: `GET /sse/{app}/{name}`, from a position in `Last-Event-ID` or `?pos=`; `POST` to the same path.
//! Out: the frames of `tidewater.v1.json` as events whose id is the position, or one frame as the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::sync::watch;
use wire::RoomId;
use wire::room::model::{Form, Hello, Position};
use wire::room::{Client, Server};

use super::body::Body;
use super::query::Query;
use super::reply::{self, NO_STORE, Reply};
use super::{App, Caller};
use crate::hub::door::{Visitor, visit};
use crate::hub::{Hub, NotCarried};
use crate::metrics::Refusal;

/// How often something is sent although nothing happens, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// The longest body of a POST: the longest frame of a WebSocket.
const MAX_BODY_BYTES: usize = 4 << 10;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a client that lost the stream comes again, in milliseconds.
const RETRY_MS: u32 = 2_000;

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers a request for a room's events.
pub(crate) async fn listen(app: &App, caller: &Caller<'_>, room: &RoomId) -> Reply {
    let from = caller.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let from = from.or_else(|| Query::new(caller.query).get("pos"));
    let from = match from.map(position) {
        Some(None) => return reply::bad_request("a position is written epoch-offset"),
        Some(Some(from)) => Some(from),
        None => None,
    };
    let visitor = match come(app, caller, room, Hello::default()).await {
        Ok(visitor) => visitor,
        Err(reply) => return reply,
    };
    let (welcome, cursor) = visitor.hub.welcome("", &visitor.user, from.as_ref());
    let epoch = welcome.pos.clone().unwrap_or_default();
    let first = Server::Welcome(Box::new(welcome)).write(Form::Json);
    let mut head = format!("retry: {RETRY_MS}\n").into_bytes();
    head.extend_from_slice(&event(&epoch, &first));
    let changes = visitor.hub.changes.subscribe();
    let listener = Listener { visitor, changes, cursor, epoch, first: Some(head.into()) };
    let mut reply = reply::ok(EVENTS, NO_STORE, Body::endless(stream(listener)));
    reply.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

/// Answers something said.
pub(crate) async fn say(app: &App, caller: &Caller<'_>, room: &RoomId, body: Incoming) -> Reply {
    let body =
        tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let Ok(Ok(body)) = body else {
        app.refuse(Refusal::BadRequest);
        return reply::bad_request("send one frame of at most 4 KiB");
    };
    let body = body.to_bytes();
    let (said, who) = match (Client::read(&body, Form::Json), serde_json::from_slice::<Who>(&body))
    {
        (Ok(Some(said @ (Client::Chat(_) | Client::Gift(_) | Client::Like(_)))), Ok(who)) => {
            (said, who)
        }
        (Err(error), _) => return reply::bad_request(&error.0),
        (_, Err(error)) => return reply::bad_request(&error.to_string()),
        _ => return reply::bad_request("send a chat, a like or a gift"),
    };
    let hello = Hello { guest: who.guest, n: who.name, token: who.token, ..Hello::default() };
    let visitor = match come(app, caller, room, hello).await {
        Ok(visitor) => visitor,
        Err(reply) => return reply,
    };
    let answer = visitor.say(said).await;
    let status = match &answer {
        Some(Server::Err(error)) => match error.code.as_str() {
            "rate_limited" | "slow_mode" | "duplicate" => StatusCode::TOO_MANY_REQUESTS,
            "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "bad_request" | "too_long" | "unknown_gift" | "bad_order" => StatusCode::BAD_REQUEST,
            _ => StatusCode::FORBIDDEN,
        },
        Some(_) => StatusCode::OK,
        None => StatusCode::NO_CONTENT,
    };
    let body = answer.map_or_else(Body::empty, |answer| Body::full(answer.write(Form::Json)));
    let mut reply = reply::reply(status, JSON, body);
    reply.headers_mut().insert(http::header::CACHE_CONTROL, NO_STORE);
    reply
}

/// Who says something by POST.
#[derive(Deserialize)]
struct Who {
    #[serde(default)]
    guest: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    token: Option<String>,
}

async fn come(
    app: &App,
    caller: &Caller<'_>,
    room: &RoomId,
    hello: Hello,
) -> Result<Visitor, Reply> {
    let Some(hub) = &app.hub else {
        app.refuse(Refusal::Unavailable);
        return Err(reply::unavailable(Duration::from_secs(60), "this node carries no rooms"));
    };
    if !hub.allow_guests {
        app.refuse(Refusal::Unauthorized);
        return Err(reply::unauthorized("a token is needed"));
    }
    match visit(hub, room, &hello, caller.peer.ip()).await {
        Ok(visitor) => Ok(visitor),
        Err(Ok(NotCarried::NoRoom)) => {
            app.refuse(Refusal::UnknownRoom);
            Err(reply::not_found("the room is not open"))
        }
        Err(Ok(NotCarried::Unavailable)) => {
            app.refuse(Refusal::Unavailable);
            Err(reply::unavailable(Duration::from_secs(2), "the room cannot be had now"))
        }
        Err(Err(why)) => {
            app.refuse(Refusal::Unauthorized);
            Err(reply::problem(StatusCode::FORBIDDEN, NO_STORE, &why))
        }
    }
}

struct Listener {
    visitor: Visitor,
    changes: watch::Receiver<u64>,
    cursor: u64,
    /// The epoch of positions.
    epoch: Position,
    first: Option<Bytes>,
}

fn stream(listener: Listener) -> BoxStream<'static, Bytes> {
    unfold(listener, |mut listener| async move {
        let bytes = next(&mut listener).await?;
        Some((bytes, listener))
    })
    .boxed()
}

/// The next event; none once the listener is too far behind, or the node shuts down: it comes again.
async fn next(listener: &mut Listener) -> Option<Bytes> {
    if let Some(first) = listener.first.take() {
        return Some(first);
    }
    let hub: Arc<Hub> = Arc::clone(&listener.visitor.hub);
    loop {
        listener.changes.mark_unchanged();
        let tick = hub.window.read().get(listener.cursor).ok()?.cloned();
        if let Some(tick) = tick {
            listener.cursor += 1;
            if let Some(epoch) = tick.epoch() {
                listener.epoch.e = epoch.to_owned();
            }
            listener.epoch.o = tick.offset();
            return Some(event(&listener.epoch, &tick.json()));
        }
        tokio::select! {
            changed = listener.changes.changed() => changed.ok()?,
            () = hub.shared.drain.cancelled() => return None,
            () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b": alive\n\n")),
        }
    }
}

fn event(position: &Position, json: &[u8]) -> Bytes {
    let id = format!("id: {}-{}\ndata: ", position.e, position.o);
    [id.as_bytes(), json, b"\n\n"].concat().into()
}

fn position(text: &str) -> Option<Position> {
    let (e, o) = text.rsplit_once('-')?;
    let position = Position { e: e.to_owned(), o: o.parse().ok()? };
    position.epoch().map(|_| position)
}
