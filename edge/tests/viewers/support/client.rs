//! Clients: whole requests over hyper, and raw sockets for everything hyper would not do.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use media::flv::TagKind;
use media::flv::reader::{Reader, Tag};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// Asks one edge.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
}

/// A whole response.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        soon(self.try_send(method, path, headers)).await.unwrap()
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, hyper::Error> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "edge");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// A connection that speaks HTTP/2 from its first byte.
    pub(crate) async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        http2_over(stream).await
    }

    /// A connection on which nothing was said.
    pub(crate) async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// An HTTP-FLV viewer, its response head read.
    pub(crate) async fn flv(&self, path: &str) -> FlvViewer<TcpStream> {
        let mut stream = self.raw().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        FlvViewer::begin(stream).await
    }
}

pub(crate) async fn http2_over(
    stream: impl AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

/// Reads tags as they come.
pub(crate) struct FlvViewer<S> {
    pub(crate) stream: S,
    pub(crate) head: String,
    pub(crate) reader: Reader,
}

impl<S: AsyncRead + Unpin> FlvViewer<S> {
    /// Reads the response head.
    pub(crate) async fn begin(mut stream: S) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.unwrap());
        }
        Self { stream, head: String::from_utf8(head).unwrap(), reader: Reader::new() }
    }

    /// The next tag; none at the end of the response.
    pub(crate) async fn tag(&mut self) -> Option<Tag> {
        loop {
            if let Some(tag) = self.reader.next_tag().unwrap() {
                return Some(tag);
            }
            let mut bytes = vec![0; 64 * 1024];
            let n = soon(self.stream.read(&mut bytes)).await.unwrap();
            if n == 0 {
                return None;
            }
            self.reader.push(&bytes[..n]);
        }
    }

    /// The next media tag that is no sequence header.
    pub(crate) async fn frame(&mut self) -> Option<Tag> {
        loop {
            let tag = self.tag().await?;
            if tag.kind != TagKind::Script && tag.body[1] != 0 {
                return Some(tag);
            }
        }
    }

    /// The next video frame.
    pub(crate) async fn picture(&mut self) -> Option<Tag> {
        loop {
            let tag = self.frame().await?;
            if tag.kind == TagKind::Video {
                return Some(tag);
            }
        }
    }
}

/// Whether a video tag calls itself a key frame.
pub(crate) fn is_key(tag: &Tag) -> bool {
    tag.kind == TagKind::Video && tag.body[0] >> 4 == 1
}
