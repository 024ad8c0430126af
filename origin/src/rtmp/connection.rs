//! One RTMP connection: the actor that drives a [`Session`] with a socket, a clock and a room.
//!
//! In: an accepted socket. Out: a [`PublishRequest`], then [`IngestMessage`]s to the room. When the
//! room is slow the socket is not read; when the encoder is slow, silent or wrong the connection
//! ends, and with it only this publish.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use prometheus::IntGauge;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wire::RoomId;

use super::{
    End, Error, IngestMessage, Publication, PublishRequest, Publishes, Refusal,
    address::{Address, AddressError},
    listener::OPEN_TIME,
    publication::Undelivered,
    session::{Event, Session},
};
use crate::metrics::Metrics;

/// How much is read at a time.
const READ_BYTES: usize = 16 * 1024;
/// How long a write may take: a peer that does not read our few answers is gone or hostile.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long the room may take to accept one message.
const ROOM_TIME: Duration = Duration::from_secs(10);
/// After our last word, how long and how much is read and thrown away: closing a socket with unread
/// input would destroy that word on its way (RFC 1122 section 4.2.2.13).
const LINGER_TIME: Duration = Duration::from_millis(800);
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// Where the timer stands while nothing is due.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A connection before it runs.
pub(super) struct Connection<P> {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) publishes: Arc<P>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: CancellationToken,
}

/// The connection while it runs.
struct Actor<P> {
    connection: Connection<P>,
    session: Session,
    input: Input,
    live: Option<Live>,
}

/// A publish under way.
struct Live {
    publication: Publication,
    room: RoomId,
    since: Instant,
    bytes: u64,
    _counted: Counted,
}

/// Bytes read and not yet taken by the session.
struct Input {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Counts in a gauge as long as it lives, also through a panic.
struct Counted(IntGauge);

/// Why the actor ended without an error.
enum Done {
    /// The peer closed the connection.
    Closed,
    /// We said our last word.
    Said(End),
}

impl<P: Publishes> Connection<P> {
    /// Runs until the connection is over.
    pub(super) async fn run(self) {
        let metrics = Arc::clone(&self.metrics);
        let _counted = Counted::new(&metrics.rtmp_connections);
        let mut actor = Actor {
            session: Session::new(Instant::now().into_std()),
            input: Input::new(),
            live: None,
            connection: self,
        };
        let result = actor.run().await;
        metrics.skipped_messages.inc_by(actor.session.skipped_messages());
        let end = match &result {
            Ok(Done::Closed) => End::Disconnected,
            Ok(Done::Said(end)) => *end,
            Err(error) => end_of(error),
        };
        actor.end_publish(end);
        match result {
            Ok(_) => debug!("connection closed"),
            Err(error) => {
                if !error.is_peer_gone() {
                    metrics.refuse(error.reason());
                }
                if matches!(error, Error::RoomStalled { .. }) {
                    warn!(%error, "connection dropped; the home of the room is overloaded");
                } else {
                    debug!(%error, reason = error.reason(), "connection dropped");
                }
            }
        }
    }
}

impl<P: Publishes> Actor<P> {
    async fn run(&mut self) -> Result<Done, Error> {
        self.connection.stream.set_nodelay(true)?;
        let mut timer = Box::pin(sleep_until(self.deadline()));
        loop {
            while let Some(event) = self.next_event()? {
                self.flush().await?;
                if let Some(done) = self.apply(event).await? {
                    return Ok(done);
                }
            }
            self.flush().await?;
            let connection = &mut self.connection;
            tokio::select! {
                biased;
                () = connection.shutdown.cancelled() => {
                    return self.last_word(Refusal::shutting_down(), End::ShuttingDown).await;
                }
                refusal = kicked(&mut self.live) => {
                    return self.last_word(refusal, End::Kicked).await;
                }
                () = timer.as_mut() => self.on_timer(timer.as_mut())?,
                read = self.input.read(&mut connection.stream) => {
                    let bytes = read?;
                    if bytes == 0 {
                        return Ok(Done::Closed);
                    }
                    connection.metrics.received_bytes.inc_by(bytes as u64);
                    if let Some(live) = &mut self.live {
                        live.bytes += bytes as u64;
                    }
                }
            }
        }
    }

    fn next_event(&mut self) -> Result<Option<Event>, Error> {
        let mut rest = self.input.unread();
        let before = rest.len();
        let result = self.session.receive(Instant::now().into_std(), &mut rest);
        let taken = before - rest.len();
        self.input.start += taken;
        result
    }

    /// The deadline of the session only ever moves back, so the timer is set anew when it fires
    /// rather than at each message.
    fn on_timer(&self, timer: Pin<&mut Sleep>) -> Result<(), Error> {
        self.session.on_deadline(Instant::now().into_std())?;
        timer.reset(self.deadline());
        Ok(())
    }

    fn deadline(&self) -> Instant {
        self.session.poll_deadline().map_or_else(|| Instant::now() + NEVER, Instant::from_std)
    }

    /// Sends the session's answers.
    async fn flush(&mut self) -> Result<(), Error> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        match timeout(WRITE_TIME, self.connection.stream.write_all(&output)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Error::TimedOut { what: "reading of our answers", after: WRITE_TIME }),
        }
    }

    async fn apply(&mut self, event: Event) -> Result<Option<Done>, Error> {
        let message = match event {
            Event::PublishRequested { address } => return self.publish(address).await,
            Event::Unpublished => {
                self.end_publish(End::Unpublished);
                return Ok(None);
            }
            Event::Video { timestamp_ms, payload } => {
                IngestMessage::Video { timestamp_ms, payload }
            }
            Event::Audio { timestamp_ms, payload } => {
                IngestMessage::Audio { timestamp_ms, payload }
            }
            Event::Metadata { timestamp_ms, payload, .. } => {
                IngestMessage::Metadata { timestamp_ms, payload }
            }
        };
        let Some(live) = &mut self.live else { return Ok(None) };
        let is_media = !matches!(message, IngestMessage::Metadata { .. });
        let sent = tokio::select! {
            biased;
            sent = live.publication.send(message, ROOM_TIME) => sent,
            () = self.connection.shutdown.cancelled() => {
                let done = self.last_word(Refusal::shutting_down(), End::ShuttingDown).await;
                return done.map(Some);
            }
        };
        match sent {
            Ok(()) => {
                if is_media {
                    self.session.delivered(Instant::now().into_std());
                }
                Ok(None)
            }
            Err(Undelivered::Kicked(refusal)) => {
                self.last_word(refusal, End::Kicked).await.map(Some)
            }
            Err(Undelivered::TimedOut) => Err(Error::RoomStalled { after: ROOM_TIME }),
        }
    }

    async fn publish(
        &mut self,
        address: Result<Address, AddressError>,
    ) -> Result<Option<Done>, Error> {
        let encoder = self.session.connect().map(|c| c.encoder.clone()).unwrap_or_default();
        let peer = self.connection.peer;
        let (room, opened) = match address {
            Ok(Address { room, token, query }) => {
                let request = PublishRequest {
                    room: room.clone(),
                    token,
                    query,
                    peer,
                    encoder: encoder.clone(),
                };
                (Some(room), self.open(request).await?)
            }
            Err(error) => (None, Err(Refusal::bad_name(error))),
        };
        let (room, publication) = match (room, opened) {
            (Some(room), Ok(publication)) => (room, publication),
            (room, Err(refusal)) => {
                let room = room.as_ref().map_or("", RoomId::as_str);
                let Refusal { code, reason, description } = &refusal;
                info!(room, encoder, code, reason, description, "push refused");
                return self.last_word(refusal, End::Kicked).await.map(Some);
            }
            (None, Ok(_)) => return Ok(None),
        };
        info!(%room, encoder, "push accepted");
        self.live = Some(Live {
            publication,
            room,
            since: Instant::now(),
            bytes: 0,
            _counted: Counted::new(&self.connection.metrics.publishers),
        });
        self.session.accept_publish(Instant::now().into_std());
        self.flush().await?;
        Ok(None)
    }

    /// Asks for the room. Meanwhile the peer is listened to only as far as there is buffer, to notice
    /// when it goes away.
    async fn open(
        &mut self,
        request: PublishRequest,
    ) -> Result<Result<Publication, Refusal>, Error> {
        let Self { connection, input, .. } = self;
        let Connection { stream, publishes, shutdown, metrics, .. } = connection;
        let mut opening = pin!(publishes.open(request));
        let mut deadline = pin!(sleep(OPEN_TIME));
        loop {
            tokio::select! {
                biased;
                opened = opening.as_mut() => return Ok(opened),
                () = shutdown.cancelled() => return Ok(Err(Refusal::shutting_down())),
                () = deadline.as_mut() => {
                    let why = "no home for the room was found in time; try again";
                    return Ok(Err(Refusal::unavailable(why)));
                }
                read = input.read(stream), if input.has_space() => match read? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    bytes => metrics.received_bytes.inc_by(bytes as u64),
                },
            }
        }
    }

    /// Tells the peer why its publish is refused or over, and sees to it that it can hear it.
    async fn last_word(&mut self, refusal: Refusal, end: End) -> Result<Done, Error> {
        if end != End::ShuttingDown {
            self.connection.metrics.refuse(refusal.reason);
        }
        if let Some(live) = &self.live {
            let Refusal { code, reason, description } = &refusal;
            info!(room = %live.room, code, reason, description, "push ended by the server");
        }
        self.end_publish(end);
        self.session.close(refusal.code, &refusal.description);
        self.flush().await?;
        let stream = &mut self.connection.stream;
        stream.shutdown().await?;
        // How the peer takes it is of no interest any more.
        let _ = timeout(LINGER_TIME, self.input.discard(stream)).await;
        Ok(Done::Said(end))
    }

    /// Lets go of the publish under way, if there is one.
    fn end_publish(&mut self, end: End) {
        if let Some(Live { publication, room, since, bytes, _counted }) = self.live.take() {
            publication.end(end);
            let seconds = since.elapsed().as_secs();
            info!(%room, ?end, seconds, bytes, "push ended");
        }
    }
}

impl Input {
    fn new() -> Self {
        Self { buffer: vec![0; READ_BYTES].into(), start: 0, end: 0 }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn has_space(&self) -> bool {
        self.end - self.start < self.buffer.len()
    }

    /// Reads once. 0 is the end of the connection, provided there was space. Cancel-safe.
    async fn read(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let bytes = stream.read(&mut self.buffer[self.end..]).await?;
        self.end += bytes;
        Ok(bytes)
    }

    /// Reads and throws away until the end of the connection or [`LINGER_BYTES`].
    async fn discard(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut self.buffer).await? {
                0 => break,
                bytes => left = left.saturating_sub(bytes),
            }
        }
        Ok(())
    }
}

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Waits for a kick of the publish under way; for ever without one.
async fn kicked(live: &mut Option<Live>) -> Refusal {
    match live {
        Some(live) => live.publication.kicked().await,
        None => std::future::pending().await,
    }
}

/// How the room is told of an error.
fn end_of(error: &Error) -> End {
    match error {
        Error::TimedOut { .. } => End::Silent,
        Error::RoomStalled { .. } => End::RoomStalled,
        Error::Io(_) => End::Disconnected,
        _ => End::BadInput,
    }
}
