//! The RTMP handshake of a server: C0 C1 in, S0 S1 S2 out, C2 in.
//!
//! The digests of Flash Player 9 and the plain form of the specification (Adobe "RTMP 1.0" (2012)
//! section 5.2) are both answered by `rml_rtmp`. It is handed exactly the handshake's bytes, so what
//! it buffers is bounded and nothing is left over in it.

use rml_rtmp::handshake::{Handshake as Rml, HandshakeProcessResult, PeerType};

use super::Error;

/// C0, C1 and C2 (sections 5.2.2 to 5.2.4).
const HANDSHAKE_BYTES: usize = 1 + 1536 + 1536;
/// The version in C0: plain RTMP.
const VERSION: u8 = 3;

/// A handshake under way.
pub struct Handshake {
    inner: Rml,
    received: usize,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Default for Handshake {
    fn default() -> Self {
        Self { inner: Rml::new(PeerType::Server), received: 0 }
    }
}

impl Handshake {
    /// Takes the handshake's bytes off the front of `input`, appends the answer to `out`, and says
    /// whether the handshake is done. What is left of `input` is the chunk stream.
    ///
    /// # Errors
    /// [`Error::NotRtmp`] if the peer speaks something else.
    pub fn receive(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Error> {
        if self.received == 0
            && let Some(first) = input.first()
            && *first != VERSION
        {
            return Err(Error::NotRtmp { first: *first, hint: looks_like(*first) });
        }
        let (bytes, rest) = input.split_at(input.len().min(HANDSHAKE_BYTES - self.received));
        *input = rest;
        if bytes.is_empty() {
            return Ok(false);
        }
        self.received += bytes.len();
        let result =
            self.inner.process_bytes(bytes).map_err(|error| Error::Handshake(error.to_string()))?;
        let (response, done) = match result {
            HandshakeProcessResult::InProgress { response_bytes } => (response_bytes, false),
            HandshakeProcessResult::Completed { response_bytes, .. } => (response_bytes, true),
        };
        out.extend_from_slice(&response);
        Ok(done)
    }
}

/// Says what a peer with this first byte probably is.
fn looks_like(first: u8) -> &'static str {
    match first {
        0x16 => "it looks like TLS; use rtmp://, not rtmps://",
        6 | 8 | 9 => "encrypted RTMP (rtmpe) is not supported; use rtmp://",
        b'A'..=b'Z' => "it looks like HTTP; players use the HTTP port, encoders rtmp://",
        _ => "the peer does not speak RTMP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_done(split: usize) {
        let mut client = Rml::new(PeerType::Client);
        let mut server = Handshake::default();
        let mut to_server = client.generate_outbound_p0_and_p1().unwrap();
        let mut done = false;
        while !done {
            let mut out = Vec::new();
            for mut part in to_server.chunks(split) {
                done |= server.receive(&mut part, &mut out).unwrap();
                assert!(part.is_empty());
            }
            if !done {
                to_server = match client.process_bytes(&out).unwrap() {
                    HandshakeProcessResult::InProgress { response_bytes }
                    | HandshakeProcessResult::Completed { response_bytes, .. } => response_bytes,
                };
            }
        }
    }

    #[test]
    fn a_client_with_digest_gets_through_however_its_bytes_are_split() {
        for split in [1, 7, 1536, 1537, 4000] {
            client_done(split);
        }
    }

    #[test]
    fn a_plain_client_gets_its_own_bytes_back() {
        let mut server = Handshake::default();
        let c1 = [7u8; 1536];
        let mut out = Vec::new();
        let hello = [&[VERSION][..], &c1].concat();
        assert!(!server.receive(&mut &hello[..], &mut out).unwrap());
        assert_eq!((out.len(), out[0]), (1 + 2 * 1536, VERSION));
        assert_eq!(out[1537..], c1);
        let s1 = out[1..1537].to_vec();
        assert!(server.receive(&mut &s1[..], &mut out).unwrap());
    }

    #[test]
    fn what_follows_is_left_alone() {
        let mut server = Handshake::default();
        let bytes = [&[VERSION][..], &[0; 3072], b"chunks"].concat();
        let mut input = &bytes[..];
        assert!(server.receive(&mut input, &mut Vec::new()).unwrap());
        assert_eq!(input, b"chunks");
    }

    #[test]
    fn other_protocols_are_named() {
        for (bytes, hint) in [
            (&b"\x16\x03\x01"[..], "TLS"),
            (b"GET / HTTP/1.1", "HTTP"),
            (b"\x06", "rtmpe"),
            (b"\0", "does not speak RTMP"),
        ] {
            let error = Handshake::default().receive(&mut &*bytes, &mut Vec::new()).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
            assert_eq!(error.reason(), "not_rtmp");
        }
    }
}
