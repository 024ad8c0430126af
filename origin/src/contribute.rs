//! Every push on its way to its room's home: on this node or on another, and on to the next.
//!
//! In, at the ingest: a push this node accepted. Out: its messages to the room's home, in process or
//! on one ordered stream. When the home is lost or moves the publisher's connection stays: the
//! [`Relay`] asks placement again and carries on at the next home with what that one lacks of the last
//! seconds, which [`replay`] keeps.
//!
//! In, at the home: `Contribute` streams. Out: an ordinary push into the room ([`receive`]).
//!
//! Does not decide who has the room: the home does.

pub(crate) mod replay;

use std::sync::Arc;
use std::time::Duration;

use cluster::{Grant, RoomWatch};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, info, info_span, warn};
use wire::contribute::{
    Contribute, MAX_CONTROL_BYTES, MAX_PIECE_BYTES, Piece, PieceKind, Reply, Why,
};
use wire::endpoint::Peer;
use wire::links::Links;
use wire::service::StreamKind;
use wire::stream::{Receiver, Sender};
use wire::{Epoch, NodeId, RoomId};

use self::replay::Replay;
use crate::error::Error;
use crate::publish::Pushed;
use crate::registry::{Place, Registry};
use crate::room::Room;
use crate::rtmp::publication::Undelivered;
use crate::rtmp::{End, IngestMessage, Intake, Publication, Refusal};

/// How long a home may take to answer: as long as it judges an incumbent, and a little more.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a room may leave a full queue untouched.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a push is held while its home cannot be reached: placement notices a death and settles
/// well within.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

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
    watch: RoomWatch,
    /// Who pushes, as the home is told.
    who: Who,
    replay: Replay,
    started: Instant,
}

#[derive(Debug, Clone)]
struct Who {
    ingest: NodeId,
    source: std::net::SocketAddr,
    encoder: String,
    since_unix_ms: u64,
    publish: u64,
}

/// The way to a home that has accepted the push.
struct Link {
    way: Way,
    epoch: Epoch,
    /// The first message it wants.
    from: Option<u64>,
}

enum Way {
    /// Into a room of this node.
    Here(Publication),
    /// To another node.
    There(Sender, Receiver),
}

/// How one link to a home ended.
enum Ended {
    /// The publisher is gone.
    Left,
    /// The home ended the push.
    Stopped(Refusal),
    /// The home is lost, or is the home no more.
    Lost,
}

impl Relay {
    /// Offers a push to the home of its room; accepted, it is carried by a task until it ends.
    ///
    /// # Errors
    /// The refusal to tell the publisher.
    pub(crate) async fn open(
        links: Links,
        rooms: Arc<Registry>,
        room: RoomId,
        pushed: Pushed,
    ) -> Result<(), Refusal> {
        let Pushed { intake, ingest, source, encoder, since_unix_ms, publish } = pushed;
        let who = Who { ingest, source, encoder, since_unix_ms, publish };
        let (watch, started) = (rooms.watch(&room), Instant::now());
        let span = info_span!("push", %room);
        let relay = Self { links, rooms, room, watch, who, replay: Replay::default(), started };
        let link = relay.find_home(SETTLE_TIMEOUT, true).instrument(span.clone()).await?;
        tokio::spawn(relay.run(intake, link).instrument(span));
        Ok(())
    }

    async fn run(mut self, mut intake: Intake, mut link: Link) {
        loop {
            match self.carry(&mut intake, &mut link).await {
                Ended::Left => {
                    match link.way {
                        Way::Here(publication) => publication.end(intake.end()),
                        Way::There(mut sender, _) => sender.finish(),
                    }
                    return;
                }
                Ended::Stopped(refusal) => return intake.kick(refusal),
                Ended::Lost => info!(epoch = %link.epoch, "the home is lost; the publisher stays"),
            }
            drop(link.way);
            match self.find_home(REPLACE_TIMEOUT, false).await {
                Ok(next) => {
                    info!(epoch = %next.epoch, from = next.from, "push carried on");
                    link = next;
                }
                Err(refusal) => {
                    warn!(reason = refusal.reason, "the push lost its room");
                    return intake.kick(refusal);
                }
            }
        }
    }

    /// Sends what the home lacks, then what comes, until one side ends it.
    async fn carry(&mut self, intake: &mut Intake, link: &mut Link) -> Ended {
        let epoch = link.epoch;
        for message in self.replay.from(link.from) {
            if let Some(ended) = send(&mut link.way, message, &mut self.watch, epoch).await {
                return ended;
            }
        }
        loop {
            let message = tokio::select! {
                biased;
                ended = ended(&mut link.way) => return ended,
                () = moved(&mut self.watch, epoch) => return Ended::Lost,
                message = intake.recv() => message,
            };
            let Some(message) = message else { return Ended::Left };
            let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.replay.push(now_ms, message.clone());
            if let Some(ended) = send(&mut link.way, message, &mut self.watch, epoch).await {
                return ended;
            }
        }
    }

    /// Finds the home that takes the push, asking placement again until there is one.
    /// A new push is one that no home has accepted yet.
    async fn find_home(&self, within: Duration, is_new: bool) -> Result<Link, Refusal> {
        let give_up = Instant::now() + within;
        loop {
            let refusal = match self.rooms.activate(&self.room, Some(&self.who.ingest)).await {
                // Cut off from the leader, this node may be the home no more: it keeps the publisher
                // that it has and takes no other.
                Ok(Place::Here(_)) if is_new && !self.rooms.sees_leader() => {
                    let why = "this node cannot reach the control plane; push to another";
                    Refusal::unavailable(why)
                }
                Ok(Place::Here(room)) => match self.enter(&room).await {
                    // A room that closed in this very moment has a successor.
                    Err(refusal) if room.closed().is_cancelled() => refusal,
                    entered => return entered,
                },
                Ok(Place::There(grant)) => {
                    let (home, epoch) = (grant.home.clone(), grant.epoch);
                    let mut watch = self.rooms.watch(&self.room);
                    let offered = tokio::select! {
                        biased;
                        () = moved(&mut watch, epoch) => Err(Error::NotHome),
                        offered = self.offer(&grant) => offered,
                    };
                    match offered {
                        Ok(Ok(link)) => {
                            info!(%home, %epoch, "push carried to the room's home");
                            return Ok(link);
                        }
                        Ok(Err(refusal)) if refusal.reason != "unavailable" => return Err(refusal),
                        Ok(Err(refusal)) => refusal,
                        Err(error) => {
                            debug!(%home, %epoch, %error, "the home cannot be reached");
                            let why = "the room's home cannot be reached; push again in a moment";
                            Refusal::unavailable(why)
                        }
                    }
                }
                Err(refusal) => refusal,
            };
            if Instant::now() > give_up {
                warn!(reason = refusal.description, "no home takes the push");
                return Err(refusal);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Contends for a room of this node.
    async fn enter(&self, room: &Arc<Room>) -> Result<Link, Refusal> {
        let (publication, intake) = Publication::new();
        let Who { ingest, source, encoder, since_unix_ms, publish } = self.who.clone();
        let pushed = Pushed { intake, ingest, source, encoder, since_unix_ms, publish };
        let from = room.publish(pushed).await?;
        Ok(Link { way: Way::Here(publication), epoch: room.epoch(), from })
    }

    /// Offers the push to a home elsewhere. The outer error is one of the way there.
    async fn offer(&self, grant: &Grant) -> Result<Result<Link, Refusal>, Error> {
        let peer = self.links.get(&grant.home, grant.home_addr).await?;
        let (mut sender, mut receiver) = peer.open_bi(StreamKind::Contribute).await?;
        let ask = Contribute {
            room: self.room.clone(),
            epoch: grant.epoch,
            source: self.who.source,
            encoder: self.who.encoder.clone(),
            since_unix_ms: self.who.since_unix_ms,
            publish: self.who.publish,
        };
        sender.write_message(&ask).await?;
        match receiver.read_answer(MAX_CONTROL_BYTES, REPLY_TIMEOUT).await? {
            Reply::Accepted { from } => {
                Ok(Ok(Link { way: Way::There(sender, receiver), epoch: grant.epoch, from }))
            }
            Reply::Stop { why, description } => Ok(Err(refusal(why, description))),
            _ => Err(Error::NotHome),
        }
    }
}

/// Ends when the room has another epoch than `epoch`.
async fn moved(watch: &mut RoomWatch, epoch: Epoch) {
    let is_later = |placement: Option<Grant>| placement.is_some_and(|grant| grant.epoch > epoch);
    if watch.current().is_some_and(|location| is_later(location.placement)) {
        return;
    }
    while !is_later(watch.changed().await.placement) {}
}

/// Ends when the home ends the push, or is lost.
async fn ended(way: &mut Way) -> Ended {
    match way {
        Way::Here(publication) => {
            let refusal = publication.kicked().await;
            if refusal.reason == "unavailable" { Ended::Lost } else { Ended::Stopped(refusal) }
        }
        Way::There(_, receiver) => said(receiver).await,
    }
}

async fn said(receiver: &mut Receiver) -> Ended {
    match receiver.read_message::<Reply>(MAX_CONTROL_BYTES).await {
        Ok(Some(Reply::Stop { why, description })) => match refusal(why, description) {
            refusal if refusal.reason == "unavailable" => Ended::Lost,
            refusal => Ended::Stopped(refusal),
        },
        Ok(_) => Ended::Lost,
        Err(error) => {
            debug!(%error, "link to the home ended");
            Ended::Lost
        }
    }
}

/// Sends one message, unless the home ends the push or is lost first.
async fn send(
    way: &mut Way,
    message: IngestMessage,
    watch: &mut RoomWatch,
    epoch: Epoch,
) -> Option<Ended> {
    match way {
        Way::Here(publication) => match publication.send(message, ROOM_TIMEOUT).await {
            Ok(()) => None,
            Err(Undelivered::Kicked(refusal)) if refusal.reason == "unavailable" => {
                Some(Ended::Lost)
            }
            Err(Undelivered::Kicked(refusal)) => Some(Ended::Stopped(refusal)),
            Err(Undelivered::TimedOut) => {
                let why = "the room takes nothing now; push again in a moment";
                Some(Ended::Stopped(Refusal::unavailable(why)))
            }
        },
        Way::There(sender, receiver) => {
            // A message cut off in the middle goes with its stream.
            tokio::select! {
                biased;
                sent = write(sender, message) => sent.err().map(|error| {
                    debug!(%error, "link to the home ended");
                    Ended::Lost
                }),
                ended = said(receiver) => Some(ended),
                () = moved(watch, epoch) => Some(Ended::Lost),
            }
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
    let room = match rooms.activate(&asked.room, Some(peer.node())).await {
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
        publish: asked.publish,
    };
    let from = match room.publish(pushed).await {
        Ok(from) => from,
        Err(refusal) => return stop(sender, refusal).await,
    };
    sender.write_message(&Reply::Accepted { from }).await?;
    info!(room = %asked.room, ingest = %peer.node(), from, "push taken from another node");
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
                let message = message(Piece::decode(piece)?)?;
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

/// What the home said, as the publisher is told.
fn refusal(why: Why, description: String) -> Refusal {
    let bad_name = "NetStream.Publish.BadName";
    match why {
        Why::Busy => Refusal { code: bad_name, description, reason: "busy" },
        Why::Replaced => Refusal { code: bad_name, description, reason: "replaced" },
        Why::BadMedia => Refusal::bad_media(description),
        Why::Kicked => Refusal::kicked(description),
        _ => Refusal::unavailable(description),
    }
}

async fn write(sender: &mut Sender, message: IngestMessage) -> Result<(), Error> {
    let (kind, timestamp_ms, payload) = match message {
        IngestMessage::Video { timestamp_ms, payload } => (PieceKind::Video, timestamp_ms, payload),
        IngestMessage::Audio { timestamp_ms, payload } => (PieceKind::Audio, timestamp_ms, payload),
        IngestMessage::Metadata { timestamp_ms, payload } => {
            (PieceKind::Metadata, timestamp_ms, payload)
        }
        IngestMessage::Numbered { next } => {
            let piece = Piece::number(next);
            return Ok(sender.write_frame_parts(&[piece.header(), piece.payload]).await?);
        }
    };
    let piece = Piece { kind, timestamp_ms, payload };
    Ok(sender.write_frame_parts(&[piece.header(), piece.payload]).await?)
}

fn message(piece: Piece) -> Result<IngestMessage, Error> {
    let number = piece.as_number();
    let Piece { kind, timestamp_ms, payload } = piece;
    Ok(match kind {
        PieceKind::Video => IngestMessage::Video { timestamp_ms, payload },
        PieceKind::Audio => IngestMessage::Audio { timestamp_ms, payload },
        PieceKind::Metadata => IngestMessage::Metadata { timestamp_ms, payload },
        PieceKind::Number => {
            IngestMessage::Numbered { next: number.ok_or(wire::contribute::PieceError::Truncated)? }
        }
    })
}
