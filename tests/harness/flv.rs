//! Watches HTTP-FLV as a player does, and checks the order a player relies on: file header,
//! metadata, configurations before frames, a key frame first, timestamps that never go back.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use media::flv::reader::{Reader, Tag};
use media::flv::{Body, TagKind, audio, video};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PATIENCE;

/// What has been seen of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Video frames.
    pub video: u64,
    /// Of them key frames, by the publisher's flag.
    pub keys: u64,
    /// Audio frames.
    pub audio: u64,
    /// Configurations of either kind.
    pub headers: u64,
    /// The first and the newest media timestamp in milliseconds.
    pub first_ms: Option<u32>,
    /// The newest media timestamp in milliseconds.
    pub last_ms: u32,
    /// The largest step forward between two video frames, in milliseconds.
    pub largest_gap_ms: u32,
    /// Whether the response has ended.
    pub ended: bool,
}

/// A player that has been answered.
#[derive(Debug)]
pub struct Viewer {
    socket: TcpStream,
    reader: Reader,
    seen: Seen,
    last_video_ms: Option<u32>,
    last_audio_ms: Option<u32>,
}

impl Viewer {
    /// Asks for `path` and reads the answer's head.
    ///
    /// # Errors
    /// When the answer is not 200 `video/x-flv`.
    pub async fn connect(to: SocketAddr, path: &str) -> Result<Self> {
        let mut socket = TcpStream::connect(to).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let head = timeout(PATIENCE, read_head(&mut socket)).await.context("no answer")??;
        let text = head.to_ascii_lowercase();
        ensure!(text.starts_with("http/1.1 200 "), "not 200: {head}");
        ensure!(text.contains("content-type: video/x-flv"), "no FLV: {head}");
        ensure!(!text.contains("transfer-encoding"), "not close-delimited: {head}");
        Ok(Self {
            socket,
            reader: Reader::new(),
            seen: Seen::default(),
            last_video_ms: None,
            last_audio_ms: None,
        })
    }

    /// Asks until the room is live.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn when_live(to: SocketAddr, path: &str) -> Result<Self> {
        crate::eventually("the room is live", async || Self::connect(to, path).await.ok()).await
    }

    /// What has been seen so far.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Reads on until `done`, or the end of the response.
    ///
    /// # Errors
    /// When what comes breaks a rule, or nothing comes for too long.
    pub async fn watch(&mut self, mut done: impl FnMut(&Seen) -> bool) -> Result<&Seen> {
        let mut buffer = vec![0; 64 << 10];
        while !self.seen.ended && !done(&self.seen) {
            let read = timeout(PATIENCE, self.socket.read(&mut buffer)).await;
            let count = read.with_context(|| format!("nothing comes after {:?}", self.seen))??;
            if count == 0 {
                self.seen.ended = true;
                break;
            }
            self.reader.push(buffer.get(..count).unwrap_or_default());
            while let Some(tag) = self.reader.next_tag()? {
                self.note(&tag)?;
            }
        }
        Ok(&self.seen)
    }

    fn note(&mut self, tag: &Tag) -> Result<()> {
        let body = match tag.kind {
            TagKind::Script => return Ok(()),
            TagKind::Video => video::parse(&tag.body)?,
            TagKind::Audio => audio::parse(&tag.body)?,
        };
        let (last, what) = match tag.kind {
            TagKind::Video => (&mut self.last_video_ms, "video"),
            _ => (&mut self.last_audio_ms, "audio"),
        };
        match body {
            Body::SequenceHeader { .. } => {
                self.seen.headers += 1;
                return Ok(());
            }
            Body::Frame { key_flag, .. } if tag.kind == TagKind::Video => {
                ensure!(self.seen.headers > 0, "a frame before its configuration");
                ensure!(self.seen.video > 0 || key_flag, "the first video frame is no key frame");
                self.seen.video += 1;
                self.seen.keys += u64::from(key_flag);
            }
            Body::Frame { .. } => self.seen.audio += 1,
            other => bail!("not for viewers: {other:?}"),
        }
        let now = tag.timestamp_ms;
        if let Some(before) = last.replace(now) {
            ensure!(now >= before, "{what} goes back from {before} to {now} ms");
            if what == "video" {
                self.seen.largest_gap_ms = self.seen.largest_gap_ms.max(now - before);
            }
        }
        self.seen.first_ms.get_or_insert(now);
        self.seen.last_ms = self.seen.last_ms.max(now);
        Ok(())
    }
}

async fn read_head(socket: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 8192, "an endless head");
        head.push(socket.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}
