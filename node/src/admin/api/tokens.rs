//! `/api/v1/tokens`: tokens signed with the cluster's secret.

use std::time::Duration;

use ::cluster::access::{Audience, Capability, Claims, Role, Scope, sign};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode};
use wire::RoomId;

use super::{Answer, json};
use crate::admin::{Shown, problem::Problem, view};
use crate::config::Config;
use crate::when::now_ms;

/// Longest life of a token: a leaked one is of use until then.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn routes() -> Router<Shown> {
    Router::new().route("/api/v1/tokens", post(create))
}

/// For whom a token is.
pub(super) struct Holder {
    pub(super) role: Role,
    pub(super) user: Option<String>,
    pub(super) name: Option<String>,
}

async fn create(State(shown): State<Shown>, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    let new: view::NewToken = json(&headers, &body)?;
    let scope = Scope::try_from(new.room).map_err(Problem::bad_request)?;
    let holder = Holder { role: role(&new.role)?, user: new.user, name: new.name };
    let config = shown.config.borrow().clone();
    let made = signed(&config, scope, holder, new.expires_unix_s)?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Signs a token with the cluster's secret. Each has an id of its own and says when it was issued, so that
/// it can be revoked.
///
/// # Errors
/// The problem to answer with.
pub(super) fn signed(
    config: &Config,
    scope: Scope,
    holder: Holder,
    expires_s: u64,
) -> Answer<view::CreatedToken> {
    let now_s = now_ms() / 1000;
    if expires_s <= now_s {
        return Err(Problem::bad_request("expires_unix_s: it is over already"));
    }
    if expires_s - now_s > MAX_LIFETIME.as_secs() {
        return Err(Problem::bad_request("expires_unix_s: over a year from now"));
    }
    let Some(secret) = &config.auth.token_secret else {
        let why = "auth.token_secret is not set on this node; set the same on all nodes";
        return Err(Problem::new(StatusCode::CONFLICT, why));
    };
    let id = format!("{:032x}", rand::random::<u128>());
    let (room, role) = (String::from(scope.clone()), holder.role);
    // Any room and capability: what follows says them anew.
    let nobody = RoomId::new("live", "any").expect("a valid name");
    let claims = Claims {
        scope,
        role,
        capabilities: None,
        user: holder.user,
        name: holder.name,
        issued_s: Some(now_s),
        id: Some(id.clone()),
        issuer: config.auth.issuer.clone(),
        audience: config.auth.audience.clone().map(Audience::One),
        is_signed_url: false,
        ..Claims::of_signed_url(&nobody, Capability::Watch, expires_s)
    };
    match sign(&claims, None, secret.reveal().as_bytes()) {
        Ok(token) => {
            let user = claims.user.as_deref().unwrap_or_default();
            tracing::info!(room, ?role, user, id, expires_unix_s = expires_s, "token created");
            Ok(view::CreatedToken { token, id, expires_unix_s: expires_s })
        }
        Err(error) => {
            Err(Problem::new(StatusCode::CONFLICT, format!("auth.token_secret: {error}")))
        }
    }
}

/// Reads a role.
///
/// # Errors
/// The problem to answer with.
pub(super) fn role(text: &str) -> Answer<Role> {
    serde_json::from_value::<Role>(text.into()).map_err(|_| {
        let forms = "it is guest, member, mod, host or publisher";
        Problem::bad_request(format!("role: {text:?}; {forms}"))
    })
}
