//! What Tidewater's nodes say to each other: names, messages, framing, and the QUIC endpoint that
//! carries them. Media is opaque bytes here.

pub mod control;
pub mod id;
pub mod replica;

pub use id::{ClusterId, Epoch, Generation, IdError, NodeId, Region, RoomId};
