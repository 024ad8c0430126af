//! `/api/v1/tokens`: tokens signed with the cluster's secret.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::cluster::access::{Claims, Role, Scope, sign};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode};

use super::{Answer, json};
use crate::admin::{Shown, problem::Problem, view};

/// Longest life of a token: a leaked one is of use until then.
const MAX_LIFETIME: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn routes() -> Router<Shown> {
    Router::new().route("/api/v1/tokens", post(create))
}

async fn create(State(shown): State<Shown>, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    let new: view::NewToken = json(&headers, &body)?;
    let wrong = |why: String| Err(Problem::bad_request(why));
    let scope = match Scope::try_from(new.room) {
        Ok(scope) => scope,
        Err(why) => return wrong(why),
    };
    let Ok(role) = serde_json::from_value::<Role>(new.role.clone().into()) else {
        return wrong(format!("role: {:?}; it is guest, member, mod, host or publisher", new.role));
    };
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if new.expires_unix_s <= now_s {
        return wrong("expires_unix_s: it is over already".to_owned());
    }
    if new.expires_unix_s - now_s > MAX_LIFETIME.as_secs() {
        return wrong("expires_unix_s: over a year from now".to_owned());
    }
    let config = shown.config.borrow().clone();
    let Some(secret) = &config.auth.token_secret else {
        let why = "auth.token_secret is not set on this node; set the same on all nodes";
        return Err(Problem::new(StatusCode::CONFLICT, why.to_owned()));
    };
    let claims = Claims {
        scope,
        role,
        capabilities: None,
        user: new.user,
        name: new.name,
        expires_s: new.expires_unix_s,
        not_before_s: None,
        id: None,
        issuer: config.auth.issuer.clone(),
        audience: config.auth.audience.clone().map(::cluster::access::Audience::One),
    };
    match sign(&claims, None, secret.reveal().as_bytes()) {
        Ok(token) => {
            let user = claims.user.as_deref().unwrap_or_default();
            let (room, role) = (String::from(claims.scope.clone()), new.role);
            tracing::info!(room, role, user, expires_unix_s = claims.expires_s, "token created");
            let made = view::CreatedToken { token, expires_unix_s: claims.expires_s };
            Ok((StatusCode::CREATED, Json(made)).into_response())
        }
        Err(error) => {
            Err(Problem::new(StatusCode::CONFLICT, format!("auth.token_secret: {error}")))
        }
    }
}
