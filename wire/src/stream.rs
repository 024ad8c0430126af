//! The two halves of a stream between nodes: frames and messages in, frames and messages out.
//!
//! In: a QUIC stream, from [`crate::endpoint`] or opened by [`crate::endpoint::Peer`]. Out: whole
//! frames (see [`crate::frame`]) and messages. Every write is under a time-out, every read under a
//! limit of the caller's. What the messages mean is not known here.

use std::time::Duration;

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{
    Error,
    error::ResetCode,
    frame::{FrameDecoder, decode_message, encode_message, length_prefix},
    service::StreamKind,
};

/// How long a write may wait for the peer to let it go on before it fails. The peer reads nothing
/// for so long only if it hangs.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes taken off the transport at once.
const READ_CHUNK_BYTES: usize = 64 << 10;

/// The half of a stream this side writes.
///
/// [`Sender::finish`] ends it well; dropped without, it is reset with [`ResetCode::Cancelled`], so
/// that the peer never takes a torn stream for a whole one.
#[derive(Debug)]
pub struct Sender {
    stream: SendStream,
    timeout: Duration,
    is_ended: bool,
}

impl Sender {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self { stream, timeout: WRITE_TIMEOUT, is_ended: false }
    }

    /// Sets how long a write may make no progress; [`WRITE_TIMEOUT`] before.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Writes a message as one frame.
    ///
    /// Not cancel-safe: a dropped or failed write leaves half a frame; drop the sender then.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Reset`] if the peer wants no more, [`Error::TooLarge`] over
    /// [`crate::frame::MAX_FRAME_BYTES`], or how the connection ended.
    pub async fn write_message<T: Serialize>(&mut self, message: &T) -> Result<(), Error> {
        let frame = encode_message(std::any::type_name::<T>(), message)?;
        self.write_chunks(&mut [frame]).await
    }

    /// Writes opaque bytes as one frame, without copying them.
    ///
    /// # Errors
    /// As [`Sender::write_message`], and as little cancel-safe.
    pub async fn write_frame(&mut self, frame: Bytes) -> Result<(), Error> {
        let length = length_prefix(frame.len())?;
        self.write_chunks(&mut [length, frame]).await
    }

    /// Writes several buffers as one frame, without joining or copying them.
    ///
    /// # Errors
    /// As [`Sender::write_message`], and as little cancel-safe.
    pub async fn write_frame_parts(&mut self, parts: &[Bytes]) -> Result<(), Error> {
        let mut chunks = Vec::with_capacity(1 + parts.len());
        chunks.push(length_prefix(parts.iter().map(Bytes::len).sum())?);
        chunks.extend_from_slice(parts);
        self.write_chunks(&mut chunks).await
    }

    /// Ends the stream: what was written is delivered, then the peer reads the end. Delivery goes
    /// on after the sender is dropped, as long as the connection lasts.
    pub fn finish(&mut self) {
        // Already ended or stopped by the peer: either way there is nothing left to say.
        let _ = self.stream.finish();
        self.is_ended = true;
    }

    /// Ends the stream at once; bytes not yet delivered may be lost.
    pub fn reset(&mut self, code: ResetCode) {
        let _ = self.stream.reset(code.varint());
        self.is_ended = true;
    }

    /// Sets the priority of this stream's bytes over those of the connection's other streams:
    /// higher goes first, 0 is where streams begin.
    pub fn set_priority(&mut self, priority: i32) {
        // Fails only on a stream that is closed, whose bytes no longer compete.
        let _ = self.stream.set_priority(priority);
    }

    /// Waits until the peer wants no more (its code), or has all of a finished stream (`None`).
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn stopped(&mut self) -> Result<Option<ResetCode>, Error> {
        match self.stream.stopped().await {
            Ok(code) => Ok(code.map(|code| ResetCode::from_number(code.into_inner()))),
            Err(quinn::StoppedError::ConnectionLost(lost)) => Err(Error::from_connection(&lost)),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(Error::StreamClosed),
        }
    }

    pub(crate) async fn write_kind(&mut self, kind: StreamKind) -> Result<(), Error> {
        self.write_chunks(&mut [Bytes::copy_from_slice(&[kind.byte()])]).await
    }

    /// Writes all of `chunks`. The time-out is for each step forward, so that a large frame over a
    /// slow link is no failure, and a peer that hangs is.
    async fn write_chunks(&mut self, mut chunks: &mut [Bytes]) -> Result<(), Error> {
        while !chunks.is_empty() {
            let written = match timeout(self.timeout, self.stream.write_chunks(chunks)).await {
                Ok(written) => written.map_err(|error| Error::from_write(&error))?,
                Err(_) => {
                    let what = "writing to the peer";
                    return Err(Error::TimedOut { what, after: self.timeout });
                }
            };
            chunks = &mut chunks[written.chunks..];
        }
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.is_ended {
            self.reset(ResetCode::Cancelled);
        }
    }
}

/// The half of a stream the peer writes. Dropped before its end, it tells the peer
/// [`ResetCode::Cancelled`].
///
/// All reads are cancel-safe: a read that is dropped and begun anew loses nothing.
#[derive(Debug)]
pub struct Receiver {
    stream: RecvStream,
    decoder: FrameDecoder,
    /// What came off the transport and is not yet in a frame; at most [`READ_CHUNK_BYTES`].
    unread: Bytes,
}

impl Receiver {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: FrameDecoder::default(), unread: Bytes::new() }
    }

    /// Reads the next frame of at most `limit` bytes; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Invalid`] for a bad length, upon which the peer is told
    /// [`ResetCode::BadMessage`]; [`Error::Truncated`] if the stream ends inside a frame;
    /// [`Error::Reset`] if the peer gave it up; or how the connection ended.
    pub async fn read_frame(&mut self, limit: usize) -> Result<Option<Bytes>, Error> {
        loop {
            match self.decoder.push(&mut self.unread, limit) {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(error) => {
                    self.stop(ResetCode::BadMessage);
                    return Err(error);
                }
            }
            if !self.fill().await? {
                return match self.decoder.is_inside_frame() {
                    true => Err(Error::Truncated { what: "frame" }),
                    false => Ok(None),
                };
            }
        }
    }

    /// Reads the next message, whose frame is at most `limit` bytes; `None` at the end.
    ///
    /// # Errors
    /// As [`Receiver::read_frame`]; [`Error::Invalid`] also if the frame is no such message.
    pub async fn read_message<T>(&mut self, limit: usize) -> Result<Option<T>, Error>
    where
        T: DeserializeOwned,
    {
        let Some(frame) = self.read_frame(limit).await? else { return Ok(None) };
        match decode_message(std::any::type_name::<T>(), &frame) {
            Ok(message) => Ok(Some(message)),
            Err(error) => {
                self.stop(ResetCode::BadMessage);
                Err(error)
            }
        }
    }

    /// Reads a message that must come, and within `within`: the answer to a request.
    ///
    /// # Errors
    /// As [`Receiver::read_message`]; [`Error::TimedOut`]; [`Error::Truncated`] if the stream ends
    /// instead.
    pub async fn read_answer<T>(&mut self, limit: usize, within: Duration) -> Result<T, Error>
    where
        T: DeserializeOwned,
    {
        match timeout(within, self.read_message(limit)).await {
            Ok(message) => message?.ok_or(Error::Truncated { what: std::any::type_name::<T>() }),
            Err(_) => Err(Error::TimedOut { what: "the peer's answer", after: within }),
        }
    }

    /// Tells the peer to send no more on this stream.
    pub fn stop(&mut self, code: ResetCode) {
        // Fails only on a stream that has ended already.
        let _ = self.stream.stop(code.varint());
    }

    /// Waits until the peer resets the stream (its code) or all of it has been received (`None`).
    /// For the service that writes and reads nothing more, to see that the peer has left.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn gone(&mut self) -> Result<Option<ResetCode>, Error> {
        match self.stream.received_reset().await {
            Ok(code) => Ok(code.map(|code: VarInt| ResetCode::from_number(code.into_inner()))),
            Err(quinn::ResetError::ConnectionLost(lost)) => Err(Error::from_connection(&lost)),
            Err(quinn::ResetError::ZeroRttRejected) => Err(Error::StreamClosed),
        }
    }

    /// Reads the first byte of the stream; `None` if the stream ends before it.
    pub(crate) async fn read_kind(&mut self) -> Result<Option<u8>, Error> {
        if self.unread.is_empty() && !self.fill().await? {
            return Ok(None);
        }
        Ok(Some(self.unread.split_to(1)[0]))
    }

    /// Waits for more bytes; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, Error> {
        // An emptied slice would go on holding its packet's buffer while the stream is idle.
        self.unread = Bytes::new();
        match self.stream.read_chunk(READ_CHUNK_BYTES, true).await {
            Ok(Some(chunk)) => {
                self.unread = chunk.bytes;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(Error::from_read(&error)),
        }
    }
}
