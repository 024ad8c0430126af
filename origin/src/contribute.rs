//! Pushes whose room lives on another node: carried there, and taken from there.
//!
//! In, at the ingest: a push this node accepted and the grant of the room's home. Out: its messages
//! on one ordered stream to the home. When the home is lost the publisher's connection stays: the
//! [`Relay`] asks placement again and carries on at the next home, this node's own room included.
//!
//! In, at the home: `Contribute` streams. Out: an ordinary push into the room ([`receive`]).
//!
//! Does not decide who has the room: the home does, as for its own pushes.

use std::sync::Arc;
use std::time::Duration;

use cluster::Grant;
use media::flv::{Body, audio, video};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, info, info_span, warn};
use wire::contribute::{
    Contribute, MAX_CONTROL_BYTES, MAX_PIECE_BYTES, Piece, PieceKind, Reply, Why,
};
use wire::endpoint::Peer;
use wire::links::Links;
use wire::service::StreamKind;
use wire::stream::{Receiver, Sender};
use wire::{NodeId, RoomId};

use crate::error::Error;
use crate::publish::Pushed;
use crate::registry::{Place, Registry};
use crate::rtmp::publication::Undelivered;
use crate::rtmp::{End, IngestMessage, Intake, Publication, Refusal};

/// How long a home may take to answer: as long as it judges an incumbent, and a little more.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a room may leave a full queue untouched.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a push whose home was lost is held before its encoder is let go.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause before a home that could not be reached is looked up again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Carries one push to its home, wherever that goes.
#[derive(Debug)]
pub(crate) struct Relay {
    links: Links,
    rooms: Arc<Registry>,
    room: RoomId,
    /// Who pushes, as the home is told.
    who: Who,
    preamble: Preamble,
}

#[derive(Debug, Clone)]
struct Who {
    ingest: NodeId,
    source: std::net::SocketAddr,
    encoder: String,
    since_unix_ms: u64,
}

/// Both halves of an accepted stream.
type Link = (Sender, Receiver);

/// How one link to a home ended.
enum Ended {
    /// The publisher is gone.
    Left,
    /// The home ended the push.
    Stopped(Refusal),
    /// The home is lost, or is the home no more.
    Lost,
}

/// Where a push goes on after its home was lost.
enum Next {
    /// On another node.
    There(Link),
    /// In this node's own room, under the grant it has now.
    Here(Arc<crate::room::Room>),
}

impl Relay {
    /// Offers a push to the home that `grant` names; accepted, it is carried by a task until it ends.
    ///
    /// # Errors
    /// The refusal to tell the publisher.
    pub(crate) async fn open(
        links: Links,
        rooms: Arc<Registry>,
        grant: Grant,
        pushed: Pushed,
    ) -> Result<(), Refusal> {
        let Pushed { intake, ingest, source, encoder, since_unix_ms, .. } = pushed;
        let who = Who { ingest, source, encoder, since_unix_ms };
        let room = grant.room.clone();
        let relay = Self { links, rooms, room, who, preamble: Preamble::default() };
        let link = match relay.offer(&grant).await {
            Ok(offered) => offered?,
            Err(error) => {
                warn!(room = %grant.room, home = %grant.home, %error, "the home cannot be reached");
                let why = "the room's home cannot be reached now; push again in a moment";
                return Err(Refusal::unavailable(why));
            }
        };
        let span = info_span!("contribute", room = %grant.room);
        info!(parent: &span, home = %grant.home, "push carried to the room's home");
        tokio::spawn(relay.run(intake, link).instrument(span));
        Ok(())
    }

    async fn run(mut self, mut intake: Intake, mut link: Link) {
        loop {
            match self.carry(&mut intake, &mut link).await {
                Ended::Left => return link.0.finish(),
                Ended::Stopped(refusal) => return intake.kick(refusal),
                Ended::Lost => warn!("the home is lost; the publisher stays"),
            }
            match self.find_next().await {
                Ok(Next::There(next)) => link = next,
                Ok(Next::Here(room)) => {
                    let Who { ingest, source, encoder, since_unix_ms } = self.who;
                    let preamble = self.preamble.messages().collect();
                    let pushed =
                        Pushed { intake, ingest, source, encoder, since_unix_ms, preamble };
                    // Refused, the intake is dropped, which ends the push.
                    if let Err(refusal) = room.publish(pushed).await {
                        warn!(reason = refusal.reason, "the push lost its room");
                    }
                    return;
                }
                Err(refusal) => return intake.kick(refusal),
            }
        }
    }

    /// Offers the push to a home. The outer error is one of the way there.
    async fn offer(&self, grant: &Grant) -> Result<Result<Link, Refusal>, Error> {
        let peer = self.links.get(&grant.home, grant.home_addr).await?;
        let (mut sender, mut receiver) = peer.open_bi(StreamKind::Contribute).await?;
        let ask = Contribute {
            room: self.room.clone(),
            epoch: grant.epoch,
            source: self.who.source,
            encoder: self.who.encoder.clone(),
            since_unix_ms: self.who.since_unix_ms,
        };
        sender.write_message(&ask).await?;
        match receiver.read_answer(MAX_CONTROL_BYTES, REPLY_TIMEOUT).await? {
            Reply::Accepted => {
                for message in self.preamble.messages() {
                    send(&mut sender, message).await?;
                }
                Ok(Ok((sender, receiver)))
            }
            Reply::Stop { why, description } => Ok(Err(refusal(&self.room, why, description))),
            _ => Err(Error::NotHome),
        }
    }

    async fn carry(&mut self, intake: &mut Intake, link: &mut Link) -> Ended {
        let (sender, receiver) = link;
        loop {
            tokio::select! {
                biased;
                said = receiver.read_message::<Reply>(MAX_CONTROL_BYTES) => match said {
                    Ok(Some(Reply::Stop { why: Why::Unavailable, .. })) => return Ended::Lost,
                    Ok(Some(Reply::Stop { why, description })) => {
                        return Ended::Stopped(refusal(&self.room, why, description));
                    }
                    Ok(_) => return Ended::Lost,
                    Err(error) => {
                        debug!(%error, "link to the home ended");
                        return Ended::Lost;
                    }
                },
                message = intake.recv() => {
                    let Some(message) = message else { return Ended::Left };
                    self.preamble.note(&message);
                    if let Err(error) = send(sender, message).await {
                        debug!(%error, "link to the home ended");
                        return Ended::Lost;
                    }
                }
            }
        }
    }

    async fn find_next(&self) -> Result<Next, Refusal> {
        let give_up = Instant::now() + REPLACE_TIMEOUT;
        loop {
            let error = match self.rooms.activate(&self.room).await {
                Ok(Place::Here(room)) => return Ok(Next::Here(room)),
                Ok(Place::There(grant)) => match self.offer(&grant).await {
                    Ok(Ok(link)) => {
                        info!(home = %grant.home, epoch = %grant.epoch, "push carried on");
                        return Ok(Next::There(link));
                    }
                    Ok(Err(refusal)) => refusal,
                    Err(error) => {
                        debug!(home = %grant.home, %error, "no home yet");
                        Refusal::unavailable("the room's home is lost; push again in a moment")
                    }
                },
                Err(refusal) => refusal,
            };
            if Instant::now() > give_up {
                return Err(error);
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Takes a push from an ingest node into this home's room, until one side ends it.
///
/// # Errors
/// When the stream breaks or carries what cannot be read.
pub(crate) async fn receive(
    rooms: &Arc<Registry>,
    peer: &Peer,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<(), Error> {
    let asked: Contribute = receiver.read_answer(MAX_CONTROL_BYTES, REPLY_TIMEOUT).await?;
    let room = match rooms.activate(&asked.room).await {
        Ok(Place::Here(room)) => room,
        Ok(Place::There(grant)) => {
            let not_home = Reply::NotHome { epoch: grant.epoch, hint: Some(grant.home) };
            sender.write_message(&not_home).await?;
            sender.finish();
            return Ok(());
        }
        Err(refusal) => return stop(sender, refusal).await,
    };
    let (mut publication, intake) = Publication::new();
    let pushed = Pushed {
        intake,
        ingest: peer.node().clone(),
        source: asked.source,
        encoder: asked.encoder.chars().filter(|c| !c.is_control()).take(64).collect(),
        since_unix_ms: asked.since_unix_ms,
        preamble: Vec::new(),
    };
    if let Err(refusal) = room.publish(pushed).await {
        return stop(sender, refusal).await;
    }
    sender.write_message(&Reply::Accepted).await?;
    info!(room = %asked.room, ingest = %peer.node(), "push taken from another node");
    loop {
        tokio::select! {
            biased;
            refusal = publication.kicked() => {
                return stop(sender, refusal).await;
            }
            piece = receiver.read_frame(MAX_PIECE_BYTES) => {
                let Some(piece) = piece? else {
                    publication.end(End::Unpublished);
                    return Ok(());
                };
                let message = message(Piece::decode(piece)?);
                match publication.send(message, ROOM_TIMEOUT).await {
                    Ok(()) => {}
                    Err(Undelivered::Kicked(refusal)) => return stop(sender, refusal).await,
                    Err(_) => {
                        publication.end(End::RoomStalled);
                        let why = "the room takes nothing now; push again in a moment";
                        return stop(sender, Refusal::unavailable(why)).await;
                    }
                }
            }
        }
    }
}

async fn stop(mut sender: Sender, refusal: Refusal) -> Result<(), Error> {
    let why = match refusal.reason {
        "busy" => Why::Busy,
        "replaced" => Why::Replaced,
        "bad_media" => Why::BadMedia,
        "kicked" => Why::Kicked,
        _ => Why::Unavailable,
    };
    sender.write_message(&Reply::Stop { why, description: refusal.description }).await?;
    sender.finish();
    Ok(())
}

fn refusal(room: &RoomId, why: Why, description: String) -> Refusal {
    match why {
        Why::Busy => Refusal::busy(room),
        Why::Replaced => Refusal::replaced(room),
        Why::BadMedia => Refusal::bad_media(description),
        Why::Kicked => Refusal::kicked(description),
        _ => Refusal::unavailable(description),
    }
}

async fn send(sender: &mut Sender, message: IngestMessage) -> Result<(), Error> {
    let (kind, timestamp_ms, payload) = match message {
        IngestMessage::Video { timestamp_ms, payload } => (PieceKind::Video, timestamp_ms, payload),
        IngestMessage::Audio { timestamp_ms, payload } => (PieceKind::Audio, timestamp_ms, payload),
        IngestMessage::Metadata { timestamp_ms, payload } => {
            (PieceKind::Metadata, timestamp_ms, payload)
        }
    };
    let piece = Piece { kind, timestamp_ms, payload };
    Ok(sender.write_frame_parts(&[piece.header(), piece.payload]).await?)
}

fn message(piece: Piece) -> IngestMessage {
    let Piece { kind, timestamp_ms, payload } = piece;
    match kind {
        PieceKind::Video => IngestMessage::Video { timestamp_ms, payload },
        PieceKind::Audio => IngestMessage::Audio { timestamp_ms, payload },
        PieceKind::Metadata => IngestMessage::Metadata { timestamp_ms, payload },
    }
}

/// What a home must hear before media makes sense to it: the newest metadata and configurations.
#[derive(Debug, Default)]
struct Preamble {
    metadata: Option<IngestMessage>,
    video: Option<IngestMessage>,
    audio: Option<IngestMessage>,
}

impl Preamble {
    fn note(&mut self, message: &IngestMessage) {
        let is_header = |body| matches!(body, Ok(Body::SequenceHeader { .. }));
        let slot = match message {
            IngestMessage::Metadata { .. } => &mut self.metadata,
            IngestMessage::Video { payload, .. } if is_header(video::parse(payload)) => {
                &mut self.video
            }
            IngestMessage::Audio { payload, .. } if is_header(audio::parse(payload)) => {
                &mut self.audio
            }
            _ => return,
        };
        *slot = Some(message.clone());
    }

    fn messages(&self) -> impl Iterator<Item = IngestMessage> {
        [&self.metadata, &self.video, &self.audio].into_iter().flatten().cloned()
    }
}
