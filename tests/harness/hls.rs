//! Watches LL-HLS as a player does, each request from another edge, and checks every rule.
//!
//! It reloads by the blocking request for the part after the newest it has, fetches that part and
//! every segment once complete, and compares a segment with its parts and with what the other edges
//! answer under the same URL.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use media::playlist::check::{Checker, MediaPlaylist};

use crate::http::{self, Answer};

/// A viewer of one room over one or more edges.
#[derive(Debug)]
pub struct Viewer {
    edges: Vec<SocketAddr>,
    room: String,
    turn: usize,
    checker: Checker,
    /// Parts fetched of the segments not yet compared, by name.
    parts: BTreeMap<String, Bytes>,
    /// What was done, for assertions.
    pub tally: Tally,
}

/// What a viewer did and saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Playlists read.
    pub playlists: u64,
    /// Parts fetched.
    pub parts: u64,
    /// Segments fetched and compared.
    pub segments: u64,
    /// Discontinuities met.
    pub discontinuities: u64,
}

impl Viewer {
    /// A viewer of `room` (`app/name`) that takes the edges in turn.
    #[must_use]
    pub fn new(edges: &[SocketAddr], room: &str) -> Self {
        Self {
            edges: edges.to_vec(),
            room: room.to_owned(),
            turn: 0,
            checker: Checker::new(),
            parts: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// The playlist as last read.
    #[must_use]
    pub fn playlist(&self) -> Option<&MediaPlaylist> {
        self.checker.last()
    }

    /// Reads the multivariant playlist and the first media playlist.
    ///
    /// # Errors
    /// When either is not 200 or breaks a rule.
    pub async fn start(&mut self) -> Result<()> {
        let path = format!("/{}.m3u8", self.room);
        let answer = self.get(&path).await?;
        ensure!(answer.header("content-type") == "application/vnd.apple.mpegurl", "{answer:?}");
        if let Err(violations) = media::playlist::check::multivariant(&answer.text()) {
            bail!("{violations:?} in\n{}", answer.text());
        }
        let path = format!("/{}/main.m3u8", self.room);
        self.load(&path).await
    }

    /// Asks for the next part by a blocking reload, and fetches what is new. Returns false when the
    /// stream has ended.
    ///
    /// # Errors
    /// When an answer is not 200 or breaks a rule.
    pub async fn step(&mut self) -> Result<bool> {
        let Some(list) = self.checker.last() else {
            self.start().await?;
            return Ok(true);
        };
        if list.ended {
            return Ok(false);
        }
        let (msn, part) = next_part(list);
        let path = format!("/{}/main.m3u8?_HLS_msn={msn}&_HLS_part={part}", self.room);
        self.load(&path).await?;
        self.fetch_news().await?;
        Ok(true)
    }

    /// Steps until `done`.
    ///
    /// # Errors
    /// As [`Self::step`]; also when the stream ends first.
    pub async fn watch(
        &mut self,
        mut done: impl FnMut(&Tally, &MediaPlaylist) -> bool,
    ) -> Result<()> {
        loop {
            if let Some(list) = self.checker.last()
                && done(&self.tally, list)
            {
                return Ok(());
            }
            let goes_on = self.step().await?;
            if !goes_on {
                match self.checker.last() {
                    Some(list) if done(&self.tally, list) => return Ok(()),
                    _ => bail!("the stream has ended: {:?}", self.tally),
                }
            }
        }
    }

    async fn load(&mut self, path: &str) -> Result<()> {
        let answer = self.get(path).await?;
        let text = answer.text();
        if let Err(violations) = self.checker.observe(&text) {
            bail!("{violations:?} in {path}\n{text}");
        }
        self.tally.playlists += 1;
        Ok(())
    }

    async fn fetch_news(&mut self) -> Result<()> {
        let Some(list) = self.checker.last().cloned() else { return Ok(()) };
        let from = list.segments.len().saturating_sub(2);
        for segment in list.segments.iter().skip(from) {
            for part in &segment.parts {
                if !self.parts.contains_key(&part.uri) {
                    let body = self.get_resource(&part.uri).await?;
                    self.parts.insert(part.uri.clone(), body);
                    self.tally.parts += 1;
                }
            }
            let Some(uri) = &segment.uri else { continue };
            if self.parts.contains_key(uri) {
                continue;
            }
            let body = self.get_resource(uri).await?;
            let mut joined = Vec::new();
            for part in &segment.parts {
                joined.extend_from_slice(self.parts.get(&part.uri).map_or(&[], |b| b));
            }
            ensure!(joined.is_empty() || joined == body, "{uri} is not the sum of its parts");
            for edge in self.edges.clone() {
                let same = http::get(edge, &format!("/{}/{uri}", self.room)).await?;
                ensure!(same.status == 200, "{uri} is {} at {edge}", same.status);
                ensure!(same.body == body, "{uri} differs at {edge}");
            }
            self.parts.insert(uri.clone(), Bytes::new());
            self.tally.segments += 1;
            self.tally.discontinuities += u64::from(segment.discontinuity);
        }
        Ok(())
    }

    async fn get_resource(&mut self, uri: &str) -> Result<Bytes> {
        let path = format!("/{}/{uri}", self.room);
        Ok(self.get(&path).await?.body)
    }

    async fn get(&mut self, path: &str) -> Result<Answer> {
        let Some(edge) = self.edges.get(self.turn % self.edges.len().max(1)).copied() else {
            bail!("no edge to ask");
        };
        self.turn += 1;
        let answer = http::get(edge, path).await?;
        ensure!(answer.status == 200, "{path} is {} at {edge}: {}", answer.status, answer.text());
        Ok(answer)
    }
}

/// The part after the newest one.
fn next_part(list: &MediaPlaylist) -> (u64, usize) {
    match list.segments.last() {
        Some(last) if last.uri.is_none() => (last.msn, last.parts.len()),
        Some(last) => (last.msn + 1, 0),
        None => (list.media_sequence, 0),
    }
}
