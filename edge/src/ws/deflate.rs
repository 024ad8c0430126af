//! Compression of messages (RFC 7692), always without context takeover: what one connection is sent can
//! be sent to all, and an idle connection keeps no window.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::SEC_WEBSOCKET_EXTENSIONS;

/// What every compressed message ends with before its last four bytes are cut (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The first offer of `permessage-deflate` that can be accepted, as the answer to it.
pub(crate) fn accept(headers: &HeaderMap) -> Option<&'static str> {
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).into_iter();
    let offers = values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    offers.into_iter().find_map(answer)
}

fn answer(offer: &str) -> Option<&'static str> {
    let mut fields = offer.split(';').map(str::trim);
    if fields.next() != Some("permessage-deflate") {
        return None;
    }
    let mut window = false;
    let mut seen = Vec::new();
    for field in fields {
        let (name, value) = match field.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (field, None),
        };
        // A parameter twice, or one that is not known, makes the offer void (RFC 7692, 7).
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(bits))
                if (8..=15).contains(&bits.parse().unwrap_or(0)) => {}
            // Whoever wants a smaller window of us is sent plain frames: they are shared.
            ("server_max_window_bits", Some("15")) => window = true,
            _ => return None,
        }
    }
    Some(if window {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
         server_max_window_bits=15"
    } else {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    })
}

/// A payload, compressed.
pub(crate) fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() / 2 + 64);
    let mut compress = Compress::new(Compression::fast(), false);
    loop {
        let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = payload.get(taken..).unwrap_or_default();
        out.reserve(256 + rest.len() / 4);
        match compress.compress_vec(rest, &mut out, FlushCompress::Sync) {
            Ok(Status::Ok) if out.len() == out.capacity() => {}
            _ => break,
        }
    }
    if out.ends_with(&TAIL) {
        out.truncate(out.len() - TAIL.len());
    }
    out
}

/// Why a message cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uninflatable {
    /// It is longer than is taken.
    TooLong,
    /// It is not deflate.
    Broken,
}

/// A compressed message, inflated to at most `max` bytes.
pub(crate) fn inflated(payload: &[u8], max: usize) -> Result<Vec<u8>, Uninflatable> {
    let mut inflate = Decompress::new(false);
    let mut out = Vec::with_capacity(payload.len().saturating_mul(3).min(max + 1));
    for input in [payload, &TAIL] {
        let start = inflate.total_in();
        loop {
            let taken = usize::try_from(inflate.total_in() - start).unwrap_or(usize::MAX);
            let rest = input.get(taken..).unwrap_or_default();
            if out.len() == out.capacity() {
                out.reserve_exact(
                    (out.capacity().max(64)).min((max + 1).saturating_sub(out.len())).max(1),
                );
            }
            let before = (inflate.total_in(), out.len());
            let status = inflate
                .decompress_vec(rest, &mut out, FlushDecompress::Sync)
                .map_err(|_| Uninflatable::Broken)?;
            if out.len() > max {
                return Err(Uninflatable::TooLong);
            }
            let stuck = before == (inflate.total_in(), out.len());
            if status == Status::StreamEnd || (stuck && out.len() < out.capacity()) {
                break;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offers_are_accepted_only_as_they_can_be_kept() {
        for (offer, accepted) in [
            ("permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits", true),
            ("x-webkit, permessage-deflate; server_no_context_takeover", true),
            ("permessage-deflate; server_max_window_bits=15", true),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits=20", false),
            ("permessage-deflate; what", false),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", false),
            ("permessage-bzip2", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
            assert_eq!(accept(&headers).is_some(), accepted, "{offer}");
        }
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let bomb = deflated(&vec![b'a'; 10 << 20]);
        assert!(bomb.len() < 64 << 10);
        assert_eq!(inflated(&bomb, 64 << 10), Err(Uninflatable::TooLong));
        assert_eq!(inflated(&[0xff, 0xff, 0xff], 100), Err(Uninflatable::Broken));
    }

    proptest! {
        #[test]
        fn messages_survive(payload in prop::collection::vec(any::<u8>(), 0..3000), reps in 1_usize..20) {
            let payload = payload.repeat(reps);
            prop_assert_eq!(inflated(&deflated(&payload), payload.len()), Ok(payload));
        }

        #[test]
        fn any_bytes_are_inflated_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(out) = inflated(&bytes, 1000) {
                prop_assert!(out.len() <= 1000);
            }
        }
    }
}
