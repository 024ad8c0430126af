//! Frames as bytes, in either form.

use prost::Message;
use serde::Deserialize;

use super::{Client, Item, Server};

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `tidewater.v1.json`: text frames.
    Json,
    /// `tidewater.v1.pb`: binary frames.
    Protobuf,
}

/// The frame of a server in Protobuf: a message with one of its kinds.
#[derive(Clone, PartialEq, Message)]
struct ServerFrame {
    #[prost(oneof = "Server", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    frame: Option<Server>,
}

/// The frame of a client in Protobuf.
#[derive(Clone, PartialEq, Message)]
struct ClientFrame {
    #[prost(oneof = "Client", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    frame: Option<Client>,
}

/// Why a frame cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFrame(pub String);

/// The kinds of frames a client of this version sends.
const CLIENT_KINDS: [&str; 8] = ["hello", "chat", "like", "gift", "pong", "mod", "token", "who"];

impl Server {
    /// The frame as a payload.
    #[must_use]
    pub fn write(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Json => serde_json::to_vec(self).expect("strings, numbers and lists are JSON"),
            Form::Protobuf => ServerFrame { frame: Some(self.clone()) }.encode_to_vec(),
        }
    }

    /// Reads a payload; for clients and tests.
    ///
    /// # Errors
    /// [`BadFrame`].
    pub fn read(payload: &[u8], form: Form) -> Result<Option<Self>, BadFrame> {
        match form {
            Form::Json => serde_json::from_slice(payload).map(Some).map_err(|e| bad(&e)),
            Form::Protobuf => {
                ServerFrame::decode(payload).map(|frame| frame.frame).map_err(|e| bad(&e))
            }
        }
    }
}

impl Client {
    /// The frame as a payload; for clients and tests.
    #[must_use]
    pub fn write(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Json => serde_json::to_vec(self).expect("strings, numbers and lists are JSON"),
            Form::Protobuf => ClientFrame { frame: Some(self.clone()) }.encode_to_vec(),
        }
    }

    /// Reads a payload; `None` is a frame of a kind that later clients send.
    ///
    /// # Errors
    /// [`BadFrame`] says what is wrong.
    pub fn read(payload: &[u8], form: Form) -> Result<Option<Self>, BadFrame> {
        match form {
            // A list of the fields would be read, too.
            Form::Json if payload.trim_ascii_start().first() != Some(&b'{') => {
                Err(BadFrame("a frame is a JSON object".into()))
            }
            Form::Json => match serde_json::from_slice(payload) {
                Ok(frame) => Ok(Some(frame)),
                Err(error) => match kind(payload) {
                    Some(kind) if !CLIENT_KINDS.contains(&kind.as_str()) => Ok(None),
                    Some(_) => Err(bad(&error)),
                    None => Err(BadFrame(format!("no object with a kind \"t\": {error}"))),
                },
            },
            Form::Protobuf => {
                ClientFrame::decode(payload).map(|frame| frame.frame).map_err(|e| bad(&e))
            }
        }
    }
}

impl Item {
    /// The item as nodes send it to each other.
    #[must_use]
    pub fn encode_shared(&self) -> bytes::Bytes {
        self.encode_to_vec().into()
    }

    /// Reads what [`Self::encode_shared`] wrote.
    ///
    /// # Errors
    /// [`BadFrame`].
    pub fn decode_shared(bytes: &[u8]) -> Result<Self, BadFrame> {
        Self::decode(bytes).map_err(|e| bad(&e))
    }
}

/// The kind of a JSON frame, if it is an object with one.
fn kind(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Kind {
        t: String,
    }
    serde_json::from_slice::<Kind>(payload).ok().map(|kind| kind.t)
}

fn bad(error: &dyn std::fmt::Display) -> BadFrame {
    BadFrame(error.to_string())
}
