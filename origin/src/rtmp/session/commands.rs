//! The commands of an encoder.

use std::time::Instant;

use media::amf0::{self, Amf0};

use super::{Event, Phase, Session};
use crate::rtmp::{Error, address::Address};

/// How many message streams a connection may create; encoders need one.
const MAX_STREAMS: u32 = 16;
/// How much of an encoder's name is kept, in characters.
const MAX_ENCODER_CHARS: usize = 64;

/// What the peer said of itself in `connect`.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// The application as sent; may hold a query with a token.
    pub(super) app: String,
    /// The URL as sent; may hold a query with a token.
    pub(super) tc_url: String,
    /// The encoder's name for itself (`flashVer`), printable and short; empty if it gave none.
    pub encoder: String,
    /// The codecs it may send as enhanced RTMP, by FourCC; `*` is any. Empty for legacy encoders.
    pub four_ccs: Vec<String>,
    /// Its enhanced RTMP abilities: 1 reconnect, 2 multitrack, 4 ModEx, 8 nanosecond offsets.
    pub caps_ex: u32,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // App and URL may hold a token.
        f.debug_struct("Connect")
            .field("encoder", &self.encoder)
            .field("four_ccs", &self.four_ccs)
            .field("caps_ex", &self.caps_ex)
            .finish_non_exhaustive()
    }
}

impl Connect {
    fn from_object(object: &Amf0) -> Self {
        let text = |name| object.get(name).and_then(Amf0::as_str).unwrap_or_default();
        let mut four_ccs: Vec<String> = Vec::new();
        let mut add = |four_cc: &str| {
            // `*` or four characters; anything else is noise.
            let plausible = four_cc == "*" || four_cc.len() == 4;
            if plausible && !four_ccs.iter().any(|known| known == four_cc) {
                four_ccs.push(printable(four_cc));
            }
        };
        let list = object.get("fourCcList").into_iter().flat_map(Amf0::items);
        list.filter_map(Amf0::as_str).for_each(&mut add);
        for map in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
            let members = object.get(map).and_then(Amf0::members).unwrap_or_default();
            members.iter().for_each(|(four_cc, _)| add(four_cc));
        }
        let caps_ex = object.get("capsEx").and_then(Amf0::as_f64).unwrap_or_default();
        Self {
            app: text("app").to_owned(),
            tc_url: text("tcUrl").to_owned(),
            encoder: printable(text("flashVer")),
            four_ccs,
            // A cast from a double saturates; what is out of range is noise.
            caps_ex: caps_ex as u32,
        }
    }

    fn is_enhanced(&self) -> bool {
        !self.four_ccs.is_empty() || self.caps_ex != 0
    }
}

/// A command message: name, transaction, then the command object and what follows it.
struct Command {
    name: String,
    transaction: f64,
    values: Vec<Amf0>,
}

impl Command {
    fn read(payload: &[u8]) -> Result<Self, Error> {
        let mut values = amf0::read_all(payload)?.into_iter();
        let Some(Amf0::String(name)) = values.next() else {
            return Err(Error::protocol("command message", "does not start with a name"));
        };
        // Some encoders send null where they expect no answer.
        let transaction = values.next().and_then(|value| value.as_f64()).unwrap_or_default();
        Ok(Self { name, transaction, values: values.collect() })
    }

    /// The n-th value after the command object.
    fn argument(&self, index: usize) -> Option<&Amf0> {
        self.values.get(index + 1)
    }
}

impl Session {
    pub(super) fn command(
        &mut self,
        now: Instant,
        stream_id: u32,
        payload: &[u8],
    ) -> Result<Option<Event>, Error> {
        let command = Command::read(payload)?;
        if self.connect.is_none() && command.name != "connect" {
            let why = format!("{:?} before connect", printable(&command.name));
            return Err(Error::protocol("command message", why));
        }
        let transaction = command.transaction;
        match command.name.as_str() {
            "connect" => self.on_connect(&command)?,
            "createStream" => self.on_create_stream(transaction)?,
            "publish" => return Ok(self.on_publish(now, stream_id, &command)),
            "deleteStream" => {
                let named = command.argument(0).and_then(Amf0::as_f64);
                return Ok(self.end_publish(now, named));
            }
            "closeStream" => return Ok(self.on_unpublish(now)),
            "FCUnpublish" => {
                self.answer_result(transaction, Amf0::Undefined);
                self.answer_fc("onFCUnpublish", "NetStream.Unpublish.Success");
                return Ok(self.on_unpublish(now));
            }
            "FCPublish" => {
                self.answer_result(transaction, Amf0::Undefined);
                self.answer_fc("onFCPublish", "NetStream.Publish.Start");
            }
            "releaseStream" | "_checkbw" | "FCSubscribe" => {
                self.answer_result(transaction, Amf0::Undefined);
            }
            "getStreamLength" => self.answer_result(transaction, Amf0::from(0.0)),
            // Viewers are served over HTTP; this is where RTMP players would come in.
            "play" | "play2" => {
                let text = "Playing over RTMP is not served; use HLS or HTTP-FLV.";
                self.answer_status(stream_id, "error", "NetStream.Play.Failed", text);
            }
            "_result" | "_error" | "onStatus" => self.skipped += 1,
            _ => {
                self.skipped += 1;
                // Transaction 0 expects no answer (section 7.2.1.2).
                if transaction != 0.0 {
                    let text = "The command is not known here.";
                    self.answer_error(transaction, "NetConnection.Call.Failed", text);
                }
            }
        }
        Ok(None)
    }

    fn on_connect(&mut self, command: &Command) -> Result<(), Error> {
        if self.connect.is_some() {
            return Err(Error::protocol("command message", "connect for the second time"));
        }
        let Some(object) = command.values.first().filter(|object| object.members().is_some())
        else {
            return Err(Error::protocol("command message", "connect without its object"));
        };
        let connect = Connect::from_object(object);
        self.answer_connect(command.transaction, connect.is_enhanced());
        self.connect = Some(connect);
        Ok(())
    }

    fn on_create_stream(&mut self, transaction: f64) -> Result<(), Error> {
        if self.streams_created >= MAX_STREAMS {
            return Err(Error::TooLarge {
                what: "message streams",
                found: u64::from(self.streams_created) + 1,
                limit: MAX_STREAMS.into(),
            });
        }
        self.streams_created += 1;
        self.answer_result(transaction, Amf0::from(f64::from(self.streams_created)));
        Ok(())
    }

    fn on_publish(&mut self, now: Instant, stream_id: u32, command: &Command) -> Option<Event> {
        // `publish(false)` ends it (ActionScript 3, NetStream.publish).
        if command.argument(0).and_then(Amf0::as_bool) == Some(false) {
            return self.on_unpublish(now);
        }
        if self.is_publishing() {
            let text = "This connection publishes already.";
            self.answer_status(stream_id, "error", "NetStream.Publish.BadName", text);
            return None;
        }
        let name = command.argument(0).and_then(Amf0::as_str).unwrap_or_default();
        let connect = self.connect.as_ref()?;
        let address = Address::parse(&connect.app, &connect.tc_url, name);
        self.phase = Phase::Deciding { stream_id };
        Some(Event::PublishRequested { address })
    }

    /// Ends the publish under way and says so.
    fn on_unpublish(&mut self, now: Instant) -> Option<Event> {
        if let Phase::Publishing { stream_id, .. } = self.phase {
            let text = "The publish is over.";
            self.answer_status(stream_id, "status", "NetStream.Unpublish.Success", text);
        }
        self.end_publish(now, None)
    }

    /// Ends the publish under way, unless `named` is another stream.
    fn end_publish(&mut self, now: Instant, named: Option<f64>) -> Option<Event> {
        match self.phase {
            Phase::Publishing { stream_id, .. }
                if named.is_none_or(|named| named == f64::from(stream_id)) =>
            {
                self.phase = Phase::Idle { since: now };
                Some(Event::Unpublished)
            }
            _ => None,
        }
    }
}

/// Text of a peer for logs: short and without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_ENCODER_CHARS).collect()
}
