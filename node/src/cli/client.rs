//! Asks a node's admin listener.
//!
//! In: a path and, maybe, a body. Out: the JSON of the answer, or an error that says in one line what
//! was wrong and what to do. One request a connection; everything under [`TIMEOUT`].

use std::{io::ErrorKind, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use super::Ask;
use crate::{
    admin::{problem::Problem, view::REVISION_HEADER},
    config::{Config, Secret, Sources},
};

/// How long an answer may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer read, in bytes: a page of rooms is some 100 KiB.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How long a backup may take, and how large it may be.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(90);
const MAX_BACKUP_BYTES: usize = wire::control::MAX_SNAPSHOT_BYTES;

/// A node's admin listener.
pub(super) struct Client {
    /// `host:port`.
    address: String,
    token: Option<Secret>,
}

impl Client {
    /// The node that the configuration names.
    ///
    /// # Errors
    /// Everything wrong with the configuration.
    pub(super) fn new(ask: &Ask, sources: Sources) -> anyhow::Result<Self> {
        let config = Config::load(&Sources { file: ask.config.clone(), ..sources })?;
        let address = config.admin.listen;
        // A node that listens everywhere is asked here.
        let address = match address.rsplit_once(':') {
            Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
            Some(("[::]", port)) => format!("[::1]:{port}"),
            _ => address,
        };
        Ok(Self { address, token: config.admin.token })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// No node there, or what the node says.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(serde_json::from_slice(&self.send(Method::GET, path, Vec::new())?)?)
    }

    /// `POST path` with `body` as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let answer = self.send(Method::POST, path, serde_json::to_vec(body)?)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// `PUT path` with `body` as JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let answer = self.send(Method::PUT, path, serde_json::to_vec(body)?)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// `POST path` with `body` as JSON, where there is nothing to answer but success.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn act(&self, path: &str, body: &impl Serialize) -> anyhow::Result<()> {
        self.send(Method::POST, path, serde_json::to_vec(body)?).map(drop)
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.send(Method::DELETE, path, Vec::new()).map(drop)
    }

    /// Waits between two looks.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn pause(time: Duration) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async { tokio::time::sleep(time).await });
        Ok(())
    }

    /// A backup, and the log index it is of.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn backup(&self) -> anyhow::Result<(u64, Vec<u8>)> {
        let limits = (BACKUP_TIMEOUT, MAX_BACKUP_BYTES);
        let path = "/api/v1/cluster/backup";
        let (headers, body) = self.send_within(Method::GET, path, Vec::new(), limits)?;
        let revision = headers.get(REVISION_HEADER).and_then(|value| value.to_str().ok());
        let revision = revision.and_then(|text| text.parse().ok());
        Ok((revision.context("the node does not say what the backup is of")?, body))
    }

    fn send(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        Ok(self.send_within(method, path, body, (TIMEOUT, MAX_ANSWER_BYTES))?.1)
    }

    fn send_within(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        (patience, most): (Duration, usize),
    ) -> anyhow::Result<(HeaderMap, Vec<u8>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let late = || format!("no answer from {} within {} s", self.address, patience.as_secs());
        runtime.block_on(async {
            tokio::time::timeout(patience, self.exchange(method, path, body, most))
                .await
                .with_context(late)?
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        most: usize,
    ) -> anyhow::Result<(HeaderMap, Vec<u8>)> {
        let address = &self.address;
        let socket = match TcpStream::connect(address).await {
            Ok(socket) => socket,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => bail!(
                "no node answers at {address}; start one, or name another with --set admin.listen=HOST:PORT"
            ),
            Err(error) => bail!("cannot reach {address}: {error}"),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        // Ends with the sender, or with the runtime a moment later.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|e| anyhow::anyhow!("{address} broke off: {e}"))?.to_bytes();
        if status.is_success() {
            return Ok((headers, body.into()));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if status == StatusCode::UNAUTHORIZED => {
                bail!(
                    "{address} refuses: {} (set it as TIDEWATER_ADMIN__TOKEN here)",
                    problem.detail
                )
            }
            Ok(problem) => bail!("{}", problem.detail),
            Err(_) => bail!("{address} answered {status}; is it a Tidewater admin listener?"),
        }
    }
}
