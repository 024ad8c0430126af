//! Heads of requests that are answered directly, and of their answers. Pure.
//!
//! In: bytes of a connection; a reply. Out: what a plain GET of HLS asks; a head to be sent. What is not
//! plain is not judged here: hyper reads it again.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, response};

use super::super::Ask;

/// Headers of a request; more are hyper's to refuse.
const MAX_HEADERS: usize = 64;
/// What heads of answers are seldom longer than.
const HEAD_BYTES: usize = 512;
/// How names of HLS resources end.
const SUFFIXES: [&str; 3] = [".m3u8", ".m4s", ".mp4"];
/// Length of a date (RFC 9110, 5.6.7).
const DATE_BYTES: usize = 29;

/// What the bytes of a connection begin with.
pub(super) enum Parsed {
    /// A plain GET of HLS, and the length of its head.
    Plain(Plain, usize),
    /// The beginning of a head.
    Partial,
    /// Anything else.
    Other,
}

/// A GET of HLS without a body and without any wish about the connection.
pub(super) struct Plain {
    path: Bytes,
    query: Option<Bytes>,
    headers: HeaderMap,
}

impl Plain {
    pub(super) fn ask(&self) -> Ask<'_> {
        // Both are ASCII: checked below.
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        Ask {
            method: &Method::GET,
            path: text(&self.path),
            query: self.query.as_deref().map(text),
            headers: &self.headers,
            has_body: false,
            body: None,
            direct: true,
        }
    }
}

/// Reads the head that `bytes` begin with.
pub(super) fn parse(bytes: &Bytes) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Other,
    };
    plain(bytes, &request).map_or(Parsed::Other, |plain| Parsed::Plain(plain, length))
}

fn plain(bytes: &Bytes, request: &httparse::Request<'_, '_>) -> Option<Plain> {
    let target = request.path.filter(|_| request.version == Some(1))?;
    if request.method != Some("GET") {
        return None;
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let is_path = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let is_query = |query: &str| {
        query.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.~&=%+,:;@/".contains(&b))
    };
    // A room may be called x.mp4, and its events have no end.
    let is_hls = SUFFIXES.iter().any(|suffix| path.ends_with(suffix)) && !path.starts_with("/sse/");
    if !is_path || !is_hls || !path.starts_with('/') || !query.is_none_or(is_query) {
        return None;
    }
    let mut map = HeaderMap::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        if is_about_the_connection(&name) && !header.value.eq_ignore_ascii_case(b"keep-alive") {
            return None;
        }
        map.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(header.value)).ok()?);
    }
    let query = query.map(|query| bytes.slice_ref(query.as_bytes()));
    Some(Plain { path: bytes.slice_ref(path.as_bytes()), query, headers: map })
}

/// Headers that say how the connection goes on, or that more follows than the head.
fn is_about_the_connection(name: &HeaderName) -> bool {
    use http::header::{CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
    [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, EXPECT, TE, TRAILER].contains(name)
}

/// The head of an answer with a body of `length` bytes; `last` when the connection ends with it. There is
/// room behind it for a short body.
pub(super) fn render(parts: &response::Parts, length: usize, last: bool) -> BytesMut {
    let room = if length <= super::JOINED_BYTES { length } else { 0 };
    let mut head = BytesMut::with_capacity(HEAD_BYTES + room);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(parts.status.as_str().as_bytes());
    head.extend_from_slice(b" ");
    head.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in &parts.headers {
        line(&mut head, name, value.as_bytes());
    }
    // RFC 9110, 8.6: these have no content to be long.
    let has_content = ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&parts.status);
    if has_content && !parts.headers.contains_key(CONTENT_LENGTH) {
        line(&mut head, &CONTENT_LENGTH, HeaderValue::from(length).as_bytes());
    }
    if last {
        line(&mut head, &CONNECTION, b"close");
    }
    DATE_NOW.with_borrow_mut(|date| line(&mut head, &DATE, date.now()));
    head.extend_from_slice(b"\r\n");
    head
}

fn line(head: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    head.extend_from_slice(name.as_str().as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

thread_local! {
    static DATE_NOW: std::cell::RefCell<DateNow> = const { std::cell::RefCell::new(DateNow::UNKNOWN) };
}

/// The date, written once a second.
struct DateNow {
    second: u64,
    text: [u8; DATE_BYTES],
}

impl DateNow {
    const UNKNOWN: Self = Self { second: u64::MAX, text: [b' '; DATE_BYTES] };

    fn now(&mut self) -> &[u8] {
        let now = std::time::SystemTime::now();
        let second = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second {
            let text = httpdate::fmt_http_date(now);
            if let Ok(text) = text.into_bytes().try_into() {
                *self = Self { second, text };
            }
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> Parsed {
        parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn plain_gets_are_read_whole() {
        let text = "GET /live/a/main.m3u8?_HLS_msn=5&_HLS_part=1 HTTP/1.1\r\nHost: x\r\n\
                    User-Agent: p\r\nConnection: Keep-Alive\r\n\r\nGET";
        let Parsed::Plain(plain, length) = said(text) else { panic!("plain") };
        assert_eq!(length, text.len() - 3);
        let ask = plain.ask();
        assert_eq!(ask.path, "/live/a/main.m3u8");
        assert_eq!(ask.query, Some("_HLS_msn=5&_HLS_part=1"));
        assert_eq!(ask.headers["user-agent"], "p");
        assert!(matches!(said(&text[..length - 1]), Parsed::Partial));
    }

    #[test]
    fn everything_else_is_for_hyper() {
        for request in [
            "HEAD /live/a.m3u8 HTTP/1.1\r\n\r\n",
            "GET /live/a.m3u8 HTTP/1.0\r\n\r\n",
            "GET /live/a.flv HTTP/1.1\r\n\r\n",
            "GET /watch/live/a HTTP/1.1\r\n\r\n",
            "GET /sse/live/a.mp4 HTTP/1.1\r\n\r\n",
            "GET http://x/live/a.m3u8 HTTP/1.1\r\n\r\n",
            "GET /live/a%20b.m3u8 HTTP/1.1\r\n\r\n",
            "GET /live/a.m3u8?q=\"x\" HTTP/1.1\r\n\r\n",
            "GET /live/a.m3u8 HTTP/1.1\r\nConnection: close\r\n\r\n",
            "GET /live/a.m3u8 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "GET /live/a.m3u8 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /live/a.m3u8 HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
            "GET /live/a.m3u8 HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
            "GET /live/a.m3u8 HTTP/1.1\r\nBad Header: x\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(matches!(said(request), Parsed::Other), "{request}");
        }
    }

    #[test]
    fn heads_say_their_length_and_whether_they_are_the_last() {
        let (parts, ()) = http::Response::builder().header("a", "b").body(()).unwrap().into_parts();
        let text = String::from_utf8(render(&parts, 7, true).to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 7\r\n"), "{text}");
        assert!(text.contains("\r\nconnection: close\r\ndate: ") && text.ends_with(" GMT\r\n\r\n"));
        assert!(!String::from_utf8_lossy(&render(&parts, 7, false)).contains("close"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&Bytes::from(bytes));
        }
    }
}
