//! The server's end of WebSocket (RFC 6455): the opening handshake; frames are in [`frame`].
//!
//! In: the headers of an upgrade request on HTTP/1.1. Out: the response head to write, or what is
//! wrong with the request. [`message`] puts
//! messages together, [`deflate`] is the one extension there is; a subprotocol is the caller's business.

#[cfg(test)]
mod conformance;
pub(crate) mod deflate;
pub(crate) mod frame;
pub(crate) mod message;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};

/// Appended to the client's key to prove that the server speaks WebSocket (RFC 6455, 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The only version there is (RFC 6455, 4.1).
const VERSION: &str = "13";

/// What is wrong with an upgrade request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadUpgrade {
    /// Another version of the protocol is asked for.
    #[error("Sec-WebSocket-Version must be {VERSION}")]
    Version,
    /// The key is missing or is not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
}

/// Whether a request asks for an upgrade to WebSocket.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, UPGRADE, "websocket") && has_token(headers, CONNECTION, "upgrade")
}

/// The value of `Sec-WebSocket-Accept` for an upgrade request.
///
/// # Errors
/// [`BadUpgrade`] names what to send instead.
pub(crate) fn accept(headers: &HeaderMap) -> Result<String, BadUpgrade> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    if text(SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Err(BadUpgrade::Version);
    }
    let key = text(SEC_WEBSOCKET_KEY).ok_or(BadUpgrade::Key)?;
    if key.len() != 24 || STANDARD.decode(key).map(|k| k.len()) != Ok(16) {
        return Err(BadUpgrade::Key);
    }
    let mut digest = sha1_smol::Sha1::new();
    digest.update(key.as_bytes());
    digest.update(ACCEPT_GUID.as_bytes());
    Ok(STANDARD.encode(digest.digest().bytes()))
}

/// Whether a comma-separated header has this token, whatever its case.
fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn upgrade(key: &'static str, version: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(key));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(version));
        headers
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let headers = upgrade("dGhlIHNhbXBsZSBub25jZQ==", "13");
        assert!(wants_upgrade(&headers));
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(accept(&upgrade("dGhlIHNhbXBsZSBub25jZQ==", "8")), Err(BadUpgrade::Version));
        for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ=!", "dGhlIHNhbXBsZSBub25jZQAAAAAA"] {
            assert_eq!(accept(&upgrade(key, "13")), Err(BadUpgrade::Key), "{key}");
        }
        let mut headers = upgrade("dGhlIHNhbXBsZSBub25jZQ==", "13");
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        assert!(!wants_upgrade(&headers));
    }
}
