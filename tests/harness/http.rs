//! Asks over HTTP/1.1 as a simple client would.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any request may be held.
const LIMIT: Duration = Duration::from_secs(40);

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// `GET path`.
///
/// # Errors
/// When the connection fails or the answer takes too long.
pub async fn get(to: SocketAddr, path: &str) -> Result<Answer> {
    request(to, "GET", path, &[]).await
}

/// Any method, with headers.
///
/// # Errors
/// When the connection fails or the answer takes too long.
pub async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    send(to, method, path, headers, Bytes::new()).await
}

/// `POST path` with a JSON body.
///
/// # Errors
/// When the connection fails or the answer takes too long.
pub async fn post(to: SocketAddr, path: &str, body: &serde_json::Value) -> Result<Answer> {
    let headers = [("content-type", "application/json")];
    send(to, "POST", path, &headers, body.to_string().into()).await
}

/// `PUT path` with a JSON body.
///
/// # Errors
/// When the connection fails or the answer takes too long.
pub async fn put(to: SocketAddr, path: &str, body: &serde_json::Value) -> Result<Answer> {
    let headers = [("content-type", "application/json")];
    send(to, "PUT", path, &headers, body.to_string().into()).await
}

async fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer> {
    let asked = async {
        let stream = TcpStream::connect(to).await.with_context(|| format!("connect to {to}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request =
            Request::builder().method(method).uri(path).header("host", to.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        connection.abort();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    timeout(LIMIT, asked).await.with_context(|| format!("{method} {path} takes too long"))?
}
