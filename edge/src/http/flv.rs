//! HTTP-FLV and WS-FLV requests: checks them, waits for the tracks, and sends each viewer its way.
//!
//! In: `GET /{app}/{name}.flv`, with or without an upgrade to WebSocket. Out: on HTTP/1.x the socket
//! leaves hyper with its response head still to be written; on HTTP/2 a streamed body.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cluster::access::Pass;
use http::{HeaderValue, Method};
use tokio::time::Instant;
use wire::RoomId;

use super::body::Body;
use super::connection::{Socket, Transport};
use super::hls::{FIRST_HOLD, open};
use super::query::Query;
use super::reply::{self, NO_STORE, Reply};
use super::{App, Caller};
use crate::flv::writer::{self, Viewer};
use crate::flv::{Cursor, Framing, Outlet, Seat, body, session};
use crate::metrics::{Close, Protocol, Refusal};
use crate::room::Missed;
use crate::ws;

/// Pause before a room is tried again that has just changed.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

const FLV: HeaderValue = HeaderValue::from_static("video/x-flv");

/// Answers a request for a room's FLV by someone with `pass`, if one is needed. On HTTP/1.x this does not
/// return when it succeeds.
pub(crate) async fn answer(
    app: &App,
    caller: &Caller<'_>,
    room: &RoomId,
    pass: Option<Pass>,
) -> Reply {
    let upgrade = if ws::wants_upgrade(caller.headers) {
        match ws::accept(caller.headers) {
            Ok(accept) => Some(accept),
            Err(bad) => {
                app.refuse(Refusal::BadRequest);
                return reply::bad_request(&bad.to_string());
            }
        }
    } else {
        None
    };
    if caller.has_body {
        app.refuse(Refusal::BadRequest);
        return reply::bad_request("a request for a stream has no body");
    }
    if caller.method == Method::HEAD {
        let mut reply = reply::ok(FLV, NO_STORE, Body::empty());
        reply.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        return reply;
    }
    let protocol = if upgrade.is_some() { Protocol::WsFlv } else { Protocol::Flv };
    let seat = match take_seat(app, room, protocol).await {
        Ok(seat) => seat.with_pass(pass),
        Err(reply) => return reply,
    };
    let gop = Query::new(caller.query).get("gop") != Some("0");
    let framing = if upgrade.is_some() { Framing::WebSocket } else { Framing::Plain };
    if caller.conn.can_hand_over() {
        let head = match upgrade {
            Some(accept) => upgrade_head(&accept),
            None => response_head(),
        };
        caller
            .conn
            .hand_over(Box::new(move |socket| Box::pin(serve(socket, seat, framing, gop, head))));
        return std::future::pending().await;
    }
    let cursor = Cursor::join(&seat.hub.ring(), gop, Instant::now());
    let outlet = Outlet::new(framing, cursor, Bytes::new());
    let sent = app.metrics.sent_bytes(protocol).clone();
    let body = Body::endless(body::stream(seat, outlet, caller.conn)).counted(&sent);
    let mut reply = reply::ok(FLV, NO_STORE, body);
    reply.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

/// Opens the room and waits until its tracks are known: the head of the stream promises them.
async fn take_seat(app: &App, room: &RoomId, protocol: Protocol) -> Result<Seat, Reply> {
    let deadline = Instant::now() + FIRST_HOLD;
    let starting = || {
        app.refuse(Refusal::Unavailable);
        reply::unavailable(Duration::from_secs(1), "the stream is starting; ask again")
    };
    while Instant::now() < deadline {
        let viewing = open(app, room).await?;
        let seat = app.stage.enter(viewing.clone(), protocol);
        match viewing.hold(deadline, seat.hub.known()).await {
            Ok(()) => match seat.hub.ring().ended() {
                None => return Ok(seat),
                Some(Close::Ended) => return Err(reply::not_found("the stream is over")),
                Some(Close::Shutdown) => {
                    app.refuse(Refusal::Unavailable);
                    let detail = "this node is shutting down; ask another";
                    return Err(reply::unavailable(Duration::from_secs(1), detail));
                }
                Some(Close::Failed) => {
                    let detail = "the stream cannot be written as FLV";
                    let status = http::StatusCode::INTERNAL_SERVER_ERROR;
                    return Err(reply::problem(status, NO_STORE, detail));
                }
                Some(_) => tokio::time::sleep(AGAIN_AFTER).await, // there is a new one
            },
            Err(Missed::Retired) => tokio::time::sleep(AGAIN_AFTER).await,
            Err(Missed::TimedOut) => return Err(starting()),
        }
    }
    Err(starting())
}

/// Serves a socket that has left hyper.
async fn serve(socket: Socket, seat: Seat, framing: Framing, gop: bool, head: Bytes) {
    let cursor = Cursor::join(&seat.hub.ring(), gop, Instant::now());
    let mut outlet = Outlet::new(framing, cursor, head);
    match socket.stream {
        Transport::Tcp(stream) => {
            if outlet.received(&socket.ahead).is_none()
                && let Ok(viewer) = Viewer::new(stream, socket.lease, seat, outlet)
            {
                writer::join(viewer).await;
            }
        }
        Transport::Tls(stream) => {
            let _lease = socket.lease;
            session::serve(stream, socket.ahead, seat, outlet).await;
        }
    }
}

/// The head of an HTTP-FLV response that ends with its connection (RFC 9112, 6.3).
fn response_head() -> Bytes {
    let date = httpdate::fmt_http_date(SystemTime::now());
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: video/x-flv\r\ncache-control: no-store\r\n\
         x-accel-buffering: no\r\naccess-control-allow-origin: *\r\nconnection: close\r\n\
         date: {date}\r\n\r\n"
    )
    .into()
}

/// The head that opens a WebSocket (RFC 6455, 4.2.2).
fn upgrade_head(accept: &str) -> Bytes {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    )
    .into()
}
