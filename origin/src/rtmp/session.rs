//! The server's side of an RTMP connection: bytes in, events and answers out.
//!
//! In: bytes of an untrusted encoder, the time, and the shell's decision on a publish. Out: at most
//! one [`Event`] per call, so that nothing queues up in here, and answers to be sent
//! ([`Session::take_output`]). It owns no socket, clock or task; [`super::connection`] does.
//!
//! Media passes through as it came: neither payload (legacy or enhanced RTMP) nor timestamps are
//! looked into. One connection publishes one room at a time. Playing is refused.
//! Source: Adobe "RTMP 1.0" (2012) section 7; "Enhanced RTMP" v2 (Veovera, 2025) for `connect`.

mod answers;
mod commands;

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use media::{Error as ValueError, amf0::Amf0};

pub use commands::Connect;

use super::{
    Error,
    address::{Address, AddressError},
    aggregate::Aggregate,
    chunk::{self, first_u32},
    handshake::Handshake,
    message::{Limits, Message, kind},
};

/// How long a peer may take over C0 to C2.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long a peer may be connected without publishing.
pub const PUBLISH_TIME: Duration = Duration::from_secs(10);
/// How long a publisher may send no audio or video.
pub const MEDIA_TIME: Duration = Duration::from_secs(10);
/// How many bytes a peer may send before its first publish is accepted. An encoder needs about 1 KiB;
/// without a bound a stranger could keep a core busy until [`PUBLISH_TIME`] is over.
pub const MAX_STRANGER_BYTES: u64 = 256 * 1024;
/// How many bytes of answers may wait to be sent; beyond that the peer asks without listening.
pub const MAX_OUTPUT_BYTES: usize = 8 * 1024;

/// What the peer wants or sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It wants to publish. The session takes no more input until it is told
    /// [`Session::accept_publish`] or [`Session::close`].
    PublishRequested {
        /// Where to; or why that is no room.
        address: Result<Address, AddressError>,
    },
    /// `onMetaData` of the publish under way.
    Metadata {
        /// As in [`Event::Video`].
        timestamp_ms: u32,
        /// The body of an FLV script tag: the name `onMetaData` and the value.
        payload: Bytes,
        /// The value, read.
        value: Amf0,
    },
    /// A video message: the body of an FLV video tag.
    Video {
        /// Milliseconds modulo 2^32 on the encoder's clock, as they came.
        timestamp_ms: u32,
        /// The body, in a buffer of its own.
        payload: Bytes,
    },
    /// An audio message: the body of an FLV audio tag.
    Audio {
        /// As in [`Event::Video`].
        timestamp_ms: u32,
        /// The body, in a buffer of its own.
        payload: Bytes,
    },
    /// The publish is over by the peer's own will; the connection may publish again.
    Unpublished,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    /// Whether a publish was ever accepted, so that the peer is no stranger.
    known: bool,
    chunks: chunk::Reader,
    writer: chunk::Writer,
    output: Vec<u8>,
    /// Messages of an aggregate not yet given out.
    aggregate: Option<Aggregate>,
    connect: Option<Connect>,
    streams_created: u32,
    received: Received,
    skipped: u64,
}

#[derive(Debug)]
enum Phase {
    /// Until C2 is in.
    Handshake { handshake: Box<Handshake>, since: Instant },
    /// Between handshake and publish, and after a publish.
    Idle { since: Instant },
    /// A publish waits for the shell's decision.
    Deciding { stream_id: u32 },
    /// Media flows.
    Publishing { stream_id: u32, last_media: Instant },
    /// Refused or ended by us: only output is left.
    Closed,
}

/// What was received and acknowledged (section 5.4.3).
#[derive(Debug, Default)]
struct Received {
    bytes: u64,
    acknowledged: u64,
    /// The peer wants an acknowledgement every so many bytes; 0 until it says so.
    window: u64,
}

impl Session {
    /// The session of a connection accepted at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self::in_phase(Phase::Handshake { handshake: Box::default(), since: now })
    }

    /// A session whose handshake is done, for fuzzers and tests of what comes after it.
    #[must_use]
    pub fn after_handshake(now: Instant) -> Self {
        Self::in_phase(Phase::Idle { since: now })
    }

    fn in_phase(phase: Phase) -> Self {
        Self {
            phase,
            known: false,
            chunks: chunk::Reader::new(Limits::STRANGER),
            writer: chunk::Writer::default(),
            output: Vec::new(),
            aggregate: None,
            connect: None,
            streams_created: 0,
            received: Received::default(),
            skipped: 0,
        }
    }

    /// Takes bytes off the front of `input` until there is an event or `input` is used up. While a
    /// publish is undecided nothing is taken.
    ///
    /// # Errors
    /// Any [`Error`] but those of time and socket; the connection is then to be closed.
    pub fn receive(&mut self, now: Instant, input: &mut &[u8]) -> Result<Option<Event>, Error> {
        loop {
            if matches!(self.phase, Phase::Deciding { .. }) {
                return Ok(None);
            }
            let Some(message) = self.next_message(now, input)? else { return Ok(None) };
            let event = self.message(now, message)?;
            if self.output.len() > MAX_OUTPUT_BYTES {
                let found = self.output.len();
                return Err(Error::too_large("bytes of unsent answers", found, MAX_OUTPUT_BYTES));
            }
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// The answers to be sent, in order; empties them.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Tells the peer that it may publish. Does nothing unless a publish is undecided.
    pub fn accept_publish(&mut self, now: Instant) {
        if let Phase::Deciding { stream_id } = self.phase {
            self.known = true;
            self.chunks.set_limits(Limits::PUBLISHER);
            self.answer_stream_begin(stream_id);
            let text = "Publishing.";
            self.answer_status(stream_id, "status", "NetStream.Publish.Start", text);
            self.phase = Phase::Publishing { stream_id, last_media: now };
        }
    }

    /// Says that the room took the last media at `now`. Until then the peer was not read, so the wait
    /// is not its silence.
    pub fn delivered(&mut self, now: Instant) {
        if let Phase::Publishing { last_media, .. } = &mut self.phase {
            *last_media = now;
        }
    }

    /// Refuses the publish that is undecided, or ends the one under way: tells the peer `code` and
    /// `description`. All further input is thrown away; send the output, then close the connection.
    pub fn close(&mut self, code: &str, description: &str) {
        if let Phase::Deciding { stream_id } | Phase::Publishing { stream_id, .. } = self.phase {
            self.answer_status(stream_id, "error", code, description);
        }
        self.aggregate = None;
        self.phase = Phase::Closed;
    }

    /// When [`Session::on_deadline`] is to be asked, unless something was received before.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.deadline().map(|(at, ..)| at)
    }

    /// Checks the deadline.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it has passed.
    pub fn on_deadline(&self, now: Instant) -> Result<(), Error> {
        match self.deadline() {
            Some((at, what, after)) if now >= at => Err(Error::TimedOut { what, after }),
            _ => Ok(()),
        }
    }

    fn deadline(&self) -> Option<(Instant, &'static str, Duration)> {
        match self.phase {
            Phase::Handshake { since, .. } => {
                Some((since + HANDSHAKE_TIME, "handshake", HANDSHAKE_TIME))
            }
            Phase::Idle { since } => Some((since + PUBLISH_TIME, "publish", PUBLISH_TIME)),
            Phase::Publishing { last_media, .. } => {
                Some((last_media + MEDIA_TIME, "audio or video", MEDIA_TIME))
            }
            Phase::Deciding { .. } | Phase::Closed => None,
        }
    }

    /// What the peer said of itself in `connect`.
    #[must_use]
    pub fn connect(&self) -> Option<&Connect> {
        self.connect.as_ref()
    }

    /// Whether media is flowing.
    #[must_use]
    pub fn is_publishing(&self) -> bool {
        matches!(self.phase, Phase::Publishing { .. })
    }

    /// How many messages were passed over because they mean nothing here or could not be read and
    /// do not matter.
    #[must_use]
    pub fn skipped_messages(&self) -> u64 {
        self.skipped
    }

    /// Bytes held for incomplete messages and unsent answers.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.chunks.partial_bytes() + self.output.capacity()
    }

    fn limits(&self) -> Limits {
        if self.known { Limits::PUBLISHER } else { Limits::STRANGER }
    }

    fn next_message(&mut self, now: Instant, input: &mut &[u8]) -> Result<Option<Message>, Error> {
        let limits = self.limits();
        if let Some(aggregate) = &mut self.aggregate {
            if let Some(message) = aggregate.next(limits)? {
                return Ok(Some(message));
            }
            self.aggregate = None;
        }
        let before = input.len();
        let result = match &mut self.phase {
            Phase::Closed => {
                *input = &[];
                return Ok(None);
            }
            Phase::Handshake { handshake, .. } => {
                if handshake.receive(input, &mut self.output)? {
                    self.phase = Phase::Idle { since: now };
                    self.chunks.next(input)
                } else {
                    Ok(None)
                }
            }
            _ => self.chunks.next(input),
        };
        self.count_received(before - input.len())?;
        result
    }

    fn count_received(&mut self, bytes: usize) -> Result<(), Error> {
        let received = &mut self.received;
        received.bytes += bytes as u64;
        if !self.known && received.bytes > MAX_STRANGER_BYTES {
            return Err(Error::TooLarge {
                what: "bytes before publishing",
                found: received.bytes,
                limit: MAX_STRANGER_BYTES,
            });
        }
        if received.window > 0 && received.bytes - received.acknowledged >= received.window {
            received.acknowledged = received.bytes;
            // The sequence number wraps at 2^32 (section 5.4.3).
            let sequence = u32::try_from(received.bytes & u64::from(u32::MAX)).unwrap_or(0);
            self.answer_control(kind::ACKNOWLEDGEMENT, &sequence.to_be_bytes());
        }
        Ok(())
    }

    fn message(&mut self, now: Instant, message: Message) -> Result<Option<Event>, Error> {
        let Message { timestamp_ms, payload, .. } = &message;
        match message.kind {
            kind::AUDIO | kind::VIDEO => Ok(self.media(now, message)),
            kind::DATA_AMF0 => self.data(*timestamp_ms, payload.clone()),
            kind::DATA_AMF3 => self.data(*timestamp_ms, without_amf3_prefix(payload.clone())),
            kind::COMMAND_AMF0 => self.command(now, message.stream_id, payload),
            kind::COMMAND_AMF3 => {
                let payload = without_amf3_prefix(payload.clone());
                self.command(now, message.stream_id, &payload)
            }
            kind::AGGREGATE => {
                // An aggregate inside another one would make the work a matter of nesting.
                if self.aggregate.is_some() {
                    return Err(Error::protocol("aggregate message", "inside another one"));
                }
                self.aggregate = Some(Aggregate::new(message));
                Ok(None)
            }
            kind::USER_CONTROL => self.user_control(payload).map(|()| None),
            kind::WINDOW_ACK_SIZE => {
                self.received.window = first_u32("window acknowledgement size", payload)?.into();
                Ok(None)
            }
            kind::SET_PEER_BANDWIDTH => {
                // It limits what we send, which is next to nothing; the answer is all it needs.
                first_u32("set peer bandwidth", payload)?;
                self.answer_window_ack_size();
                Ok(None)
            }
            kind::ACKNOWLEDGEMENT => Ok(None),
            _ => {
                self.skipped += 1;
                Ok(None)
            }
        }
    }

    /// Media counts for whichever message stream it names: a connection publishes one room.
    fn media(&mut self, now: Instant, message: Message) -> Option<Event> {
        let Phase::Publishing { last_media, .. } = &mut self.phase else {
            // What was on its way when the publish ended.
            self.skipped += 1;
            return None;
        };
        *last_media = now;
        let Message { timestamp_ms, payload, .. } = message;
        Some(match message.kind {
            kind::AUDIO => Event::Audio { timestamp_ms, payload },
            _ => Event::Video { timestamp_ms, payload },
        })
    }

    /// `@setDataFrame onMetaData value` or just `onMetaData value`. Metadata is only advice, so one
    /// that cannot be read is passed over; one that breaks a limit is an attack.
    fn data(&mut self, timestamp_ms: u32, payload: Bytes) -> Result<Option<Event>, Error> {
        match read_metadata(payload) {
            Ok(Some((payload, value))) if self.is_publishing() => {
                Ok(Some(Event::Metadata { timestamp_ms, payload, value }))
            }
            Err(error @ ValueError::TooLarge { .. }) => Err(error.into()),
            Ok(_) | Err(_) => {
                self.skipped += 1;
                Ok(None)
            }
        }
    }

    /// Only ping needs an answer (sections 6.2 and 7.1.7).
    fn user_control(&mut self, payload: &[u8]) -> Result<(), Error> {
        const PING_REQUEST: u16 = 6;
        const WHAT: &str = "user control message";
        let Some(event) = payload.first_chunk() else {
            return Err(Error::protocol(WHAT, format!("{} bytes; 2 are needed", payload.len())));
        };
        if u16::from_be_bytes(*event) == PING_REQUEST {
            let Some(time) = payload[2..].first_chunk::<4>() else {
                return Err(Error::protocol(WHAT, "a ping request has no time"));
            };
            self.answer_ping(*time);
        }
        Ok(())
    }
}

/// Messages in AMF3 start with a byte that says 0: what follows is AMF0, with AMF3 values behind a
/// marker of their own. Encoders that use these messages send plain AMF0 in them.
fn without_amf3_prefix(mut payload: Bytes) -> Bytes {
    if payload.first() == Some(&0) {
        payload.advance(1);
    }
    payload
}

/// The script tag in a data message, and its value; `None` if it is no metadata.
fn read_metadata(mut payload: Bytes) -> Result<Option<(Bytes, Amf0)>, ValueError> {
    let mut reader = media::amf0::Reader::new(&payload);
    let mut name = reader.value()?;
    if name.as_str() == Some("@setDataFrame") {
        let prefix = payload.len() - reader.rest().len();
        name = reader.value()?;
        if name.as_str() == Some("onMetaData") {
            let value = reader.value()?;
            payload.advance(prefix);
            return Ok(Some((payload, value)));
        }
    }
    if name.as_str() == Some("onMetaData") {
        let value = reader.value()?;
        return Ok(Some((payload, value)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
