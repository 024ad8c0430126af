//! A small HTTP/1.1 client that can count a body instead of reading it.
//!
//! In: paths. Out: response heads and bodies; for endless bodies, the bytes as they come. One request
//! at a time on one kept connection, which is what a viewer's player does.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net;

/// The longest head taken.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// The longest body read into memory: a 10 s segment of 25 Mbit/s and room to spare.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Longer than any server may hold a request: three target durations of ten seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(35);
/// What one read asks for while bytes are looked at.
const READ_BYTES: usize = 64 * 1024;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection.
    #[error("connect: {0}")]
    Connect(std::io::Error),
    /// The connection failed.
    #[error("connection: {0}")]
    Broken(#[from] std::io::Error),
    /// The connection ended where more was due.
    #[error("closed early")]
    Closed,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Not HTTP, or more of it than is taken.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// An answer other than the one wanted.
    #[error("HTTP {0}")]
    Status(u16),
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    Close,
}

/// What a response says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// The status code.
    pub(crate) status: u16,
    framing: Framing,
    keeps: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(bytes).map_err(|_| Error::Malformed("response head"))?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        let status = response.code.unwrap_or_default();
        let mut framing = Framing::Close;
        let mut keeps = response.version == Some(1);
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = value.parse().map_err(|_| Error::Malformed("content-length"))?;
                framing = Framing::Length(length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
            } else if header.name.eq_ignore_ascii_case("connection") {
                keeps &= !value.eq_ignore_ascii_case("close");
            }
        }
        if status == 204 || status == 304 {
            framing = Framing::Length(0);
        }
        Ok(Some((Self { status, framing, keeps: keeps && framing != Framing::Close }, length)))
    }
}

/// A connection to a server, opened on the first request and again when the server has closed it.
#[derive(Debug)]
pub(crate) struct Client {
    to: SocketAddr,
    source: Option<IpAddr>,
    host: String,
    socket: Option<TcpStream>,
    ahead: BytesMut,
}

impl Client {
    /// For requests to `host` at `to`, from `source` if there is one.
    #[must_use]
    pub(crate) fn new(to: SocketAddr, source: Option<IpAddr>, host: &str) -> Self {
        Self { to, source, host: host.to_owned(), socket: None, ahead: BytesMut::new() }
    }

    /// Fetches `path` whole.
    ///
    /// # Errors
    /// When it cannot be had, [`Error::Status`] for any answer but 200.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes, Error> {
        let head = self.request(path).await?;
        let body = timeout(RESPONSE_TIMEOUT, self.read_body(head)).await;
        self.finish(head, body)
    }

    /// Fetches `path` and only counts its bytes.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn count(&mut self, path: &str) -> Result<usize, Error> {
        let head = self.request(path).await?;
        let Framing::Length(length) = head.framing else {
            return Ok(self.read_whole(head).await?.len());
        };
        let body = timeout(RESPONSE_TIMEOUT, self.count_body(length)).await;
        self.finish(head, body)
    }

    /// Requests `path` for a body without end, with further head lines.
    ///
    /// # Errors
    /// As [`Self::get`], for any answer but `wanted`.
    pub(crate) async fn stream(
        mut self,
        path: &str,
        lines: &str,
        wanted: u16,
    ) -> Result<Stream, Error> {
        let head = self.request_with(path, lines).await?;
        if head.status != wanted {
            return Err(Error::Status(head.status));
        }
        let socket = self.socket.ok_or(Error::Closed)?;
        let chunked = (head.framing == Framing::Chunked).then(Chunked::default);
        Ok(Stream { socket, ahead: self.ahead, chunked })
    }

    async fn request(&mut self, path: &str) -> Result<Head, Error> {
        self.request_with(path, "").await
    }

    async fn request_with(&mut self, path: &str, lines: &str) -> Result<Head, Error> {
        let kept = self.socket.is_some();
        match self.ask(path, lines).await {
            // A kept connection may have ended for age; a new one is the server's answer.
            Err(Error::Broken(_) | Error::Closed) if kept => {
                self.socket = None;
                self.ask(path, lines).await
            }
            other => other,
        }
        .inspect_err(|_| self.socket = None)
    }

    async fn ask(&mut self, path: &str, lines: &str) -> Result<Head, Error> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => {
                self.ahead.clear();
                let socket = net::connect(self.to, self.source).await.map_err(Error::Connect)?;
                none.insert(socket)
            }
        };
        let host = &self.host;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n{lines}\r\n");
        socket.write_all(request.as_bytes()).await?;
        let head = timeout(RESPONSE_TIMEOUT, read_head(socket, &mut self.ahead)).await;
        head.map_err(|_| Error::Timeout)?
    }

    async fn read_whole(&mut self, head: Head) -> Result<Bytes, Error> {
        let body = timeout(RESPONSE_TIMEOUT, self.read_body(head)).await;
        self.finish(head, body)
    }

    /// Drops the connection where it cannot be used again, and judges the status.
    fn finish<T>(
        &mut self,
        head: Head,
        body: Result<Result<T, Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, Error> {
        let body = body.unwrap_or(Err(Error::Timeout));
        if body.is_err() || !head.keeps {
            self.socket = None;
        }
        if head.status == 200 { body } else { Err(Error::Status(head.status)) }
    }

    async fn read_body(&mut self, head: Head) -> Result<Bytes, Error> {
        let socket = self.socket.as_mut().ok_or(Error::Closed)?;
        match head.framing {
            Framing::Length(length) if length > MAX_BODY_BYTES => {
                Err(Error::Malformed("a body over 64 MiB"))
            }
            Framing::Length(length) => {
                while self.ahead.len() < length {
                    read_more(socket, &mut self.ahead).await?;
                }
                Ok(self.ahead.split_to(length).freeze())
            }
            Framing::Chunked => {
                let mut chunked = Chunked::default();
                let mut body = BytesMut::new();
                while !chunked.take(&mut self.ahead, &mut body)? {
                    if body.len() > MAX_BODY_BYTES {
                        return Err(Error::Malformed("a body over 64 MiB"));
                    }
                    read_more(socket, &mut self.ahead).await?;
                }
                Ok(body.freeze())
            }
            Framing::Close => {
                while socket.read_buf(&mut self.ahead).await? > 0 {
                    if self.ahead.len() > MAX_BODY_BYTES {
                        return Err(Error::Malformed("a body over 64 MiB"));
                    }
                }
                Ok(self.ahead.split().freeze())
            }
        }
    }

    async fn count_body(&mut self, length: usize) -> Result<usize, Error> {
        let socket = self.socket.as_ref().ok_or(Error::Closed)?;
        let mut missing = length.saturating_sub(self.ahead.len());
        self.ahead.clear();
        while missing > 0 {
            let count = net::discard(socket, missing).await?;
            if count == 0 {
                return Err(Error::Closed);
            }
            missing -= count;
        }
        Ok(length)
    }
}

/// A body without end.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    ahead: BytesMut,
    chunked: Option<Chunked>,
}

impl Stream {
    /// The socket, and what was read of it behind the head: after an upgrade.
    pub(crate) fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.socket, self.ahead)
    }

    /// The next bytes; empty at the end.
    ///
    /// # Errors
    /// When the connection fails.
    pub(crate) async fn next(&mut self) -> Result<Bytes, Error> {
        loop {
            if let Some(chunked) = &mut self.chunked {
                let mut body = BytesMut::new();
                let ended = chunked.take(&mut self.ahead, &mut body)?;
                if ended || !body.is_empty() {
                    return Ok(body.freeze());
                }
            } else if !self.ahead.is_empty() {
                return Ok(self.ahead.split().freeze());
            }
            self.ahead.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.ahead).await? == 0 {
                return Ok(Bytes::new());
            }
        }
    }

    /// How many bytes came, transfer coding included; 0 at the end.
    ///
    /// # Errors
    /// When the connection fails.
    pub(crate) async fn count(&mut self) -> Result<usize, Error> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len();
            // Ten thousand viewers: an empty buffer must own nothing.
            self.ahead = BytesMut::new();
            return Ok(count);
        }
        Ok(net::discard(&self.socket, usize::MAX).await?)
    }
}

/// Takes the chunked coding apart (RFC 9112, 7.1).
#[derive(Debug, Default)]
struct Chunked {
    /// Bytes of the chunk still to come, its line end included.
    left: usize,
    last: bool,
}

impl Chunked {
    /// Moves what is there of the body from `from` to `into`; says whether it was the end.
    fn take(&mut self, from: &mut BytesMut, into: &mut BytesMut) -> Result<bool, Error> {
        loop {
            if self.left > 2 {
                let data = (self.left - 2).min(from.len());
                into.extend_from_slice(&from.split_to(data));
                self.left -= data;
            }
            if self.left > 2 || from.len() < self.left {
                return Ok(false);
            }
            from.advance(self.left);
            self.left = 0;
            if self.last {
                return Ok(true);
            }
            match httparse::parse_chunk_size(from) {
                Ok(httparse::Status::Partial) => return Ok(false),
                Ok(httparse::Status::Complete((line, size))) => {
                    from.advance(line);
                    self.last = size == 0;
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    self.left = size.saturating_add(2);
                }
                Err(_) => return Err(Error::Malformed("chunk size")),
            }
        }
    }
}

async fn read_head(socket: &mut TcpStream, ahead: &mut BytesMut) -> Result<Head, Error> {
    loop {
        if let Some((head, length)) = Head::parse(ahead)? {
            ahead.advance(length);
            return Ok(head);
        }
        if ahead.len() > MAX_HEAD_BYTES {
            return Err(Error::Malformed("a head over 16 KiB"));
        }
        read_more(socket, ahead).await?;
    }
}

async fn read_more(socket: &mut TcpStream, ahead: &mut BytesMut) -> Result<(), Error> {
    ahead.reserve(4096);
    match socket.read_buf(ahead).await? {
        0 => Err(Error::Closed),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that says `answer` once and closes when the client is done with it.
    async fn serve(answer: &'static [u8]) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = peer.read(&mut request).await.unwrap();
                for piece in answer.chunks(7) {
                    peer.write_all(piece).await.unwrap();
                    peer.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        Client::new(to, None, "test")
    }

    const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\n\r\n";
    const CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n0123456789";

    #[tokio::test]
    async fn every_framing_gives_the_body() {
        for answer in [LENGTH, CHUNKED, CLOSE] {
            let mut client = serve(answer).await;
            for _ in 0..2 {
                assert_eq!(client.get("/x").await.unwrap(), "0123456789");
                assert_eq!(client.count("/x").await.unwrap(), 10);
            }
            let mut stream = serve(answer).await.stream("/x", "", 200).await.unwrap();
            let mut body = Vec::new();
            while body.len() < 10 {
                body.extend(stream.next().await.unwrap());
            }
            assert_eq!(body, b"0123456789");
        }
    }

    #[tokio::test]
    async fn what_is_not_a_full_answer_is_an_error() {
        let get = async |answer| serve(answer).await.get("/x").await.unwrap_err().to_string();
        assert_eq!(get(b"HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx").await, "HTTP 404");
        assert_eq!(get(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx").await, "closed early");
        assert_eq!(get(b"HTTP/1.1 200 OK\r\nContent").await, "closed early");
        assert_eq!(get(b"FLV\x01 what is this\r\n\r\n").await, "malformed: response head");
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n";
        assert_eq!(get(chunked).await, "malformed: chunk size");
    }
}
