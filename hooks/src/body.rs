//! The bodies of requests: our own form, and the one that back-ends of SRS know. Pure.

use serde_json::json;

use crate::{Event, Kind};

/// Longest text of a back-end that is passed on, in bytes; longer ones are cut.
pub const MAX_TEXT_BYTES: usize = 256;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Our own.
    #[default]
    Tidewater,
    /// As SRS's `http_hooks` writes them. Kinds that SRS does not have are written in the same way.
    Srs,
}

/// The body of the request about `event`, as JSON.
pub(crate) fn write(format: Format, event: &Event, node: &str, at_s: u64) -> Vec<u8> {
    let value = match format {
        Format::Tidewater => tidewater(event, node, at_s),
        Format::Srs => srs(event, node),
    };
    value.to_string().into_bytes()
}

fn tidewater(event: &Event, node: &str, at_s: u64) -> serde_json::Value {
    let Event { kind, app, name, address, user, protocol, session, text, query: _ } = event;
    let mut value = json!({
        "event": kind.name(),
        "time": at_s,
        "node": node,
        "room": format!("{app}/{name}"),
        "app": app,
        "name": name,
    });
    let mut put = |key: &str, text: &str| {
        if !text.is_empty() {
            value[key] = text.into();
        }
    };
    put("user", user);
    put("protocol", protocol);
    put("session", session);
    put("text", text);
    if let Some(address) = address {
        put("address", &address.ip().to_canonical().to_string());
    }
    value
}

/// The fields of SRS 5's `on_publish`, `on_unpublish`, `on_play` and `on_stop`.
fn srs(event: &Event, node: &str) -> serde_json::Value {
    let Event { kind, app, name, address, user, session, text, query, .. } = event;
    let ip = address.map_or_else(String::new, |address| address.ip().to_canonical().to_string());
    let param = if query.is_empty() { String::new() } else { format!("?{query}") };
    let mut value = json!({
        "server_id": node,
        "action": kind.name(),
        "client_id": session,
        "ip": ip,
        "vhost": "__defaultVhost__",
        "app": app,
        "tcUrl": format!("rtmp://__defaultVhost__/{app}"),
        "stream": name,
        "param": param,
        "stream_url": format!("/{app}/{name}"),
        "stream_id": format!("{app}/{name}"),
    });
    if *kind == Kind::MessageReview {
        value["user"] = user.as_str().into();
        value["text"] = text.as_str().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            address: Some("[::ffff:203.0.113.9]:50000".parse().unwrap()),
            user: "u7".to_owned(),
            protocol: "rtmp",
            session: "5".to_owned(),
            query: "token=secret".to_owned(),
            ..Event::new(Kind::Publish, "live", "c")
        }
    }

    #[test]
    fn our_own_form_says_who_and_never_what_let_them_in() {
        let body = String::from_utf8(write(Format::Tidewater, &event(), "o1", 9)).unwrap();
        let expected = json!({
            "event": "on_publish", "time": 9, "node": "o1", "room": "live/c", "app": "live",
            "name": "c", "user": "u7", "protocol": "rtmp", "session": "5", "address": "203.0.113.9",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expected);
        assert!(!body.contains("secret"));
    }

    #[test]
    fn the_form_of_srs_has_its_fields() {
        let body = write(Format::Srs, &event(), "o1", 9);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for (key, expected) in [
            ("action", "on_publish"),
            ("client_id", "5"),
            ("ip", "203.0.113.9"),
            ("vhost", "__defaultVhost__"),
            ("app", "live"),
            ("stream", "c"),
            ("param", "?token=secret"),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
    }
}
