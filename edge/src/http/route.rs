//! `/route/{app}/{name}?region=…`: which edges a viewer should go to, and the optional redirect there.
//!
//! In: a room's name and, maybe, the viewer's region. Out: JSON with the best edges first, or, where
//! `route.redirect` is on, 302 for a viewer who begins at an edge that is not among them. An edge asked
//! for a room that placement keeps elsewhere serves it anyway, so nobody needs either.
//!
//! Answers about a room that does not exist are as good as others: a question activates nothing and
//! tells nothing of the room.

use std::net::IpAddr;
use std::time::Duration;

use dashmap::DashMap;
use http::header::{HOST, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tokio::time::Instant;
use wire::{Region, RoomId};

use super::body::Body;
use super::listener::site;
use super::query::Query;
use super::reply::{self, NO_STORE, Reply};
use super::{App, Caller};
use crate::metrics::Refusal;
use crate::room::Offer;

/// Questions one address may ask at once after a silence, and how many more each second.
const BURST: f64 = 20.0;
const PER_SECOND: f64 = 5.0;
/// Addresses remembered. When there are more, those that have been silent go; when all are busy, new
/// ones are refused.
const MAX_ADDRESSES: usize = 20_000;
/// Marks a redirected viewer, who is not redirected again: two edges may know different loads.
const VIA: &str = "via";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How often each address has asked.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    buckets: DashMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn now(self, now: Instant) -> f64 {
        (self.left + now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND).min(BURST)
    }
}

impl Limiter {
    /// Whether this address may ask now; counts the question.
    fn allows(&self, address: IpAddr, now: Instant) -> bool {
        let key = site(address);
        if self.buckets.len() >= MAX_ADDRESSES && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| bucket.now(now) < BURST);
            if self.buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let mut bucket = self.buckets.entry(key).or_insert(Bucket { left: BURST, at: now });
        let left = bucket.now(now);
        let may = left >= 1.0;
        *bucket = Bucket { left: if may { left - 1.0 } else { left }, at: now };
        may
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    room: &'a str,
    edges: Vec<Place<'a>>,
}

#[derive(Serialize)]
struct Place<'a> {
    id: &'a str,
    region: &'a str,
    url: &'a str,
    hls: String,
    flv: String,
}

/// Answers `/route/{app}/{name}`.
pub(super) fn answer(app: &App, caller: &Caller<'_>, room: &RoomId) -> Reply {
    if !app.routes.allows(caller.peer.ip(), Instant::now()) {
        app.refuse(Refusal::RateLimit);
        let detail = "asked too often from this address; an answer is good for a minute";
        let mut reply = reply::problem(StatusCode::TOO_MANY_REQUESTS, NO_STORE, detail);
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return reply;
    }
    let region = match Query::new(caller.query).get("region").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match Region::new(text) {
            Ok(region) => Some(region),
            Err(error) => {
                app.refuse(Refusal::BadRequest);
                return reply::bad_request(&format!("region {text:?}: {error}"));
            }
        },
    };
    let here = here(app, caller.headers);
    let offers = app.rooms.route(room, region.as_ref());
    let place = |offer: &Offer| {
        let url = offer.url.as_deref().unwrap_or(&here).trim_end_matches('/').to_owned();
        (offer.node.to_string(), offer.region.to_string(), url)
    };
    let places: Vec<_> = offers.iter().map(place).collect();
    let edges = places.iter().map(|(id, region, url)| Place {
        id,
        region,
        url,
        hls: format!("{url}/{room}.m3u8"),
        flv: format!("{url}/{room}.flv"),
    });
    let answer = Answer { room: room.as_str(), edges: edges.collect() };
    if answer.edges.is_empty() {
        app.refuse(Refusal::Unavailable);
        let detail = "no edge is known that takes viewers now; ask again, or watch here";
        return reply::unavailable(Duration::from_secs(1), detail);
    }
    let text = serde_json::to_string(&answer).unwrap_or_else(|_| "{}".into());
    reply::ok(JSON, NO_STORE, Body::full(text))
}

/// Sends a viewer who begins here to a better edge, if redirects are on and there is one.
pub(super) fn redirect(app: &App, caller: &Caller<'_>, path: &str, room: &RoomId) -> Option<Reply> {
    let query = Query::new(caller.query);
    if !app.redirect || query.get(VIA).is_some() {
        return None;
    }
    let offers = app.rooms.route(room, None);
    let own = app.node.as_deref();
    if offers.iter().any(|offer| Some(offer.node.as_str()) == own) {
        return None;
    }
    let url = offers.first()?.url.as_deref()?.trim_end_matches('/');
    let rest = caller.query.map_or(String::new(), |query| format!("{query}&"));
    let location = format!("{url}{path}?{rest}{VIA}={}", own.unwrap_or("edge"));
    let location = HeaderValue::from_str(&location).ok()?;
    let mut reply = reply::reply(StatusCode::FOUND, JSON, Body::empty());
    reply.headers_mut().insert(LOCATION, location);
    reply.headers_mut().insert(http::header::CACHE_CONTROL, NO_STORE);
    Some(reply)
}

/// This edge's base URL as the caller knows it.
fn here(app: &App, headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let scheme = if app.is_tls { "https" } else { "http" };
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_burst_and_then_a_rate() {
        let limiter = Limiter::default();
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let start = Instant::now();
        let asked = |address, at_ms| limiter.allows(address, start + Duration::from_millis(at_ms));
        assert_eq!((0..30).filter(|_| asked(one, 0)).count(), BURST as usize);
        assert!(asked(other, 0), "another address is another matter");
        assert!(!asked(one, 199) && asked(one, 201) && !asked(one, 202));
        assert_eq!((0..30).filter(|_| asked(one, 60_000)).count(), BURST as usize);
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let address = |i: usize| IpAddr::from((i as u32).to_be_bytes());
        assert!((0..MAX_ADDRESSES).all(|i| limiter.allows(address(i), start)));
        assert!(!limiter.allows(address(MAX_ADDRESSES), start), "all are busy");
        assert!(limiter.allows(address(0), start), "the known are served");
        let later = start + Duration::from_secs(60);
        assert!(limiter.allows(address(MAX_ADDRESSES), later), "the silent have gone");
    }
}
