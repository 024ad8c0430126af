//! Rooms without a WebSocket: server-sent events one way, POST the other (WHATWG HTML, 9.2).
//!
//! In: `GET /sse/{app}/{name}`, from a position in `Last-Event-ID` or `?pos=`; `POST` to the same path. A
//! token comes in the Authorization header, in a POST's body, or, because an EventSource can do nothing
//! else, as `?token=`.
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
use tokio::time::{Instant, sleep_until};
use wire::RoomId;
use wire::room::model::{Form, Hello, Position};
use wire::room::{Client, Server};

use super::body::Body;
use super::query::Query;
use super::reply::{self, NO_STORE, Reply};
use super::{App, Caller};
use crate::hub::door::{self, Turned, Visitor, visit};
use crate::hub::{Ended, Hub, Provenance, spread};
use crate::metrics::Refusal;

/// How often something is sent although nothing happens, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// The longest body of a POST: the longest frame of a WebSocket.
const MAX_BODY_BYTES: usize = 4 << 10;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a client that lost the stream comes again, in milliseconds.
const RETRY_MS: u32 = 2_000;
/// The longest an end of a token is waited for: longer than any stream lives.
const MAX_LISTENING_MS: u64 = 366 * 86_400_000;

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
    let hello = Hello {
        token: Query::new(caller.query).get("token").map(str::to_owned),
        ..Hello::default()
    };
    let visitor = match come(app, caller, room, hello).await {
        Ok(visitor) => visitor,
        Err(reply) => return reply,
    };
    let who = (&*visitor.user, visitor.pass);
    let (welcome, cursor) = visitor.hub.welcome("", who, from.as_ref());
    let epoch = welcome.pos.clone().unwrap_or_default();
    let first = Server::Welcome(Box::new(welcome)).write(Form::Json);
    let mut head = format!("retry: {RETRY_MS}\n").into_bytes();
    head.extend_from_slice(&event(&epoch, &first));
    let changes = visitor.hub.changes.subscribe();
    let leaving = visitor.hub.shared.leaving.clone();
    let until = visitor.pass.until_s.map(|until_s| {
        let left_ms = until_s.saturating_mul(1000).saturating_sub(door::unix_ms());
        Instant::now() + Duration::from_millis(left_ms.min(MAX_LISTENING_MS))
    });
    let first = Some(head.into());
    let listener = Listener { visitor, changes, leaving, until, cursor, epoch, first, over: false };
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
        (Ok(None | Some(Client::Hello(_) | Client::Pong(_) | Client::Token(_))), _) => {
            return reply::bad_request("send a chat, a like, a gift, a mod or a who");
        }
        (Ok(Some(said)), Ok(who)) => (said, who),
        (Err(error), _) => return reply::bad_request(&error.0),
        (_, Err(error)) => return reply::bad_request(&error.to_string()),
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
    if door::is_foreign(hub, caller.headers) {
        app.refuse(Refusal::Unauthorized);
        return Err(reply::foreign());
    }
    let from = Provenance { address: caller.peer.ip(), client: door::client_kind(caller.headers) };
    let visited = visit(hub, room, &hello, door::bearer(caller.headers), from).await;
    visited.map_err(|Turned { why, reason }| {
        let (refusal, reply) = match why {
            Ended::Gone => (Refusal::UnknownRoom, reply::not_found(&reason)),
            Ended::Overloaded | Ended::Draining => {
                (Refusal::Unavailable, reply::unavailable(Duration::from_secs(2), &reason))
            }
            Ended::Unauthorised => (Refusal::Unauthorized, reply::unauthorized(&reason)),
            Ended::BadFrame => (Refusal::BadRequest, reply::bad_request(&reason)),
            Ended::TooMany => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                (Refusal::Address, reply::problem(status, NO_STORE, &reason))
            }
            _ => {
                let status = StatusCode::FORBIDDEN;
                (Refusal::Unauthorized, reply::problem(status, NO_STORE, &reason))
            }
        };
        app.refuse(refusal);
        reply
    })
}

struct Listener {
    visitor: Visitor,
    changes: watch::Receiver<u64>,
    leaving: watch::Receiver<bool>,
    /// When its token is over.
    until: Option<Instant>,
    cursor: u64,
    /// The epoch of positions.
    epoch: Position,
    first: Option<Bytes>,
    /// It has been told goodbye.
    over: bool,
}

impl Listener {
    /// The last event: why, and when to come again, which an EventSource does by itself.
    fn bye(&mut self, why: Ended) -> Bytes {
        self.over = true;
        let shared = &self.visitor.hub.shared;
        shared.metrics.ended(why);
        let after_ms = spread(&format!("{:016x}", rand::random::<u64>()));
        let bye = door::bye(shared, why, after_ms).write(Form::Json);
        let head = format!("retry: {after_ms}\ndata: ");
        [head.as_bytes(), &bye, b"\n\n"].concat().into()
    }
}

fn stream(listener: Listener) -> BoxStream<'static, Bytes> {
    unfold(listener, |mut listener| async move {
        let bytes = next(&mut listener).await?;
        Some((bytes, listener))
    })
    .boxed()
}

/// The next event; none after the goodbye of one that is too far behind, or that is sent away.
async fn next(listener: &mut Listener) -> Option<Bytes> {
    if listener.over {
        return None;
    }
    if let Some(first) = listener.first.take() {
        return Some(first);
    }
    let hub: Arc<Hub> = Arc::clone(&listener.visitor.hub);
    loop {
        listener.changes.mark_unchanged();
        let tick = hub.window.read().get(listener.cursor).map(|tick| tick.cloned());
        let Ok(tick) = tick else { return Some(listener.bye(Ended::Slow)) };
        if let Some(tick) = tick {
            listener.cursor += 1;
            if let Some(epoch) = tick.epoch() {
                listener.epoch.e = epoch.to_owned();
            }
            listener.epoch.o = tick.offset();
            let event = event(&listener.epoch, &tick.json());
            if listener.visitor.is_meant(&tick.remove) {
                return Some([event, listener.bye(Ended::Removed)].concat().into());
            }
            return Some(event);
        }
        let Listener { changes, leaving, until, .. } = listener;
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            () = hub.shared.drain.cancelled() => return Some(listener.bye(Ended::Draining)),
            () = hub.shared.departure(leaving) => return Some(listener.bye(Ended::Draining)),
            () = over(*until) => return Some(listener.bye(Ended::Unauthorised)),
            () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b": alive\n\n")),
        }
    }
}

async fn over(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
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
