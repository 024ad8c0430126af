//! The bound: a bare loop of sends, with nothing of a server around it.
//!
//! In: an interval and a bit rate. Out: to everybody who connects, an FLV response that costs one `send`
//! for each viewer and interval and nothing else. What a server reaches against it, at the same
//! interval in the same run, says how much the server itself costs. A viewer that cannot take a whole chunk at
//! once is thrown out, so that the loop never does less than it claims.

pub(crate) mod room;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, BytesMut};
use media::flv::TagKind;
use tokio::runtime::Builder;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::limits;
use crate::stamp::{self, DIGITS_AT, Stamp, now_micros};

/// A response that says nothing but what follows; then the FLV header (FLV, E.2).
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\nConnection: close\r\n\r\n\
    FLV\x01\x01\x00\x00\x00\x09\x00\x00\x00\x00";
/// Inter frame of codec 7, a NAL unit, composition time 0 (FLV, E.4.3.1).
const PICTURE: [u8; 5] = [0x27, 1, 0, 0, 0];
const TAG_HEADER: usize = 11;
const PREVIOUS_TAG_SIZE: usize = 4;
/// Viewers at most.
const MAX_VIEWERS: u64 = 20_000;
/// The longest request head read.
const REQUEST_BYTES: usize = 2048;

/// What the loop sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Between two sends to the same viewer.
    pub(crate) interval: Duration,
    /// To each viewer.
    pub(crate) bits_per_second: u64,
}

/// Sends until it is killed. Prints where it listens on stdout.
///
/// # Errors
/// When it cannot listen, or the load is nothing.
pub(crate) fn serve(listen: SocketAddr, load: Load) -> Result<()> {
    limits::allow_sockets(MAX_VIEWERS).or_else(|_| limits::allow_sockets(1))?;
    let listener =
        TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let mut chunk = Chunk::new(load)?;
    let mut viewers = Vec::new();
    Builder::new_current_thread().enable_time().build()?.block_on(async {
        let started = Instant::now();
        let mut ticks = interval(load.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            accept(&listener, &mut viewers);
            chunk.mark(started.elapsed());
            viewers.retain_mut(|viewer| chunk.send(viewer));
        }
    })
}

struct Viewer {
    socket: TcpStream,
    /// Whether it has asked yet.
    asked: bool,
}

fn accept(listener: &TcpListener, viewers: &mut Vec<Viewer>) {
    while let Ok((socket, _)) = listener.accept() {
        if socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)).is_ok() {
            viewers.push(Viewer { socket, asked: false });
        }
    }
}

/// One FLV tag as large as what is due in an interval.
struct Chunk {
    bytes: BytesMut,
    sequence: u32,
}

impl Chunk {
    fn new(load: Load) -> Result<Self> {
        let due = load.bits_per_second as f64 / 8.0 * load.interval.as_secs_f64();
        let around = TAG_HEADER + PICTURE.len() + stamp::STAMP_BYTES + PREVIOUS_TAG_SIZE;
        let filler = stamp::filler((due as usize).saturating_sub(around));
        let body = PICTURE.len() + stamp::STAMP_BYTES + filler.len();
        ensure!(!filler.is_empty(), "{due:.0} bytes an interval are too few");
        ensure!(body <= media::flv::MAX_BODY_BYTES, "{due:.0} bytes an interval are too many");
        let mut bytes = BytesMut::with_capacity(due as usize + around);
        bytes.put_u8(TagKind::Video as u8);
        bytes.put_uint(body as u64, 3);
        bytes.put_bytes(0, TAG_HEADER - 4);
        bytes.put_slice(&PICTURE);
        bytes.put_slice(&stamp::blank());
        bytes.put_slice(&filler);
        bytes.put_u32((TAG_HEADER + body) as u32);
        Ok(Self { bytes, sequence: 0 })
    }

    /// Stamps it with the time and gives it its timestamp.
    fn mark(&mut self, at: Duration) {
        let [high, low @ ..] = (at.as_millis() as u32).to_be_bytes();
        self.bytes[4..7].copy_from_slice(&low);
        self.bytes[7] = high;
        let stamp = Stamp { micros: now_micros(), sequence: self.sequence };
        stamp.write(&mut self.bytes[TAG_HEADER + PICTURE.len() + DIGITS_AT..]);
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// Says whether the viewer stays.
    fn send(&self, viewer: &mut Viewer) -> bool {
        if !viewer.asked {
            match viewer.socket.read(&mut [0; REQUEST_BYTES]) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
            viewer.asked = true;
            if !matches!(viewer.socket.write(HEAD), Ok(n) if n == HEAD.len()) {
                return false;
            }
        }
        matches!(viewer.socket.write(&self.bytes), Ok(n) if n == self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use media::flv::reader::Reader;

    use super::*;

    #[test]
    fn chunks_are_flv_of_the_size_asked_for() {
        let load = Load { interval: Duration::from_millis(33), bits_per_second: 2_000_000 };
        let mut chunk = Chunk::new(load).unwrap();
        assert!(chunk.bytes.len().abs_diff(8250) < 100, "{}", chunk.bytes.len());
        chunk.mark(Duration::from_millis(0x0123_4567));
        let mut reader = Reader::new();
        reader.push(&HEAD[HEAD.len() - 13..]);
        reader.push(&chunk.bytes);
        let tag = reader.next_tag().unwrap().unwrap();
        assert_eq!(tag.timestamp_ms, 0x0123_4567);
        assert_eq!(stamp::find(&tag.body).next().unwrap().sequence, 0);
        let nothing = Load { interval: Duration::from_millis(1), bits_per_second: 1000 };
        assert!(Chunk::new(nothing).is_err());
    }
}
