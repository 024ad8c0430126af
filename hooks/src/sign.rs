//! Signatures of requests, so that a back-end knows who asks and when. Pure.

use std::fmt::Write as _;

use ring::hmac;

/// The header that carries them: `t=SECONDS,v1=HEX`.
pub const SIGNATURE_HEADER: &str = "tidewater-signature";

/// The value of [`SIGNATURE_HEADER`]: the time, and the HMAC-SHA256 of the time, a dot and the body. A back-end
/// that refuses times more than five minutes away takes no request twice for long.
#[must_use]
pub fn signature(secret: &[u8], at_s: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{at_s}.").as_bytes());
    context.update(body);
    let mut text = format!("t={at_s},v1=");
    for byte in context.sign().as_ref() {
        // Writing into a string never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn the_signature_is_hmac_sha256_of_time_and_body() {
        let expected =
            "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(signature(b"secret", 1_700_000_000, br#"{"a":1}"#), expected);
    }
}
