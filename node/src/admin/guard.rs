//! Who may call the admin listener.
//!
//! In: where a request came from, and its headers. Out: leave, or the [`Problem`] that refuses it.
//! Callers on this machine need no token unless `admin.require_token`; all others, and all callers
//! of `api.listen`, need the bearer token. Since "on this machine" includes the operator's browser,
//! which any web page can make send requests, token-less callers must also look like a tool or like
//! our own console: see [`from_elsewhere`]. Pure.

use std::net::{IpAddr, SocketAddr};

use cluster::access::{AdminScope, Bars, verify_admin};
use http::{HeaderMap, StatusCode, header};

use super::problem::Problem;
use crate::config::{Admin, Secret};

/// Headers of reverse proxies: who sends one is not the caller but passes one on.
const FORWARDING: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// The two ends of a caller's connection.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The caller's address.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
}

/// Which rules hold for a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `admin.listen`.
    Admin,
    /// `api.listen`: always with a token.
    Api,
}

/// Who calls, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Who, for the audit: the name in the token, else what kind of caller it is.
    pub name: String,
    /// The id of the token, if it is one with scopes.
    pub token: Option<String>,
    /// What the token allows; none allows everything.
    scopes: Option<Vec<AdminScope>>,
}

impl Principal {
    fn unlimited(name: &str) -> Self {
        Self { name: name.to_owned(), token: None, scopes: None }
    }

    /// Whether they may do what needs `scope`.
    #[must_use]
    pub fn may(&self, scope: AdminScope) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.contains(&scope))
    }
}

/// Checks one request, at `now_s` in seconds since 1970.
///
/// # Errors
/// The problem to answer with, and the reason to count.
pub fn check(
    door: Door,
    (admin, bars): (&Admin, &Bars),
    caller: Caller,
    headers: &HeaderMap,
    now_s: u64,
) -> Result<Principal, (&'static str, Problem)> {
    if let Some(sent) = bearer(headers) {
        let Some(token) = &admin.token else {
            return Err(("token", unauthorized(NO_TOKEN_SET)));
        };
        if same(token, sent) {
            return Ok(Principal::unlimited("admin"));
        }
        return scoped(token, bars, sent, now_s);
    }
    let trusted = door == Door::Admin && !admin.require_token && is_local(caller, headers);
    if !trusted {
        let what = if admin.token.is_some() {
            "this caller needs the header \"Authorization: Bearer …\" with the admin token"
        } else {
            NO_TOKEN_SET
        };
        return Err(("token", unauthorized(what)));
    }
    match from_elsewhere(headers) {
        Some(what) => Err(("origin", Problem::new(StatusCode::FORBIDDEN, what))),
        None => Ok(Principal::unlimited("local")),
    }
}

/// A caller with a token that was signed with the admin token.
fn scoped(
    admin: &Secret,
    bars: &Bars,
    sent: &[u8],
    now_s: u64,
) -> Result<Principal, (&'static str, Problem)> {
    let wrong = |what: &str| ("token", unauthorized(what));
    let sent = std::str::from_utf8(sent).map_err(|_| wrong("the bearer token is wrong"))?;
    let claims = verify_admin(sent, admin.reveal(), now_s).map_err(|denied| match denied {
        cluster::access::Denied::Expired => wrong("the bearer token has expired"),
        _ => wrong("the bearer token is wrong"),
    })?;
    if bars.revokes_id(&claims.id, now_s) {
        return Err(wrong("the bearer token has been revoked"));
    }
    Ok(Principal { name: claims.name, token: Some(claims.id), scopes: Some(claims.scopes) })
}

const NO_TOKEN_SET: &str = "this caller needs a token, and the node has none: set TIDEWATER_ADMIN__TOKEN in its environment";

fn unauthorized(what: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, what)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Compares in a time that depends on the lengths alone.
fn same(token: &Secret, sent: &[u8]) -> bool {
    let token = token.reveal().as_bytes();
    let differing =
        token.iter().zip(sent).fold(0, |bits, (a, b)| bits | std::hint::black_box(a ^ b));
    token.len() == sent.len() && differing == 0
}

/// On loopback, or on another of this machine's addresses called from that same address; and not a
/// proxy, whose callers may be anywhere.
fn is_local(caller: Caller, headers: &HeaderMap) -> bool {
    let peer = caller.peer.ip().to_canonical();
    let on_this_machine = peer.is_loopback() || peer == caller.local.ip().to_canonical();
    on_this_machine && !FORWARDING.iter().any(|name| headers.contains_key(*name))
}

/// Why a token-less local request may come from a web page that is not ours, if it does.
///
/// A page elsewhere can reach us in two ways: across origins, which browsers mark with `Origin` or
/// `Sec-Fetch-Site`, or by a name that it lets resolve to us (DNS rebinding), which shows in `Host`:
/// only an address or `localhost` cannot be rebound.
fn from_elsewhere(headers: &HeaderMap) -> Option<&'static str> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !host.is_empty() && !is_literal(host) {
        return Some("without a token, call this listener by its address or as localhost");
    }
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let foreign_site = matches!(site, Some(b"cross-site" | b"same-site"));
    let foreign_origin = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        origin.split_once("://").is_none_or(|(_, authority)| authority != host)
    });
    (foreign_site || foreign_origin).then_some("requests from other web pages need a token")
}

fn is_literal(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.parse::<u16>().is_ok() => bare,
        _ => host,
    };
    let bare = bare.strip_prefix('[').and_then(|b| b.strip_suffix(']')).unwrap_or(bare);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(token: Option<&str>, require_token: bool) -> Admin {
        Admin {
            listen: "127.0.0.1:8081".parse().unwrap(),
            require_token,
            token: token.map(|t| Secret::new(t.to_owned())),
        }
    }

    fn caller(peer: &str) -> Caller {
        let local = if peer.starts_with("127.") { "127.0.0.1:8081" } else { "10.0.0.1:8081" };
        Caller { peer: peer.parse().unwrap(), local: local.parse().unwrap() }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn status(door: Door, admin: &Admin, peer: &str, sent: &[(&'static str, &str)]) -> Option<u16> {
        check(door, (admin, &Bars::default()), caller(peer), &headers(sent), NOW_S)
            .err()
            .map(|(_, p)| p.status().as_u16())
    }

    const NOW_S: u64 = 1_795_000_000;
    const LOCAL: &str = "127.0.0.1:5000";
    const REMOTE: &str = "10.0.0.9:5000";

    #[test]
    fn local_tools_need_no_token() {
        let admin = admin(None, false);
        for host in ["127.0.0.1:8081", "localhost:8081", "[::1]:8081", "localhost"] {
            assert_eq!(status(Door::Admin, &admin, LOCAL, &[("host", host)]), None, "{host}");
        }
        assert_eq!(status(Door::Admin, &admin, "10.0.0.1:5000", &[("host", "10.0.0.1")]), None);
    }

    #[test]
    fn others_need_the_token() {
        let admin = admin(Some("s3cret"), false);
        assert_eq!(status(Door::Admin, &admin, REMOTE, &[]), Some(401));
        let right = [("authorization", "Bearer s3cret"), ("host", "node.example.org")];
        assert_eq!(status(Door::Admin, &admin, REMOTE, &right), None);
        for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer ", "Basic s3cret", "s3cret"] {
            let sent = [("authorization", wrong)];
            assert_eq!(status(Door::Admin, &admin, REMOTE, &sent), Some(401), "{wrong}");
        }
        // A wrong token is wrong from loopback too: a script that sends one wants to know.
        let sent = [("authorization", "Bearer nope")];
        assert_eq!(status(Door::Admin, &admin, LOCAL, &sent), Some(401));
    }

    #[test]
    fn a_token_with_scopes_is_good_for_those() {
        let admin = admin(Some("s3cret"), true);
        let claims = cluster::access::AdminClaims {
            name: "shop".to_owned(),
            scopes: vec![AdminScope::Read],
            expires_s: NOW_S,
            issued_s: NOW_S,
            id: "j1".to_owned(),
        };
        let token = cluster::access::sign_admin(&claims, "s3cret").unwrap();
        let bearer = format!("Bearer {token}");
        let sent = headers(&[("authorization", &bearer)]);
        let bars = Bars::default();
        let at = |now_s| check(Door::Api, (&admin, &bars), caller(REMOTE), &sent, now_s);
        let principal = at(NOW_S).unwrap();
        assert_eq!((principal.name.as_str(), principal.token.as_deref()), ("shop", Some("j1")));
        assert!(principal.may(AdminScope::Read) && !principal.may(AdminScope::Keys));
        assert_eq!(at(NOW_S + 3600).unwrap_err().1.status(), StatusCode::UNAUTHORIZED);
        assert!(Principal::unlimited("admin").may(AdminScope::Cluster));
    }

    #[test]
    fn without_a_token_set_remote_callers_get_nowhere() {
        let admin = admin(None, false);
        assert_eq!(status(Door::Admin, &admin, REMOTE, &[]), Some(401));
        let sent = [("authorization", "Bearer ")];
        assert_eq!(status(Door::Admin, &admin, REMOTE, &sent), Some(401));
    }

    #[test]
    fn the_api_door_and_require_token_trust_nobody() {
        assert_eq!(status(Door::Api, &admin(Some("t"), false), LOCAL, &[]), Some(401));
        assert_eq!(status(Door::Admin, &admin(Some("t"), true), LOCAL, &[]), Some(401));
        let right = [("authorization", "bearer t")];
        assert_eq!(status(Door::Api, &admin(Some("t"), false), LOCAL, &right), None);
    }

    #[test]
    fn proxies_on_this_machine_are_not_the_caller() {
        let admin = admin(None, false);
        for header in FORWARDING {
            assert_eq!(status(Door::Admin, &admin, LOCAL, &[(header, "1.2.3.4")]), Some(401));
        }
    }

    #[test]
    fn web_pages_elsewhere_are_refused() {
        let admin = admin(None, false);
        let own = ("host", "127.0.0.1:8081");
        for foreign in [
            &[own, ("origin", "https://evil.example")][..],
            &[own, ("origin", "null")],
            &[own, ("origin", "http://127.0.0.1:9999")],
            &[own, ("sec-fetch-site", "cross-site")],
            &[own, ("sec-fetch-site", "same-site")],
            &[("host", "rebound.evil.example:8081")],
        ] {
            assert_eq!(status(Door::Admin, &admin, LOCAL, foreign), Some(403), "{foreign:?}");
        }
        for console in [
            &[own, ("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "same-origin")][..],
            &[own, ("sec-fetch-site", "none")],
        ] {
            assert_eq!(status(Door::Admin, &admin, LOCAL, console), None, "{console:?}");
        }
    }
}
