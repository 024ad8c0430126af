//! `/api/v1/keys`: publish keys, made, listed, replaced and revoked.
//!
//! In: requests that the guard let through. Out: what the control plane keeps, which is hashes; a secret is
//! in the answer that makes it and nowhere else.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::{HeaderMap, StatusCode};
use wire::{
    RoomId,
    control::{KeyId, KeyInFull, KeyTerms, Network},
};

use super::{Answer, Page, asked, json, limit, next_page, optional_json, page, push_host, room_id};
use crate::admin::{Shown, audit::Subject, problem::Problem, view};

/// Longest time that a key goes on opening after another took its place.
const MAX_OVERLAP_S: u32 = 30 * 86_400;

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new()
        .route("/api/v1/keys", get(keys).post(create))
        .route("/api/v1/keys/{id}", delete(revoke))
        .route("/api/v1/keys/{id}/rotate", post(rotate))
}

async fn keys(
    State(shown): State<Shown>,
    query: Result<Query<Page>, QueryRejection>,
) -> Answer<Json<view::Keys>> {
    let page = page(query)?;
    let after = page.after.as_deref().map(key_id).transpose()?;
    let room = page.room.as_deref().map(room_id).transpose()?;
    let limit = limit(&page)?;
    let keys = asked(shown.client.keys_in_full(room.as_ref(), after, limit)).await?;
    let next = next_page(&keys, limit, |key| key.info.id.to_string());
    Ok(Json(view::Keys { keys: keys.into_iter().map(key_view).collect(), next }))
}

async fn create(State(shown): State<Shown>, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    let new: view::NewKey = json(&headers, &body)?;
    let room = room_id(&new.room)?;
    let key = asked(shown.client.store_key(&room, terms(&new.terms)?, None)).await?;
    tracing::info!(%room, key = %key.id, "publish key created");
    created(&shown, &headers, &room, key).await
}

/// Makes a key on the terms of another, which ceases to open.
async fn rotate(
    State(shown): State<Shown>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let old = key_id(&id)?;
    let view::Rotation { overlap_s } = optional_json(&headers, &body)?;
    if overlap_s > MAX_OVERLAP_S {
        return Err(Problem::bad_request(format!("overlap_s: at most {MAX_OVERLAP_S}")));
    }
    // Keys are listed by id: the one before it, if there is one, leads to it.
    let before = old.0.checked_sub(1).map(KeyId);
    let found = asked(shown.client.keys_in_full(None, before, 1)).await?.pop();
    let Some(found) = found.filter(|key| key.info.id == old) else {
        return Err(unknown(old));
    };
    let room = found.info.room;
    // The time that was the old key's end is the new one's, unless it is over.
    let terms = KeyTerms { once: false, ..found.terms };
    let key = asked(shown.client.store_key(&room, terms, Some((old, overlap_s)))).await?;
    tracing::info!(%room, key = %key.id, replaces = %old, overlap_s, "publish key rotated");
    created(&shown, &headers, &room, key).await
}

async fn revoke(State(shown): State<Shown>, Path(id): Path<String>) -> Answer<StatusCode> {
    let id = key_id(&id)?;
    if !asked(shown.client.revoke_key(id)).await? {
        return Err(unknown(id));
    }
    tracing::info!(key = %id, "publish key revoked");
    Ok(StatusCode::NO_CONTENT)
}

async fn created(
    shown: &Shown,
    headers: &HeaderMap,
    room: &RoomId,
    made: ::cluster::NewKey,
) -> Answer<Response> {
    let ::cluster::NewKey { id, key } = made;
    let push_url = format!("rtmp://{}/{room}?token={key}", push_host(shown, headers).await?);
    let created = view::CreatedKey { id: id.to_string(), room: room.to_string(), key, push_url };
    let subject = Subject(format!("{room} {id}"));
    Ok((StatusCode::CREATED, Extension(subject), Json(created)).into_response())
}

fn terms(asked: &view::KeyTerms) -> Answer<KeyTerms> {
    let networks = asked.allow.iter().map(|text| text.parse::<Network>());
    let networks = networks.collect::<Result<Vec<_>, _>>();
    let terms = KeyTerms {
        from_unix_s: asked.from_unix_s,
        until_unix_s: asked.until_unix_s,
        once: asked.once,
        networks: networks.map_err(|why| Problem::bad_request(format!("allow: {why}")))?,
    };
    terms.check().map_err(Problem::bad_request)?;
    Ok(terms)
}

fn key_view(key: KeyInFull) -> view::Key {
    let KeyInFull { info, terms, is_used } = key;
    view::Key {
        id: info.id.to_string(),
        room: info.room.to_string(),
        created_unix_s: info.created_unix_s,
        terms: view::KeyTerms {
            from_unix_s: terms.from_unix_s,
            until_unix_s: terms.until_unix_s,
            once: terms.once,
            allow: terms.networks.iter().map(ToString::to_string).collect(),
        },
        used: is_used,
    }
}

fn unknown(id: KeyId) -> Problem {
    Problem::not_found(format!("there is no publish key {id}"))
}

fn key_id(text: &str) -> Answer<KeyId> {
    let form = "a key's id is 16 hexadecimal digits";
    text.parse().map_err(|_| Problem::bad_request(form))
}
