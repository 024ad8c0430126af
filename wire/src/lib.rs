//! What Tidewater's nodes say to each other: names, messages, framing, and the QUIC endpoint that
//! carries them. Media is opaque bytes here.

pub mod id;

pub use id::{ClusterId, Epoch, Generation, IdError, NodeId, Region, RoomId};
