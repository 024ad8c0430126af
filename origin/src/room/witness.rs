//! Tells the ledger when the room begins and ends here, and who publishes when.
//!
//! In: the incumbent after each turn of the room's loop. Out: events, which the ledger keeps if it has
//! room for them, and of the room's beginning and end the application's back-end. Decides nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use hooks::{Hooks, Kind};
use wire::events::{AddressClass, ClientKind};
use wire::{Region, RoomId};

use super::life::PublishId;
use crate::sequencer::ledger::{Event, EventKind, Handle};

/// Watches one room. Dropped, it says that the room is over.
pub(super) struct Witness {
    ledger: Option<Handle>,
    hooks: Option<Hooks>,
    room: RoomId,
    region: Region,
    publisher: Option<(PublishId, SocketAddr)>,
}

impl Witness {
    /// Says that the room begins here.
    pub(super) fn new(
        (ledger, hooks): (Option<Handle>, Option<Hooks>),
        room: RoomId,
        region: Region,
    ) -> Self {
        let witness = Self { ledger, hooks, room, region, publisher: None };
        witness.tell(Kind::RoomStart);
        witness.note(EventKind::RoomStart, None);
        witness
    }

    /// Says who came and went since the last time.
    pub(super) fn see(&mut self, publisher: Option<(PublishId, SocketAddr)>) {
        if self.publisher == publisher {
            return;
        }
        if let Some((_, source)) = std::mem::replace(&mut self.publisher, publisher) {
            self.note(EventKind::Unpublish, Some(source.ip()));
        }
        if let Some((_, source)) = publisher {
            self.note(EventKind::Publish, Some(source.ip()));
        }
    }

    fn tell(&self, kind: Kind) {
        if let Some(hooks) = &self.hooks {
            hooks.notify(hooks::Event::new(kind, self.room.app(), self.room.name()));
        }
    }

    fn note(&self, kind: EventKind, from: Option<IpAddr>) {
        let Some(ledger) = &self.ledger else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        ledger.note(Event {
            at_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            room: self.room.clone(),
            uid: String::new(),
            region: self.region.as_str().to_owned(),
            client: from.map_or(ClientKind::OTHER, |_| ClientKind::ENCODER).name(),
            address: from.map_or(AddressClass::NONE, AddressClass::of).name(),
            kind,
        });
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.see(None);
        self.note(EventKind::RoomEnd, None);
        self.tell(Kind::RoomEnd);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use wire::Epoch;

    use super::*;
    use crate::sequencer::ledger::{Answer, Committed, Gift, Ledger, Place};

    #[derive(Debug, Default)]
    struct Book(Mutex<Vec<(String, &'static str, &'static str)>>);

    impl Ledger for Book {
        fn commit(&self, _: Gift) -> Answer<'_, Committed> {
            unreachable!("a witness gives nothing")
        }

        fn find(&self, _: RoomId, _: String, _: String) -> Answer<'_, Option<Committed>> {
            unreachable!("a witness gives nothing")
        }

        fn mark(&self, _: RoomId, _: u64, _: Place) -> Answer<'_, ()> {
            unreachable!("a witness gives nothing")
        }

        fn unmarked(&self, _: RoomId, _: Epoch) -> Answer<'_, Vec<Committed>> {
            unreachable!("a witness gives nothing")
        }

        fn note(&self, event: Event) {
            let line = (format!("{:?}", event.kind), event.client, event.address);
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn every_beginning_has_its_end() {
        let book = Arc::<Book>::default();
        let room = RoomId::parse("live/a").unwrap();
        let mut witness = Witness::new((Some(book.clone()), None), room, Region::default());
        let (one, two) = ("127.0.0.1:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap());
        for publisher in [None, Some((1, one)), Some((1, one)), Some((2, two))] {
            witness.see(publisher);
        }
        drop(witness);
        let told = book.0.lock().unwrap();
        let told: Vec<_> = told.iter().map(|(kind, c, a)| (kind.as_str(), *c, *a)).collect();
        let expected = [
            ("RoomStart", "other", "none"),
            ("Publish", "encoder", "loopback"),
            ("Unpublish", "encoder", "loopback"),
            ("Publish", "encoder", "private"),
            ("Unpublish", "encoder", "private"),
            ("RoomEnd", "other", "none"),
        ];
        assert_eq!(told, expected);
    }
}
