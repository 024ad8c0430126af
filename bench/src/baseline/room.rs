//! The bound for rooms: messages repeated to everybody with nothing of a room around them.
//!
//! In: WebSocket connections of `run --members N --form plain`. Out: each message to all of them. `Loop` is one
//! thread that writes to each socket and does nothing else, what has come by then in one write: what a server
//! reaches against it says what the server itself costs. `Tokio` is what one writes first: a task for each
//! connection, tokio-websockets, a broadcast channel.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result};
use bytes::{Buf, BytesMut};
use clap::ValueEnum;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::{LocalSet, spawn_local};
use tokio_websockets::{Message, Payload, ServerBuilder};

use super::{MAX_VIEWERS, REQUEST_BYTES};
use crate::limits;

/// The answer to the key that `bench` sends (RFC 6455, 1.3).
const ACCEPT: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Messages that wait for a slow reader in the broadcast channel; it loses the oldest.
const BROADCAST_DEPTH: usize = 1024;
/// The longest message repeated.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// How messages are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Repeater {
    /// One thread, one write for each member.
    Loop,
    /// A task for each member, tokio-websockets, a broadcast channel.
    Tokio,
}

/// Repeats until it is killed. Prints where it listens on stdout.
///
/// # Errors
/// When it cannot listen.
pub(crate) fn serve(listen: SocketAddr, repeater: Repeater) -> Result<()> {
    limits::allow_sockets(MAX_VIEWERS).or_else(|_| limits::allow_sockets(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
        println!("{}", listener.local_addr()?);
        let everybody = Rc::new(Everybody::default());
        let (said, _) = broadcast::channel(BROADCAST_DEPTH);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            match repeater {
                Repeater::Loop => drop(spawn_local(Rc::clone(&everybody).member(socket))),
                Repeater::Tokio => drop(spawn_local(member(socket, said.clone()))),
            }
        }
    })
}

/// All sockets of the bare loop.
#[derive(Default)]
struct Everybody {
    sockets: RefCell<Vec<Rc<TcpStream>>>,
    /// Frames that came since the last walk.
    due: RefCell<Vec<u8>>,
}

impl Everybody {
    async fn member(self: Rc<Self>, mut socket: TcpStream) {
        let mut read = BytesMut::with_capacity(REQUEST_BYTES);
        while !read.ends_with(b"\r\n\r\n") {
            if read.len() > REQUEST_BYTES || !matches!(socket.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        }
        if socket.write_all(ACCEPT).await.is_err() {
            return;
        }
        read.clear();
        let socket = Rc::new(socket);
        self.sockets.borrow_mut().push(Rc::clone(&socket));
        // What is idle holds nothing; the buffer comes with the first message.
        read = BytesMut::new();
        while socket.readable().await.is_ok() {
            read.reserve(REQUEST_BYTES);
            match socket.try_read_buf(&mut read) {
                Ok(1..) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Ok(0) | Err(_) => break,
            }
            while let Some(text) = unmasked(&mut read) {
                self.repeat(&text);
            }
        }
        self.sockets.borrow_mut().retain(|other| !Rc::ptr_eq(other, &socket));
    }

    /// Puts a message down for everybody; the first one starts the walk.
    fn repeat(self: &Rc<Self>, text: &[u8]) {
        let mut due = self.due.borrow_mut();
        let is_first = due.is_empty();
        frame(text, &mut due);
        if is_first {
            let everybody = Rc::clone(self);
            spawn_local(async move {
                let due = std::mem::take(&mut *everybody.due.borrow_mut());
                // Who cannot take a whole frame is thrown out: the loop does never less than it claims.
                everybody
                    .sockets
                    .borrow_mut()
                    .retain(|socket| matches!(socket.try_write(&due), Ok(n) if n == due.len()));
            });
        }
    }
}

/// The text of the client's frame at the front, if it is whole.
fn unmasked(read: &mut BytesMut) -> Option<Vec<u8>> {
    let (head, length) = match *read.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(read.get(2..4)?.try_into().ok()?))),
        127 => return None,
        short => (2, usize::from(short)),
    };
    let mask: [u8; 4] = read.get(head..head + 4)?.try_into().ok()?;
    let masked = read.get(head + 4..head + 4 + length)?;
    let text = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    read.advance(head + 4 + length);
    Some(text)
}

fn frame(text: &[u8], out: &mut Vec<u8>) {
    out.push(0x81);
    match text.len() {
        short @ 0..126 => out.push(short as u8),
        length => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// One connection of the plain broadcast.
async fn member(socket: TcpStream, said: broadcast::Sender<Payload>) {
    let limits = tokio_websockets::Limits::default().max_payload_len(Some(MAX_MESSAGE_BYTES));
    let Ok((_, mut socket)) = ServerBuilder::new().limits(limits).accept(socket).await else {
        return;
    };
    let mut heard = said.subscribe();
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) if message.is_text() => drop(said.send(message.into_payload())),
                Some(Ok(_)) => {}
                _ => return,
            },
            first = heard.recv() => {
                let mut next = match first {
                    Ok(payload) => Some(payload),
                    Err(RecvError::Lagged(_)) => None,
                    Err(RecvError::Closed) => return,
                };
                // What is there by now goes in one flush.
                while let Some(payload) = next {
                    if socket.feed(Message::text(payload)).await.is_err() {
                        return;
                    }
                    next = heard.try_recv().ok();
                }
                if socket.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_repeated_as_it_was_said() {
        for length in [5, 200] {
            let text = vec![b'a'; length];
            let mut said = BytesMut::new();
            said.extend_from_slice(&[0x81]);
            let mut framed = Vec::new();
            frame(&text, &mut framed);
            let head = framed.len() - length;
            said.extend_from_slice(&[framed[1] | 0x80]);
            said.extend_from_slice(&framed[2..head]);
            said.extend_from_slice(&[1, 2, 3, 4]);
            said.extend(text.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, m)| b ^ m));
            let mut partial = BytesMut::from(&said[..said.len() - 1]);
            assert_eq!(unmasked(&mut partial), None);
            assert_eq!(unmasked(&mut said), Some(text));
            assert!(said.is_empty());
        }
    }
}
