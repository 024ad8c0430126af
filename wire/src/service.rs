//! Who serves which stream: the kinds of streams between nodes, and the trait of those who serve.
//!
//! In: streams the other node opened, from [`crate::endpoint`]. Out: each goes to the one
//! [`Service`] registered for its kind. What a stream carries after its first byte is the affair of
//! the service and of the module with its messages.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    Error,
    endpoint::Peer,
    stream::{Receiver, Sender},
};

/// What a stream is for: its first byte. Append-only; a number is never given to another use.
///
/// | kind | opened by | way | carries |
/// |---|---|---|---|
/// | 0 Hello | dialler | both | one [`crate::hello::Hello`] each way, first of all streams |
/// | 1 Control | dialler | both | requests to the control plane and their answers |
/// | 2 Watch | dialler | both | a request, then changes of placement as they happen |
/// | 3 Subscribe | edge | both | a request, then a room's manifest entries, for as long as it lasts |
/// | 4 Fetch | edge | both | a request for one segment or part, then its bytes |
/// | 5 Contribute | ingest | both | a publisher's frames to the room's home |
/// | 6 Raft | voter | both | Raft messages |
/// | 7 Segment | home | one | the bytes of one segment for one subscription |
/// | 8 RoomEvents | edge | both | a room's interaction |
/// | 9 Events | any | both | gifts for the ledger and events to keep, and their answers |
/// | 10 Donate | home | both | a request for what a subscriber has of an earlier home, then that |
/// | 11 Inquiry | any | both | an operator's question to a node, and its answer |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the table above says what each is")]
pub enum StreamKind {
    Hello = 0,
    Control = 1,
    Watch = 2,
    Subscribe = 3,
    Fetch = 4,
    Contribute = 5,
    Raft = 6,
    Segment = 7,
    RoomEvents = 8,
    Events = 9,
    Donate = 10,
    Inquiry = 11,
}

impl StreamKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Hello,
        Self::Control,
        Self::Watch,
        Self::Subscribe,
        Self::Fetch,
        Self::Contribute,
        Self::Raft,
        Self::Segment,
        Self::RoomEvents,
        Self::Events,
        Self::Donate,
        Self::Inquiry,
    ];

    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The kind of a byte on the wire, if this build knows it.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// Whether only its opener sends on it.
    #[must_use]
    pub fn is_one_way(self) -> bool {
        self == Self::Segment
    }

    /// A closed-set label for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Control => "control",
            Self::Watch => "watch",
            Self::Subscribe => "subscribe",
            Self::Fetch => "fetch",
            Self::Contribute => "contribute",
            Self::Raft => "raft",
            Self::Segment => "segment",
            Self::RoomEvents => "room_events",
            Self::Events => "events",
            Self::Donate => "donate",
            Self::Inquiry => "inquiry",
        }
    }
}

impl std::fmt::Display for StreamKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

/// A stream the other node opened; its kind byte is already read.
#[derive(Debug)]
pub struct Stream {
    /// What it is for.
    pub kind: StreamKind,
    /// The way back; `None` for a one-way stream.
    pub sender: Option<Sender>,
    /// What the other node says.
    pub receiver: Receiver,
}

impl Stream {
    /// Both halves of a two-way stream.
    ///
    /// # Errors
    /// [`Error::StreamClosed`] for a one-way stream.
    pub fn both(self) -> Result<(Sender, Receiver), Error> {
        Ok((self.sender.ok_or(Error::StreamClosed)?, self.receiver))
    }
}

/// What serving one stream is: runs as a task of its own until the stream is done with.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves the streams of some kinds, on every connection, whoever dialled it.
///
/// The task of a stream is bounded in number by [`crate::endpoint::Limits`]. When its connection
/// is lost every read and write in it fails; a task that has not ended
/// [`crate::endpoint::SERVICE_END_GRACE`] later is dropped where it stands, so what must happen at
/// the end belongs in a `Drop`. A panic in it is logged and costs only the stream.
pub trait Service: Send + Sync + 'static {
    /// The kinds it serves. Asked once.
    fn kinds(&self) -> &'static [StreamKind];

    /// Serves one stream `peer` opened.
    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving;
}

/// The services of an endpoint by kind; at most one each.
#[derive(Default)]
pub(crate) struct Services {
    by_kind: [Option<Arc<dyn Service>>; StreamKind::ALL.len()],
}

impl Services {
    pub(crate) fn new(services: Vec<Arc<dyn Service>>) -> Result<Self, Error> {
        let mut table = Self::default();
        for service in services {
            for &kind in service.kinds() {
                let place = &mut table.by_kind[usize::from(kind.byte())];
                // The endpoint itself answers hellos.
                if kind == StreamKind::Hello || place.is_some() {
                    return Err(Error::KindTaken { kind });
                }
                *place = Some(Arc::clone(&service));
            }
        }
        Ok(table)
    }

    pub(crate) fn of(&self, kind: StreamKind) -> Option<Arc<dyn Service>> {
        self.by_kind[usize::from(kind.byte())].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Idle(&'static [StreamKind]);

    impl Service for Idle {
        fn kinds(&self) -> &'static [StreamKind] {
            self.0
        }

        fn serve(self: Arc<Self>, _: Arc<Peer>, _: Stream) -> Serving {
            Box::pin(std::future::ready(()))
        }
    }

    #[test]
    fn kinds_survive_their_bytes() {
        for (byte, kind) in StreamKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.byte()), byte, "the list is dense and in order");
            assert_eq!(StreamKind::from_byte(kind.byte()), Some(kind));
        }
        assert_eq!(StreamKind::from_byte(12), None);
        assert_eq!(StreamKind::from_byte(255), None);
    }

    #[test]
    fn a_kind_has_one_service() {
        let raft: Arc<dyn Service> = Arc::new(Idle(&[StreamKind::Raft, StreamKind::Control]));
        let table = Services::new(vec![Arc::clone(&raft)]).ok().unwrap();
        assert!(table.of(StreamKind::Raft).is_some() && table.of(StreamKind::Control).is_some());
        assert!(table.of(StreamKind::Fetch).is_none());
        let other = Arc::new(Idle(&[StreamKind::Control]));
        let error = Services::new(vec![raft, other]).err().unwrap();
        assert_eq!(error, Error::KindTaken { kind: StreamKind::Control });
        assert!(Services::new(vec![Arc::new(Idle(&[StreamKind::Hello]))]).is_err());
    }
}
