//! What an answer of a back-end means. Pure.
//!
//! Our own form: 2xx with nothing, or with a JSON object, whose `allow` is true unless said and whose
//! `reason` is for whom it concerns; 401 and 403 are a no. SRS's: 200 with `0`, or with a JSON object
//! whose `code` is 0, is a yes; any other code is a no, and so are 401 and 403. Everything else is no
//! answer.

use serde::Deserialize;

use crate::body::{Format, MAX_TEXT_BYTES};
use crate::{Decision, Error};

#[derive(Deserialize)]
struct Ours {
    #[serde(default = "yes")]
    allow: bool,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Srs {
    code: i64,
    #[serde(default)]
    msg: String,
}

/// Reads an answer.
///
/// # Errors
/// [`Error::Status`] and [`Error::Answer`] for one that says neither yes nor no.
pub(crate) fn read(format: Format, status: u16, body: &[u8]) -> Result<Decision, Error> {
    let text = std::str::from_utf8(body).map_err(|_| Error::Answer("it is not text"))?.trim();
    if matches!(status, 401 | 403) {
        let said = serde_json::from_str::<Ours>(text).map(|ours| ours.reason);
        return Ok(deny(&said.unwrap_or_default()));
    }
    if !(200..300).contains(&status) {
        return Err(Error::Status(status));
    }
    match format {
        Format::Tidewater if text.is_empty() => Ok(Decision::Allow),
        Format::Tidewater => match serde_json::from_str::<Ours>(text) {
            Ok(Ours { allow: true, .. }) => Ok(Decision::Allow),
            Ok(Ours { reason, .. }) => Ok(deny(&reason)),
            Err(_) => Err(Error::Answer("it is no JSON object with allow and reason")),
        },
        Format::Srs => match (text.parse::<i64>(), serde_json::from_str::<Srs>(text)) {
            (Ok(0), _) | (_, Ok(Srs { code: 0, .. })) => Ok(Decision::Allow),
            (_, Ok(Srs { msg, .. })) => Ok(deny(&msg)),
            (Ok(_), _) => Ok(deny("")),
            _ => Err(Error::Answer("it is neither a code nor a JSON object with one")),
        },
    }
}

fn yes() -> bool {
    true
}

/// A no, in words that can be shown: without control characters, and short.
fn deny(reason: &str) -> Decision {
    let mut shown: String = reason.chars().filter(|c| !c.is_control()).collect();
    if shown.len() > MAX_TEXT_BYTES {
        let end = (0..=MAX_TEXT_BYTES).rev().find(|at| shown.is_char_boundary(*at));
        shown.truncate(end.unwrap_or(0));
    }
    if shown.is_empty() {
        "the application says no".clone_into(&mut shown);
    }
    Decision::Deny(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no(text: &str) -> Option<Decision> {
        Some(Decision::Deny(text.to_owned()))
    }

    #[test]
    fn answers_mean_yes_no_or_nothing() {
        const SAYS_NO: &str = "the application says no";
        for (format, status, body, expected) in [
            (Format::Tidewater, 200, "", Some(Decision::Allow)),
            (Format::Tidewater, 204, "", Some(Decision::Allow)),
            (Format::Tidewater, 200, "{}", Some(Decision::Allow)),
            (Format::Tidewater, 200, r#"{"allow":true,"more":1}"#, Some(Decision::Allow)),
            (Format::Tidewater, 200, r#"{"allow":false,"reason":"no\u0007 way"}"#, no("no way")),
            (Format::Tidewater, 403, "<html>", no(SAYS_NO)),
            (Format::Tidewater, 401, r#"{"reason":"banned"}"#, no("banned")),
            (Format::Tidewater, 500, "", None),
            (Format::Tidewater, 302, "", None),
            (Format::Tidewater, 200, "ok", None),
            (Format::Tidewater, 200, r#"{"allow":"yes"}"#, None),
            (Format::Srs, 200, "0", Some(Decision::Allow)),
            (Format::Srs, 200, " 0\n", Some(Decision::Allow)),
            (Format::Srs, 200, r#"{"code":0,"msg":"ok"}"#, Some(Decision::Allow)),
            (Format::Srs, 200, r#"{"code":403,"msg":"full"}"#, no("full")),
            (Format::Srs, 200, "1", no(SAYS_NO)),
            (Format::Srs, 403, "", no(SAYS_NO)),
            (Format::Srs, 200, "", None),
            (Format::Srs, 404, "0", None),
        ] {
            assert_eq!(read(format, status, body.as_bytes()).ok(), expected, "{status} {body}");
        }
        assert!(read(Format::Srs, 200, &[0xff]).is_err());
        let long = format!(r#"{{"allow":false,"reason":"{}"}}"#, "é".repeat(MAX_TEXT_BYTES));
        let Ok(Decision::Deny(cut)) = read(Format::Tidewater, 200, long.as_bytes()) else {
            panic!()
        };
        assert_eq!(cut.len(), MAX_TEXT_BYTES);
    }
}
