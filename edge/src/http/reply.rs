//! Responses and their common headers: media, problems, CORS.
//!
//! Every error is a problem document (RFC 9457). Every response may be read by scripts of any
//! origin: nothing here depends on cookies, so there is nothing for another site to steal.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH,
    CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use super::body::Body;

/// What a response may be.
pub(crate) type Reply = Response<Body>;

/// For what is the same for ever under its name.
pub(crate) const IMMUTABLE: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable");
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// For answers that may be another a second later, to keep a crowd off the edge behind a cache.
pub(crate) const ONE_SECOND: HeaderValue = HeaderValue::from_static("max-age=1");
const ANY: HeaderValue = HeaderValue::from_static("*");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Age, Date, Content-Length, Content-Range, ETag, Retry-After");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// What scripts of other sites may ask: POST is for what is said in a room.
const ASKED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A response of this status with `body`, readable from everywhere.
pub(crate) fn reply(status: StatusCode, content_type: HeaderValue, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    cors(headers);
    reply
}

/// 200 with `body`.
pub(crate) fn ok(content_type: HeaderValue, cache: HeaderValue, body: Body) -> Reply {
    let mut reply = reply(StatusCode::OK, content_type, body);
    reply.headers_mut().insert(CACHE_CONTROL, cache);
    reply
}

/// A problem document. `detail` tells the reader what to do about it.
pub(crate) fn problem(status: StatusCode, cache: HeaderValue, detail: &str) -> Reply {
    let document = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut reply = reply(status, PROBLEM, Body::full(document.to_string()));
    reply.headers_mut().insert(CACHE_CONTROL, cache);
    reply
}

/// 404 that a cache may keep for a second.
pub(crate) fn not_found(detail: &str) -> Reply {
    problem(StatusCode::NOT_FOUND, ONE_SECOND, detail)
}

/// 400.
pub(crate) fn bad_request(detail: &str) -> Reply {
    problem(StatusCode::BAD_REQUEST, NO_STORE, detail)
}

/// 503 with Retry-After in whole seconds, at least one.
pub(crate) fn unavailable(retry_after: Duration, detail: &str) -> Reply {
    let mut reply = problem(StatusCode::SERVICE_UNAVAILABLE, NO_STORE, detail);
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    reply
}

/// 401: a token is needed, and what is wrong with the one that came.
pub(crate) fn unauthorized(why: &str) -> Reply {
    let detail = format!("guests may not watch here: {why}");
    let mut reply = problem(StatusCode::UNAUTHORIZED, NO_STORE, &detail);
    reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    reply
}

/// 403: the page that asks is of a site that may not.
pub(crate) fn foreign() -> Reply {
    let detail = "pages of this site may not connect here; see http.origins";
    problem(StatusCode::FORBIDDEN, NO_STORE, detail)
}

/// The answer to OPTIONS, preflight or not.
pub(crate) fn options() -> Reply {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(ALLOW, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, ASKED);
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Range, Authorization, Content-Type, Last-Event-ID"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    cors(headers);
    reply
}

/// 405: viewers only read.
pub(crate) fn method_not_allowed(method: &Method) -> Reply {
    let detail = format!("{method} is not allowed; allowed are GET, HEAD and OPTIONS");
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, NO_STORE, &detail);
    reply.headers_mut().insert(ALLOW, METHODS);
    reply
}

/// The reply as HEAD gets it: the same headers, the length said, nothing sent.
pub(crate) fn without_body(mut reply: Reply) -> Reply {
    let body = std::mem::replace(reply.body_mut(), Body::empty());
    if let Some(len) = body.len()
        && reply.status() != StatusCode::NO_CONTENT
    {
        reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    reply
}

/// Lets scripts of any origin read the response and the headers players look at.
pub(crate) fn cors(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}
