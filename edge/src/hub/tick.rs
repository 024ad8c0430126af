//! One tick of a room as its members are sent it, rendered once for all of them.
//!
//! In: a batch. Out: whole WebSocket frames, each made when the first member needs it: JSON or Protobuf,
//! full or lean (without chat and arrivals, which `d` counts), plain or deflated. [`Window`] keeps the
//! last ticks, into which members have cursors.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::time::Instant;
use wire::room::model::{Batch, Form};
use wire::room::relay::Whom;
use wire::room::{Lane, Server};

use crate::ws::deflate::deflated;
use crate::ws::frame::{self, Opcode};

/// Ticks kept for those who are behind.
pub(crate) const MAX_TICKS: usize = 64;
/// Bytes of items in them, by the Protobuf form.
pub(crate) const MAX_BYTES: usize = 256 << 10;
/// Payloads shorter than this are not worth deflating.
const MIN_DEFLATED: usize = 256;

/// How a member is sent frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(crate) form: Form,
    pub(crate) deflate: bool,
}

/// One tick.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) at: Instant,
    batch: Batch,
    bytes: usize,
    /// Whose connections end now.
    pub(crate) remove: Vec<Whom>,
    /// By form, leanness, deflation.
    frames: [OnceLock<Bytes>; 8],
}

impl Tick {
    pub(crate) fn new(at: Instant, batch: Batch, remove: Vec<Whom>) -> Self {
        let bytes = prost::Message::encoded_len(&batch);
        Self { at, batch, bytes, remove, frames: Default::default() }
    }

    /// The tick as a frame.
    pub(crate) fn frame(&self, manner: Manner, lean: bool) -> &Bytes {
        let index = usize::from(manner.form == Form::Protobuf) * 4
            + usize::from(lean) * 2
            + usize::from(manner.deflate);
        self.frames[index].get_or_init(|| {
            let batch = if lean { self.lean() } else { self.batch.clone() };
            framed(&Server::B(batch), manner)
        })
    }

    /// The tick as a JSON payload, for an event stream.
    pub(crate) fn json(&self) -> Vec<u8> {
        Server::B(self.batch.clone()).write(Form::Json)
    }

    /// The highest offset covered.
    pub(crate) fn offset(&self) -> u64 {
        self.batch.o
    }

    /// The epoch of positions from here on, if it is a new one.
    pub(crate) fn epoch(&self) -> Option<&str> {
        self.batch.e.as_deref()
    }

    fn lean(&self) -> Batch {
        let mut lean = self.batch.clone();
        let counts = &mut lean.d;
        lean.m.retain(|item| {
            let lane = item.lane();
            let stays = lane < Lane::Chat;
            if !stays {
                *counts.entry(lane.number()).or_default() += 1;
            }
            stays
        });
        lean
    }
}

/// A frame of the server's as a whole WebSocket frame.
pub(crate) fn framed(said: &Server, manner: Manner) -> Bytes {
    let payload = said.write(manner.form);
    let opcode = match manner.form {
        Form::Json => Opcode::Text,
        Form::Protobuf => Opcode::Binary,
    };
    if manner.deflate && payload.len() >= MIN_DEFLATED {
        return frame::compressed(opcode, &deflated(&payload)).into();
    }
    frame::whole(opcode, &payload).into()
}

/// The last ticks of a room.
#[derive(Debug, Default)]
pub(crate) struct Window {
    ticks: VecDeque<Arc<Tick>>,
    /// Number of the first of them.
    first: u64,
    bytes: usize,
}

impl Window {
    pub(crate) fn push(&mut self, tick: Arc<Tick>) {
        self.bytes += tick.bytes;
        self.ticks.push_back(tick);
        while self.ticks.len() > MAX_TICKS || (self.bytes > MAX_BYTES && self.ticks.len() > 1) {
            if let Some(old) = self.ticks.pop_front() {
                self.bytes -= old.bytes;
                self.first += 1;
            }
        }
    }

    /// The number of the tick after the newest.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.ticks.len() as u64
    }

    /// A tick; `Err` if it has left the window, `Ok(None)` if it is yet to come.
    pub(crate) fn get(&self, number: u64) -> Result<Option<&Arc<Tick>>, Gone> {
        let index = number.checked_sub(self.first).ok_or(Gone)?;
        Ok(usize::try_from(index).ok().and_then(|index| self.ticks.get(index)))
    }
}

/// The reader is behind all that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

#[cfg(test)]
mod tests {
    use wire::room::model::{Chat, Gift};
    use wire::room::{Body, Item};

    use super::*;

    fn item(body: Body) -> Item {
        Item { body: Some(body), id: "i".into(), o: Some(1), ts: 0 }
    }

    fn tick(text: &str) -> Tick {
        let chat = item(Body::Chat(Chat { x: text.into(), ..Chat::default() }));
        let gift = item(Body::Gift(Gift { g: "rose".into(), ..Gift::default() }));
        let batch = Batch { o: 1, m: vec![chat, gift], ..Batch::default() };
        Tick::new(Instant::now(), batch, Vec::new())
    }

    #[test]
    fn a_frame_is_made_once_and_lean_ones_say_what_they_lack() {
        let tick = tick("hi");
        let manner = Manner { form: Form::Json, deflate: false };
        let (one, two) = (tick.frame(manner, false).as_ptr(), tick.frame(manner, false).as_ptr());
        assert_eq!(one, two);
        let lean = tick.frame(manner, true);
        let read = Server::read(&lean[2..], Form::Json).unwrap().unwrap();
        let Server::B(batch) = read else { panic!() };
        assert_eq!((batch.m.len(), batch.d.get(&3)), (1, Some(&1)));
    }

    #[test]
    fn the_window_is_bounded_in_number_and_bytes() {
        let mut window = Window::default();
        (0..100).for_each(|_| window.push(Arc::new(tick("x"))));
        assert_eq!((window.next(), window.get(35).err()), (100, Some(Gone)));
        assert!(window.get(36).unwrap().is_some() && window.get(100).unwrap().is_none());
        let mut window = Window::default();
        (0..20).for_each(|_| window.push(Arc::new(tick(&"x".repeat(MAX_BYTES / 4)))));
        assert!(window.bytes <= MAX_BYTES && window.ticks.len() == 3);
    }
}
