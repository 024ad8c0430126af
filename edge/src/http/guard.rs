//! Whether a viewer may watch: everyone where guests are allowed, else by what the request brings.
//!
//! A token (`?token=`) or signed URL opens playlists and FLV. The media playlist is the same for all
//! viewers, so the files it names carry no token: an answer to one sets a cookie that does, for this
//! room and as long as the token lasts. Answers that set it are private to their viewer.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cluster::access::{Access, Brought, Claims, Denied, Pass};
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use wire::RoomId;

use super::query::Query;
use super::reply::Reply;

/// The cookie's name.
const COOKIE_NAME: &str = "watch_token";

/// What lets a viewer in.
#[derive(Debug)]
pub(super) struct Admitted {
    /// To set with the answer.
    cookie: Option<HeaderValue>,
    /// What was brought.
    claims: Claims,
}

/// Lets a viewer of `room` in, or says why not.
///
/// # Errors
/// [`Denied`].
pub(super) fn admit(
    access: &Access,
    room: &RoomId,
    query: Option<&str>,
    headers: &HeaderMap,
    is_tls: bool,
) -> Result<Admitted, Denied> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let brought =
        Brought { token: Query::new(query).get("token"), query: query.unwrap_or_default() };
    match access.watch(room, brought, now_s) {
        Ok(claims) => {
            Ok(Admitted { cookie: cookie(room, brought, &claims, now_s, is_tls), claims })
        }
        Err(Denied::Missing) => {
            let kept = kept(headers).ok_or(Denied::Missing)?;
            // A token as it is; of a signed URL the query.
            let token = (!kept.contains('=')).then_some(kept);
            let claims = access.watch(room, Brought { token, query: kept }, now_s)?;
            Ok(Admitted { cookie: None, claims })
        }
        Err(denied) => Err(denied),
    }
}

impl Admitted {
    /// What an answer that goes on and on looks at from time to time.
    pub(super) fn pass(&self, access: &Arc<Access>, room: &RoomId) -> Pass {
        Pass::new(access, self.claims.clone(), room.clone())
    }

    /// Notes on an answer what lets the viewer in again.
    pub(super) fn mark(self, mut reply: Reply) -> Reply {
        if let Some(cookie) = self.cookie
            && reply.status().is_success()
        {
            let headers = reply.headers_mut();
            headers.insert(SET_COOKIE, cookie);
            let cache = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
            let private = format!("private, {}", cache.unwrap_or("no-cache"));
            if let Ok(private) = HeaderValue::from_str(&private) {
                headers.insert(CACHE_CONTROL, private);
            }
        }
        reply
    }
}

/// The cookie for what was brought; none when it holds what no cookie can (RFC 6265 section 4.1.1).
fn cookie(
    room: &RoomId,
    brought: Brought<'_>,
    claims: &Claims,
    now_s: u64,
    is_tls: bool,
) -> Option<HeaderValue> {
    let value = match brought.token {
        Some(token) => token.to_owned(),
        None => brought
            .query
            .split('&')
            .filter(|pair| pair.starts_with("tx"))
            .collect::<Vec<_>>()
            .join("&"),
    };
    if !value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)) {
        return None;
    }
    let left_s = claims.expires_s.saturating_sub(now_s).max(1);
    // Another site's page may play our stream only where the browser is sure of the connection.
    let site = if is_tls { "SameSite=None; Secure" } else { "SameSite=Lax" };
    let text = format!("{COOKIE_NAME}={value}; Path=/{room}; Max-Age={left_s}; HttpOnly; {site}");
    HeaderValue::from_str(&text).ok()
}

/// What the cookie of an earlier answer holds.
fn kept(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.trim() == COOKIE_NAME).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use cluster::access::TxKeys;

    use super::*;

    #[test]
    fn a_signed_url_opens_the_room_again_by_its_cookie_and_no_other_room() {
        let keys = TxKeys { primary: "key".to_owned(), backup: None, grace_s: 0 };
        let access = Access { play: Some(keys.clone()), ..Access::default() };
        let room = RoomId::parse("live/c").unwrap();
        let query = format!("_HLS_msn=1&{}", keys.sign(&room, u64::from(u32::MAX)));
        let none = HeaderMap::new();
        let admitted = admit(&access, &room, Some(&query), &none, false).unwrap();
        let cookie = admitted.cookie.unwrap();
        let (kept, rest) = cookie.to_str().unwrap().split_once(';').unwrap();
        assert!(!kept.contains("_HLS") && rest.contains(" Path=/live/c;"), "{cookie:?}");
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(&format!("a=b; {kept}")).unwrap());
        assert!(admit(&access, &room, None, &headers, false).unwrap().cookie.is_none());
        let other = RoomId::parse("live/d").unwrap();
        assert_eq!(admit(&access, &other, None, &headers, false).err(), Some(Denied::BadSignature));
        assert_eq!(admit(&access, &room, None, &none, false).err(), Some(Denied::Missing));
    }
}
