//! `/api/v1/rooms/{app}/{name}/messages`: what an application says in a room by itself.
//!
//! In: a chat message or a gift of one of its users, under an id of the application's. Out: what the
//! room's home made of it. The same id again is the same message: a shop that got no answer asks again.
//! The application is trusted: its gifts need no signed order. Any node may be asked: it asks the home.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use wire::{
    RoomId,
    inquiry::{Finding, Inquiry},
    room::{
        Code, User,
        relay::{Saying, Verdict},
    },
};

use super::{
    Answer, json,
    talk::{asked, unexpected},
};
use crate::admin::{Shown, problem::Problem};

/// The header that may carry the message's id (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest id of a message, in bytes: that of a ledger's column.
const MAX_ID_BYTES: usize = 128;

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new().route("/api/v1/rooms/{app}/{name}/messages", post(say))
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(flatten)]
    what: What,
    /// The message's id, if the header does not give it.
    c: Option<String>,
    /// In whose name.
    u: User,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
enum What {
    Chat {
        x: String,
        pts: Option<u64>,
    },
    Gift {
        g: String,
        #[serde(default = "one")]
        n: u32,
        order: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Said {
    t: &'static str,
    c: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    o: Option<u64>,
}

async fn say(
    State(shown): State<Shown>,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let room = RoomId::new(&app, &name).map_err(|e| Problem::bad_request(e.to_string()))?;
    let Message { what, c, u } = json(&headers, &body)?;
    let key = headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()).map(str::to_owned);
    let cid = c.or(key).filter(|id| (1..=MAX_ID_BYTES).contains(&id.len())).ok_or_else(|| {
        let what = "give the message an id of 1 to 128 bytes: \"c\", or the header Idempotency-Key";
        Problem::bad_request(what)
    })?;
    if !(1..=MAX_ID_BYTES).contains(&u.id.len()) {
        return Err(Problem::bad_request("u.id must have 1 to 128 bytes"));
    }
    let what = match what {
        What::Chat { x, pts } => Saying::Chat { text: x, pts },
        What::Gift { g, n, order } => Saying::Gift { gift: g, count: n, order },
    };
    let user = u.encode_to_vec().into();
    let post = Inquiry::Post { room: room.clone(), cid: cid.clone(), user, what };
    let verdict = match asked(&shown, &room, post).await? {
        Finding::Heard { verdict } => verdict,
        other => return Err(unexpected(&other)),
    };
    match verdict {
        Verdict::Placed { id, offset } => {
            Ok(Json(Said { t: "ok", c: cid, id: Some(id), o: Some(offset) }).into_response())
        }
        // Held for a moderator, or shown without a place: taken, and nothing to refer to.
        Verdict::Held | Verdict::Local { .. } | Verdict::Done => {
            let said = Said { t: "held", c: cid, id: None, o: None };
            Ok((StatusCode::ACCEPTED, Json(said)).into_response())
        }
        Verdict::Refused { code, retry_ms } => Err(refused(code, retry_ms)),
    }
}

fn refused(code: Code, retry_ms: Option<u32>) -> Problem {
    let name = serde_json::to_value(code).ok();
    let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or("refused").to_owned();
    match retry_ms {
        Some(ms) => Problem::unavailable(format!("{name}; try again in {ms} ms")),
        None => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, name),
    }
}

fn one() -> u32 {
    1
}
