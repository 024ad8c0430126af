//! Requests of members: the upgrade that takes a socket into a room.
//!
//! In: `GET /ws`. Out: on HTTP/1.x the socket leaves hyper for [`crate::hub::door`], which says the rest.

use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use http::{HeaderValue, Method, StatusCode};

use super::reply::{self, NO_STORE, Reply};
use super::{App, Caller};
use crate::hub::door;
use crate::metrics::Refusal;
use crate::ws;

/// Answers `/ws`. Does not return when it succeeds.
pub(crate) async fn answer(app: &App, caller: &Caller<'_>) -> Reply {
    let Some(hub) = &app.hub else {
        app.refuse(Refusal::Unavailable);
        return reply::unavailable(Duration::from_secs(60), "this node carries no rooms");
    };
    if !ws::wants_upgrade(caller.headers) || caller.method != Method::GET {
        app.refuse(Refusal::BadRequest);
        let detail = "this is a WebSocket: ask for an upgrade, with HTTP/1.1";
        let mut reply = reply::problem(StatusCode::UPGRADE_REQUIRED, NO_STORE, detail);
        reply.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return reply;
    }
    if door::is_foreign(hub, caller.headers) {
        app.refuse(Refusal::Unauthorized);
        return reply::foreign();
    }
    let accepted = match door::upgrade(caller.headers) {
        Ok(accepted) if caller.conn.can_hand_over() && !caller.has_body => accepted,
        Ok(_) => {
            app.refuse(Refusal::BadRequest);
            return reply::bad_request("a WebSocket opens with HTTP/1.1 and without a body");
        }
        Err(bad) => {
            app.refuse(Refusal::BadRequest);
            return reply::bad_request(&bad.to_string());
        }
    };
    let (hub, peer) = (Arc::clone(hub), caller.peer);
    caller
        .conn
        .hand_over(Box::new(move |socket| Box::pin(door::serve(hub, socket, peer, accepted))));
    std::future::pending().await
}
