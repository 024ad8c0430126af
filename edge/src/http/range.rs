//! Byte ranges (RFC 9110 section 14).
//!
//! One range is honoured. Several, or something that is not a range of bytes, are ignored as the RFC
//! allows: the answer is then the whole.

use http::header::{ACCEPT_RANGES, CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::body::Body;
use super::reply::{NO_STORE, Reply, problem};

/// What a Range header asks of a resource of a known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Whole,
    /// First and last byte.
    Bytes(u64, u64),
    Unsatisfiable,
}

/// Cuts a 200 with a known length down to what the request asks for.
pub(crate) fn apply(request: &HeaderMap, mut reply: Reply) -> Reply {
    let Some(len) = reply.body().len() else { return reply };
    reply.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Nothing here carries a validator, so a condition on one never holds.
    let header = request.get(RANGE).filter(|_| !request.contains_key(IF_RANGE));
    let Some(header) = header.and_then(|h| h.to_str().ok()) else { return reply };
    match parse(header, len) {
        Asked::Whole => reply,
        Asked::Bytes(start, end) => {
            let body = std::mem::replace(reply.body_mut(), Body::empty());
            *reply.body_mut() = body.slice(start, end);
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            let value = format!("bytes {start}-{end}/{len}");
            if let Ok(value) = HeaderValue::from_str(&value) {
                reply.headers_mut().insert(CONTENT_RANGE, value);
            }
            reply
        }
        Asked::Unsatisfiable => {
            let detail = format!("the resource has {len} bytes");
            let mut reply = problem(StatusCode::RANGE_NOT_SATISFIABLE, NO_STORE, &detail);
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{len}")) {
                reply.headers_mut().insert(CONTENT_RANGE, value);
            }
            reply
        }
    }
}

fn parse(header: &str, len: u64) -> Asked {
    let Some(spec) = header.trim().strip_prefix("bytes=") else { return Asked::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Asked::Whole };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Asked::Whole,
        (Some(first), _) if first >= len && (last.is_empty() || number(last).is_some()) => {
            Asked::Unsatisfiable
        }
        (Some(first), Some(last)) => Asked::Bytes(first, last.min(len - 1)),
        (Some(first), None) if last.is_empty() => Asked::Bytes(first, len - 1),
        (None, Some(0)) if first.is_empty() => Asked::Unsatisfiable,
        (None, Some(_)) if first.is_empty() && len == 0 => Asked::Unsatisfiable,
        (None, Some(suffix)) if first.is_empty() => {
            Asked::Bytes(len.saturating_sub(suffix), len - 1)
        }
        _ => Asked::Whole,
    }
}

/// Digits only: `u64::from_str` would take a sign. A number over 64 bits counts as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_the_rfc_says() {
        for (header, expected) in [
            ("bytes=0-0", Asked::Bytes(0, 0)),
            ("bytes=2-5", Asked::Bytes(2, 5)),
            ("bytes=2-", Asked::Bytes(2, 9)),
            ("bytes=-3", Asked::Bytes(7, 9)),
            ("bytes=-30", Asked::Bytes(0, 9)),
            ("bytes=8-99999999999999999999999", Asked::Bytes(8, 9)),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=10-12", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=5-2", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=a-", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("lines=1-2", Asked::Whole),
        ] {
            assert_eq!(parse(header, 10), expected, "{header}");
        }
        assert_eq!(parse("bytes=-5", 0), Asked::Unsatisfiable);
        assert_eq!(parse("bytes=0-", 0), Asked::Unsatisfiable);
    }
}
