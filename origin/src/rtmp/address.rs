//! Which room a push is for, and the token it brings: from what the encoder sent in `connect` and
//! `publish`, in the many ways in which encoders split a URL.
//!
//! `rtmp://host/{app}/{name}?token=…` in full; in OBS the server is `rtmp://host/live` and the
//! stream key `name?token=…`. A token in the app part is read too.

use wire::{RoomId, id::DEFAULT_APP, id::IdError};

/// The instance that Flash encoders name when the user named none.
const DEFAULT_INSTANCE: &str = "_definst_";
/// The query parameter that carries the publish token.
const TOKEN: &str = "token";

/// Where a push wants to go.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// The room.
    pub room: RoomId,
    /// The token, if there is one. Never logged.
    pub token: Option<String>,
    /// The query as sent with the stream name, or else with the app, without `?`. It may hold the
    /// token and is never logged.
    pub query: String,
}

/// Why the names of a push are not those of a room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is an app at most.
    #[error("the stream name is missing; push to rtmp://host/{{app}}/{{name}}")]
    NoName,
    /// There are more than two parts.
    #[error("{parts} parts in the path; a room has two, rtmp://host/{{app}}/{{name}}")]
    TooManyParts {
        /// How many.
        parts: usize,
    },
    /// The room is not a valid one.
    #[error("{0}")]
    Room(#[from] IdError),
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the token nor the query, which holds it.
        f.debug_struct("Address")
            .field("room", &self.room)
            .field("has_token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

impl Address {
    /// Reads the address out of the `app` and `tcUrl` of `connect` and the stream name of `publish`.
    ///
    /// # Errors
    /// [`AddressError`] says what is wrong and how it should be.
    pub fn parse(app: &str, tc_url: &str, name: &str) -> Result<Self, AddressError> {
        let (app_path, app_query) = split_query(app);
        let (name_path, name_query) = split_query(name);
        let (_, url_query) = split_query(tc_url);
        // App and name are one path to the user; where an encoder splits it is its own affair.
        let path: Vec<&str> = parts(app_path).chain(parts(name_path)).collect();
        let room = match *path.as_slice() {
            [] => return Err(AddressError::NoName),
            [_] if parts(name_path).next().is_none() => return Err(AddressError::NoName),
            [name] => RoomId::new(DEFAULT_APP, name)?,
            [app, name] => RoomId::new(app, name)?,
            _ => return Err(AddressError::TooManyParts { parts: path.len() }),
        };
        let queries = [name_query, app_query, url_query];
        let token = queries.iter().find_map(|query| parameter(query, TOKEN));
        let query = queries.iter().find(|query| !query.is_empty()).unwrap_or(&"");
        Ok(Self { room, token, query: (*query).to_owned() })
    }
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

/// The parts of a path, without empty ones and the default instance.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != DEFAULT_INSTANCE)
}

/// The first value of a query parameter that is not empty, percent-decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    // Some encoders append a second query with `?` to the one the user gave.
    query
        .split(['&', '?'])
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| percent_decoded(value))
}

/// Decodes `%XX`; what is not a valid escape, or not UTF-8 when decoded, stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(app: &str, name: &str) -> String {
        match Address::parse(app, "", name) {
            Ok(address) => address.room.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn token(app: &str, tc_url: &str, name: &str) -> Option<String> {
        Address::parse(app, tc_url, name).unwrap().token
    }

    #[test]
    fn the_path_is_split_wherever_the_encoder_splits_it() {
        for (app, name) in [
            ("live", "x"),
            ("live/", "x"),
            ("/live", "/x"),
            ("live", "x/"),
            ("", "x"),
            ("", "live/x"),
            ("live/x", ""),
            ("live/_definst_", "x"),
            ("live?a=b", "x?c=d"),
        ] {
            assert_eq!(room(app, name), "live/x", "{app:?} {name:?}");
        }
        assert_eq!(room("shows", "x"), "shows/x");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let missing = "the stream name is missing; push to rtmp://host/{app}/{name}";
        assert_eq!(room("live", ""), missing);
        assert_eq!(room("live", "?token=1"), missing);
        assert_eq!(room("", ""), missing);
        let many = "3 parts in the path; a room has two, rtmp://host/{app}/{name}";
        assert_eq!(room("live/instance", "x"), many);
        assert_eq!(room("live", "a b"), "room name contains ' '; allowed are A-Z a-z 0-9 . _ -");
        assert!(room("api", "x").starts_with("app \"api\" is reserved"));
    }

    #[test]
    fn the_token_is_found_where_encoders_put_it() {
        let expected = Some("s3cret".to_owned());
        assert_eq!(token("live", "", "x?token=s3cret"), expected);
        assert_eq!(token("live?token=s3cret", "", "x"), expected);
        assert_eq!(token("live", "rtmp://h/live?token=s3cret", "x"), expected);
        assert_eq!(token("live?token=other", "", "x?a=1&token=s3cret&b=2"), expected);
        assert_eq!(token("live?token=s3cret", "", "x?token="), expected);
        assert_eq!(token("live", "", "x?a=1?token=s3cret"), expected);
        assert_eq!(token("live", "", "x?token=s3%63ret"), expected);
        assert_eq!(token("live", "", "x?token=a%2Bb%3D%3d"), Some("a+b==".to_owned()));
        assert_eq!(token("live", "", "x?token=%zz%4"), Some("%zz%4".to_owned()));
        assert_eq!(token("live", "", "x?token=%ff"), Some("%ff".to_owned()));
        assert_eq!(token("live", "", "x?nottoken=1&token"), None);
    }

    #[test]
    fn the_query_is_kept_and_secrets_are_not_shown() {
        let address = Address::parse("live?z=1", "", "x?token=s3cret&a=1").unwrap();
        assert_eq!(address.query, "token=s3cret&a=1");
        assert_eq!(format!("{address:?}"), "Address { room: live/x, has_token: true, .. }");
        assert_eq!(Address::parse("live?z=1", "", "x").unwrap().query, "z=1");
    }
}
