//! `/api/v1/tokens`: tokens signed with the cluster's secret; `/api/v1/admin-tokens`: those of callers of this
//! API, signed with the admin token.

use std::time::Duration;

use ::cluster::access::{
    AdminClaims, AdminScope, Audience, Capability, Claims, Role, Scope, sign, sign_admin,
};
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode};
use wire::RoomId;

use super::{Answer, json};
use crate::admin::{Shown, audit::Subject, problem::Problem, view};
use crate::config::Config;
use crate::when::now_ms;

/// Longest life of a token: a leaked one is of use until then.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(366 * 86_400);

/// Longest name of who holds an admin token: that of an event's column.
const MAX_NAME_BYTES: usize = 128;

pub(super) fn routes() -> Router<Shown> {
    Router::new()
        .route("/api/v1/tokens", post(create))
        .route("/api/v1/admin-tokens", post(create_admin))
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
    let subject = Subject(format!("token {}", made.id));
    Ok((StatusCode::CREATED, Extension(subject), Json(made)).into_response())
}

/// Signs a token for a caller of the API itself.
async fn create_admin(
    State(shown): State<Shown>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let view::NewAdminToken { name, scopes, expires_unix_s } = json(&headers, &body)?;
    let now_s = now_ms() / 1000;
    let scopes = scopes.iter().map(|scope| scope.parse::<AdminScope>());
    let scopes = scopes.collect::<Result<Vec<_>, _>>().map_err(Problem::bad_request)?;
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || scopes.is_empty() {
        let what = format!("give a name of 1 to {MAX_NAME_BYTES} bytes, and scopes");
        return Err(Problem::bad_request(what));
    }
    if expires_unix_s <= now_s || expires_unix_s - now_s > MAX_LIFETIME.as_secs() {
        return Err(Problem::bad_request("expires_unix_s: from now on, within a year"));
    }
    let config = shown.config.borrow().clone();
    let Some(admin) = &config.admin.token else {
        let why =
            "admin.token is not set; these tokens are signed with it: set TIDEWATER_ADMIN__TOKEN";
        return Err(Problem::new(StatusCode::CONFLICT, why));
    };
    let id = format!("{:032x}", rand::random::<u128>());
    let claims =
        AdminClaims { name, scopes, expires_s: expires_unix_s, issued_s: now_s, id: id.clone() };
    let token = sign_admin(&claims, admin.reveal())
        .map_err(|error| Problem::new(StatusCode::CONFLICT, error.to_string()))?;
    tracing::info!(name = claims.name, id, expires_unix_s, "admin token created");
    let subject = Subject(format!("admin token {id} for {}", claims.name));
    let made = view::CreatedToken { token, id, expires_unix_s };
    Ok((StatusCode::CREATED, Extension(subject), Json(made)).into_response())
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
