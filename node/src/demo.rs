//! The test card of `tidewater dev --demo`: an ordinary publisher, inside the process.
//!
//! In: the committed FLV of a 16 s loop, and the address of the RTMP listener. Out: an endless push
//! to one room through that listener, exactly as an encoder would send it: paced by a monotonic
//! clock, stamped on from loop to loop, and again after a lost connection.
//!
//! Makes no media: `scripts/make-testcard.sh` does, and explains why the loop has no seam.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use rand::Rng as _;
use rml_rtmp::{
    handshake::{Handshake, HandshakeProcessResult, PeerType},
    sessions::{
        ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult,
        PublishRequestType, StreamMetadata,
    },
    time::RtmpTimestamp,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use wire::RoomId;

/// The room of the test card.
pub const DEMO_ROOM: &str = "live/demo";
/// Length of the loop in milliseconds: 480 pictures at 30 fps, 750 AAC frames at 48 kHz.
pub const LOOP_MS: u64 = 16_000;

/// A connection that says nothing for this long while we wait for an answer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A write that takes this long means the listener no longer reads.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// First wait before connecting again; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Bytes asked of the socket at once; answers are small.
const READ_BYTES: usize = 4096;

const CARD: &[u8] = include_bytes!("../assets/testcard.flv");

/// One FLV tag of the card.
#[derive(Debug, Clone)]
struct Tag {
    kind: TagKind,
    at_ms: u64,
    body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagKind {
    Audio,
    Video,
}

/// The card, parsed once.
#[derive(Debug, Clone)]
pub struct TestCard {
    /// Sequence headers, sent once a connection.
    headers: Arc<[Tag]>,
    /// The frames of one loop by time.
    frames: Arc<[Tag]>,
}

/// Where and as whom the card is pushed.
#[derive(Debug, Clone)]
pub struct Target {
    /// The RTMP listener.
    pub rtmp: SocketAddr,
    /// The room.
    pub room: RoomId,
    /// A publish key, where the listener asks for one.
    pub token: Option<String>,
}

impl TestCard {
    /// The card that is built into the binary.
    ///
    /// # Panics
    /// If the committed file is not the FLV the script makes; a test reads it.
    #[must_use]
    pub fn built_in() -> Self {
        Self::parse(CARD).expect("the committed card is well formed")
    }

    fn parse(flv: &'static [u8]) -> Option<Self> {
        let (mut headers, mut frames) = (Vec::new(), Vec::new());
        // FLV header and the first back pointer (Adobe FLV 10.1, annex E.2, E.3).
        let mut rest = flv.strip_prefix(b"FLV\x01")?.get(9..)?;
        while let Some((head, after)) = rest.split_at_checked(11) {
            let bytes =
                usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            let at_ms = u64::from(u32::from_be_bytes([head[7], head[4], head[5], head[6]]));
            let body = after.get(..bytes)?;
            rest = after.get(bytes + 4..)?;
            let kind = match head[0] {
                8 => TagKind::Audio,
                9 => TagKind::Video,
                _ => continue,
            };
            let tag = Tag { kind, at_ms, body: Bytes::from_static(body) };
            // Second byte 0 is a sequence header, 2 the end of one (annex E.4.2.2, E.4.3.1).
            match (kind, body.get(1)?) {
                (_, 0) => headers.push(tag),
                (TagKind::Video, 2) => {}
                _ => frames.push(tag),
            }
        }
        frames.sort_by_key(|tag| tag.at_ms);
        Some(Self { headers: headers.into(), frames: frames.into() })
    }

    /// Frame number `index` of the endless stream: the tag, and its time since the start.
    fn frame(&self, index: u64) -> (&Tag, u64) {
        let count = self.frames.len() as u64;
        let tag = &self.frames[(index % count) as usize];
        (tag, index / count * LOOP_MS + tag.at_ms)
    }
}

/// Pushes the card to `target` until `stop`, whatever happens to the connection.
pub async fn run(card: TestCard, target: Target, stop: CancellationToken) {
    let mut backoff = MIN_BACKOFF;
    loop {
        let mut published = false;
        let Err(error) = push(&card, &target, &stop, &mut published).await else { return };
        if published {
            backoff = MIN_BACKOFF;
        }
        let wait = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
        tracing::warn!(room = %target.room, error = format!("{error:#}"), ?wait, "test card interrupted");
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// One connection, from the handshake to `stop` (which is `Ok`) or an error.
async fn push(
    card: &TestCard,
    target: &Target,
    stop: &CancellationToken,
    published: &mut bool,
) -> anyhow::Result<()> {
    let mut publisher = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        connected = Publisher::connect(target) => connected?,
    };
    *published = true;
    tracing::info!(room = %target.room, "test card on air");
    for tag in card.headers.iter() {
        publisher.send(tag, 0).await?;
    }
    let start = Instant::now();
    let mut index = 0;
    loop {
        let (tag, at_ms) = card.frame(index);
        tokio::select! {
            () = stop.cancelled() => return publisher.finish().await,
            () = sleep_until(start + Duration::from_millis(at_ms)) => {}
            answer = publisher.read() => {
                answer?;
                continue;
            }
        }
        publisher.send(tag, at_ms).await?;
        index += 1;
    }
}

/// An RTMP connection that publishes.
struct Publisher {
    socket: TcpStream,
    session: ClientSession,
    buffer: Vec<u8>,
}

impl Publisher {
    async fn connect(target: &Target) -> anyhow::Result<Self> {
        let connected = timeout(ANSWER_TIMEOUT, TcpStream::connect(target.rtmp)).await;
        let mut socket = connected.context("connect timed out")?.context("connect")?;
        socket.set_nodelay(true)?;
        let left_over = timeout(ANSWER_TIMEOUT, shake_hands(&mut socket))
            .await
            .context("handshake timed out")?
            .context("handshake")?;

        let mut config = ClientSessionConfig::new();
        config.tc_url = Some(format!("rtmp://{}/{}", target.rtmp, target.room.app()));
        config.flash_version = concat!("tidewater-testcard/", env!("CARGO_PKG_VERSION")).to_owned();
        let (session, results) = ClientSession::new(config).map_err(|e| anyhow::anyhow!("{e}"))?;
        let mut publisher = Self { socket, session, buffer: vec![0; READ_BYTES] };
        publisher.handle(results).await?;
        publisher.input(&left_over).await?;

        let app = target.room.app().to_owned();
        let request = publisher.session.request_connection(app);
        publisher.ask(request, ClientSessionEvent::ConnectionRequestAccepted).await?;
        let key = match &target.token {
            Some(token) => format!("{}?token={token}", target.room.name()),
            None => target.room.name().to_owned(),
        };
        let request = publisher.session.request_publishing(key, PublishRequestType::Live);
        publisher.ask(request, ClientSessionEvent::PublishRequestAccepted).await?;

        let mut metadata = StreamMetadata::new();
        metadata.encoder = Some("tidewater test card".to_owned());
        let sent = publisher.session.publish_metadata(&metadata);
        let sent = sent.map_err(|e| anyhow::anyhow!("{e}"))?;
        publisher.handle(vec![sent]).await?;
        Ok(publisher)
    }

    /// Sends a request and waits until `expected` is raised.
    async fn ask<E: std::fmt::Display>(
        &mut self,
        request: Result<ClientSessionResult, E>,
        expected: ClientSessionEvent,
    ) -> anyhow::Result<()> {
        let request = request.map_err(|e| anyhow::anyhow!("{e}"))?;
        let mut events = self.handle(vec![request]).await?;
        loop {
            for event in events {
                match event {
                    event if event == expected => return Ok(()),
                    ClientSessionEvent::ConnectionRequestRejected { description } => {
                        bail!("refused: {description}")
                    }
                    ClientSessionEvent::UnhandleableOnStatusCode { code } => {
                        bail!("refused: {code}")
                    }
                    _ => {}
                }
            }
            events = timeout(ANSWER_TIMEOUT, self.read()).await.context("no answer")??;
        }
    }

    async fn send(&mut self, tag: &Tag, at_ms: u64) -> anyhow::Result<()> {
        // RTMP time is 32 bits and wraps (RTMP 1.0, section 5.3.1.1).
        let at = RtmpTimestamp::new(at_ms as u32);
        let packet = match tag.kind {
            TagKind::Audio => self.session.publish_audio_data(tag.body.clone(), at, false),
            TagKind::Video => self.session.publish_video_data(tag.body.clone(), at, false),
        };
        let packet = packet.map_err(|e| anyhow::anyhow!("{e}"))?;
        self.handle(vec![packet]).await.map(drop)
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        let results = self.session.stop_publishing().map_err(|e| anyhow::anyhow!("{e}"))?;
        self.handle(results).await?;
        Ok(self.socket.shutdown().await?)
    }

    /// Waits for bytes and returns what they mean. Losing the race of a `select!` loses no bytes.
    async fn read(&mut self) -> anyhow::Result<Vec<ClientSessionEvent>> {
        self.socket.readable().await?;
        match self.socket.try_read(&mut self.buffer) {
            Ok(0) => bail!("the listener closed the connection"),
            Ok(bytes) => {
                let received = self.buffer[..bytes].to_vec();
                self.input(&received).await
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    async fn input(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<ClientSessionEvent>> {
        let results = self.session.handle_input(bytes).map_err(|e| anyhow::anyhow!("{e}"))?;
        self.handle(results).await
    }

    async fn handle(
        &mut self,
        results: Vec<ClientSessionResult>,
    ) -> anyhow::Result<Vec<ClientSessionEvent>> {
        let mut events = Vec::new();
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => {
                    timeout(WRITE_TIMEOUT, self.socket.write_all(&packet.bytes))
                        .await
                        .context("the listener does not read")??;
                }
                ClientSessionResult::RaisedEvent(event) => events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        Ok(events)
    }
}

/// Performs the client's half of the handshake; returns bytes that came after it.
async fn shake_hands(socket: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut handshake = Handshake::new(PeerType::Client);
    let hello = handshake.generate_outbound_p0_and_p1().map_err(|e| anyhow::anyhow!("{e}"))?;
    socket.write_all(&hello).await?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let bytes = socket.read(&mut buffer).await?;
        if bytes == 0 {
            bail!("the listener closed the connection");
        }
        let result = handshake.process_bytes(&buffer[..bytes]);
        match result.map_err(|e| anyhow::anyhow!("{e}"))? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                socket.write_all(&response_bytes).await?;
            }
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                socket.write_all(&response_bytes).await?;
                return Ok(remaining_bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_whole_and_its_loop_has_no_seam() {
        let card = TestCard::built_in();
        let of = |kind| card.frames.iter().filter(move |tag| tag.kind == kind);
        assert_eq!(of(TagKind::Video).count(), 480);
        assert_eq!(of(TagKind::Audio).count(), 750);
        assert_eq!(card.headers.len(), 2);
        assert!(CARD.len() <= 1_500_000, "{} bytes", CARD.len());

        // Over the seam, pictures stay on the 30 fps grid and sound on the 1024-sample grid, as
        // FLV rounds them to milliseconds.
        for (kind, grid_ms) in [(TagKind::Video, 1000.0 / 30.0), (TagKind::Audio, 1024.0 / 48.0)] {
            let stamps: Vec<u64> = (0..3 * card.frames.len() as u64)
                .map(|index| card.frame(index))
                .filter(|(tag, _)| tag.kind == kind)
                .map(|(_, at_ms)| at_ms)
                .collect();
            for (number, at_ms) in stamps.iter().enumerate() {
                let exact = number as f64 * grid_ms;
                assert!((*at_ms as f64 - exact).abs() <= 0.51, "{kind:?} {number}: {at_ms} ms");
            }
        }
    }

    #[test]
    fn the_card_has_a_key_frame_every_second() {
        let card = TestCard::built_in();
        let keys: Vec<u64> = card
            .frames
            .iter()
            .filter(|tag| tag.kind == TagKind::Video && tag.body[0] >> 4 == 1)
            .map(|tag| tag.at_ms)
            .collect();
        assert_eq!(keys, (0..16).map(|second| second * 1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_card_is_not_taken() {
        assert!(TestCard::parse(&CARD[..CARD.len() - 1]).is_none());
        assert!(TestCard::parse(b"FLV").is_none());
    }
}
