//! Who changed what by the API: one event for each call that is more than a look.
//!
//! In: a call that the guard let through, and its answer. Out: an event of the kind `audit`, kept where all
//! events are: who, what, on what, with which result. Never a body, a query or a header, where secrets are.

use std::net::IpAddr;

use axum::response::Response;
use http::Method;
use serde_json::json;
use wire::{
    RoomId,
    events::{ClientKind, Detail, Event, EventKind, Id, Whence},
    inquiry::clip,
};

use super::{Shown, guard::Principal};
use crate::when::now_ms;

/// What a call was about, where its path does not say; handlers put it into their answers.
#[derive(Debug, Clone)]
pub(super) struct Subject(pub(super) String);

/// Keeps a call.
pub(super) fn record(
    shown: &Shown,
    who: &Principal,
    from: IpAddr,
    (method, path): (&Method, &str),
    answer: &Response,
) {
    if method == Method::GET || method == Method::HEAD {
        return;
    }
    let subject = answer.extensions().get::<Subject>().map(|subject| subject.0.as_str());
    let detail = json!({
        "method": method.as_str(),
        "path": clip(path),
        "status": answer.status().as_u16(),
        "token": who.token,
        "subject": subject.map(clip),
    });
    let region = shown.config.borrow().node.region.clone();
    shown.audit.emit(Event {
        kind: EventKind::AUDIT,
        at_unix_ms: now_ms(),
        room: room_in(path),
        user: Id::clip(&who.name),
        whence: Whence::new(region, ClientKind::SERVER, from),
        detail: Detail::clip(&detail.to_string()),
    });
}

/// The room that a path names.
fn room_in(path: &str) -> Option<RoomId> {
    let mut parts = path.strip_prefix("/api/v1/rooms/")?.split('/');
    RoomId::new(parts.next()?, parts.next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_room() {
        let room = RoomId::parse("live/c").ok();
        assert_eq!(room_in("/api/v1/rooms/live/c"), room);
        assert_eq!(room_in("/api/v1/rooms/live/c/push/forbid"), room);
        assert_eq!(room_in("/api/v1/rooms"), None);
        assert_eq!(room_in("/api/v1/keys/live/c"), None);
    }
}
