//! One subscription: the manifest on its control stream, one stream of bytes per segment.
//!
//! In: a room's feed. Out: entries in the batches the home made, and frames as they come. The
//! control stream goes before all bytes, the newest segments before the rest of the window. A
//! subscriber that falls behind the log of entries is told everything again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use media::feed::LogCursor;
use media::manifest::{Entry, Msn, SegmentOpen, encode};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{Instrument, debug, info};
use wire::endpoint::Peer;
use wire::replica::{
    BEAT_INTERVAL_MS, FromEdge, FromHome, MAX_REQUEST_BYTES, Resume, SegmentHeader, Subscribe,
};
use wire::service::StreamKind;
use wire::stream::{Receiver, Sender};

use super::{REQUEST_TIMEOUT, segment};
use crate::error::Error;
use crate::registry::{Candidate, Registry};
use crate::room::{Metrics, Room};

/// Subscriptions one room serves: a thousand edges, twice over while links are being replaced.
const MAX_SUBSCRIBERS: u64 = 2_048;

/// Priority of the control stream: before all bytes.
const CONTROL_PRIORITY: i32 = i32::MAX;

/// Priority of the newest segment at the start of a subscription and the one before it; each later
/// segment goes one below, so that older bytes are finished first.
const LIVE_PRIORITY: i32 = 1 << 30;

/// How long the last bytes of a room that is given up may take: with them the next home has more to go
/// on with, and its subscribers less to wait for.
const LAST_BYTES: Duration = Duration::from_millis(200);

/// Serves one subscription until the subscriber leaves, the stream ends or the room moves.
pub(super) async fn run(
    rooms: &Arc<Registry>,
    metrics: &Arc<Metrics>,
    peer: Arc<Peer>,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<(), Error> {
    let asked: Subscribe = receiver.read_answer(MAX_REQUEST_BYTES, REQUEST_TIMEOUT).await?;
    sender.set_priority(CONTROL_PRIORITY);
    let candidate = asked.resume.map(|resume| Candidate::new(Arc::clone(&peer), resume));
    let room = match rooms.adopt(&asked.room, candidate).await {
        Ok(room) => room,
        Err(elsewhere) => {
            debug!(room = %asked.room, "not the home");
            let epoch = elsewhere.as_ref().map_or(wire::Epoch(0), |grant| grant.epoch);
            let hint = elsewhere.map(|grant| grant.home);
            sender.write_message(&FromHome::NotHome { epoch, hint }).await?;
            sender.finish();
            return Ok(());
        }
    };
    room.serving().await;
    let Some(_seat) = Seat::take(&room) else {
        sender.write_message(&FromHome::Busy).await?;
        sender.finish();
        return Ok(());
    };
    info!(room = %asked.room, edge = %peer.node(), "edge subscribed");
    sender.write_message(&FromHome::Accepted { epoch: room.epoch() }).await?;
    let subscription = asked.subscription;
    let link = Link { room, peer, subscription, streams: JoinSet::new(), live_from: Msn(0) };
    let _gauge = metrics.subscription();
    link.run(asked.resume, sender, receiver).await
}

struct Link {
    room: Arc<Room>,
    peer: Arc<Peer>,
    subscription: u64,
    /// One task per segment under way; they end with the link.
    streams: JoinSet<()>,
    live_from: Msn,
}

impl Link {
    async fn run(
        mut self,
        resume: Option<Resume>,
        mut sender: Sender,
        mut receiver: Receiver,
    ) -> Result<(), Error> {
        let feed = self.room.feed().clone();
        let mut activity = feed.activity();
        let mut viewers = Viewers::new(&self.room);
        let (mut cursor, over) = self.tell_everything(&mut sender, resume).await?;
        if over {
            return self.finish(sender).await;
        }
        let mut beats = interval(Duration::from_millis(BEAT_INTERVAL_MS));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beat = 0u64;
        let closed = self.room.closed().clone();
        loop {
            tokio::select! {
                biased;
                () = closed.cancelled() => {
                    // What was sealed at the end is worth knowing at the next home.
                    let _ = self.tell_news(&mut sender, &mut cursor).await?;
                    let last_bytes = async { while self.streams.join_next().await.is_some() {} };
                    let _ = tokio::time::timeout(LAST_BYTES, last_bytes).await;
                    let epoch = self.room.epoch();
                    sender.write_message(&FromHome::NotHome { epoch, hint: None }).await?;
                    sender.finish();
                    return Ok(());
                }
                changed = activity.changed() => {
                    if changed.is_err() { return Ok(()); }
                    self.room.serving().await;
                    if self.tell_news(&mut sender, &mut cursor).await? {
                        return self.finish(sender).await;
                    }
                }
                said = receiver.read_message::<FromEdge>(MAX_REQUEST_BYTES) => match said? {
                    Some(FromEdge::Viewers(count)) => viewers.set(count),
                    Some(_) => {}
                    None => return Ok(()),
                },
                _ = beats.tick() => {
                    self.room.serving().await;
                    let subscribers = self.room.subscribers().load(Ordering::Relaxed);
                    let subscribers = u32::try_from(subscribers).unwrap_or(u32::MAX);
                    sender.write_message(&FromHome::Beat { number: beat, subscribers }).await?;
                    beat += 1;
                }
                Some(_) = self.streams.join_next() => {}
            }
        }
    }

    async fn tell_everything(
        &mut self,
        sender: &mut Sender,
        resume: Option<Resume>,
    ) -> Result<(LogCursor, bool), Error> {
        let (dump, cursor) = self.room.feed().attach();
        let opened: Vec<SegmentOpen> = dump.iter().filter_map(opened).collect();
        let over = dump.iter().any(|e| matches!(e, Entry::End));
        tell(sender, &dump).await?;
        self.live_from = Msn(opened.last().map_or(0, |open| open.msn.0.saturating_sub(1)));
        for open in opened {
            let (msn, epoch) = (open.msn, wire::Epoch(open.epoch.0));
            // What was opened under an epoch that the subscriber has not met, it cannot have.
            match resume.filter(|resume| epoch <= resume.epoch).map(|resume| resume.bytes) {
                Some(have) if msn.0 < have.msn => {}
                Some(have) if msn.0 == have.msn && epoch == have.epoch => {
                    self.send_segment(msn, have.frames);
                }
                _ => self.send_segment(msn, 0),
            }
        }
        Ok((cursor, over))
    }

    /// Passes on what is new. Returns true once the stream is over.
    async fn tell_news(
        &mut self,
        sender: &mut Sender,
        cursor: &mut LogCursor,
    ) -> Result<bool, Error> {
        let Some(batches) = self.room.feed().batches_since(cursor) else {
            debug!("fell behind the log; telling everything again");
            let over;
            (*cursor, over) = self.tell_everything(sender, None).await?;
            return Ok(over);
        };
        let mut over = false;
        for batch in batches {
            tell(sender, &batch).await?;
            for open in batch.iter().filter_map(opened) {
                self.send_segment(open.msn, 0);
            }
            over |= batch.iter().any(|e| matches!(e, Entry::End));
        }
        Ok(over)
    }

    async fn finish(mut self, mut sender: Sender) -> Result<(), Error> {
        while self.streams.join_next().await.is_some() {}
        sender.write_message(&FromHome::Finished).await?;
        sender.finish();
        Ok(())
    }

    fn send_segment(&mut self, msn: Msn, first_frame: u32) {
        let priority = if msn >= self.live_from {
            let after = i32::try_from(msn.0 - self.live_from.0).unwrap_or(LIVE_PRIORITY);
            LIVE_PRIORITY.saturating_sub(after)
        } else {
            let before = i32::try_from(self.live_from.0 - msn.0).unwrap_or(i32::MAX);
            -before
        };
        let (room, peer) = (Arc::clone(&self.room), Arc::clone(&self.peer));
        let subscription = self.subscription;
        let sending = async move {
            let sent = async {
                let mut sender = peer.open_uni(StreamKind::Segment).await?;
                sender.set_priority(priority);
                let feed = room.feed();
                let Some(segment) = feed.segment_frames(msn, u32::MAX) else { return Ok(()) };
                let epoch = wire::Epoch(segment.epoch.0);
                let header = SegmentHeader { subscription, epoch, msn: msn.0, first_frame };
                sender.write_message(&header).await?;
                segment::pump(feed, msn, first_frame, &mut sender).await
            };
            let sent: Result<(), Error> = sent.await;
            if let Err(error) = sent {
                debug!(%msn, %error, "segment stream ended early");
            }
        };
        self.streams.spawn(sending.in_current_span());
    }
}

fn opened(entry: &Entry) -> Option<SegmentOpen> {
    match entry {
        Entry::Open(open) => Some(*open),
        _ => None,
    }
}

async fn tell(sender: &mut Sender, batch: &[Entry]) -> Result<(), Error> {
    let entries = batch.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    Ok(sender.write_message(&FromHome::Manifest(entries)).await?)
}

/// A place among the room's subscribers, given back on drop.
struct Seat(Arc<Room>);

impl Seat {
    fn take(room: &Arc<Room>) -> Option<Self> {
        let taken = room.subscribers().fetch_add(1, Ordering::Relaxed);
        let seat = Self(Arc::clone(room));
        (taken < MAX_SUBSCRIBERS).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.subscribers().fetch_sub(1, Ordering::Relaxed);
    }
}

/// This edge's share of the room's viewers, taken back on drop.
struct Viewers {
    room: Arc<Room>,
    count: u64,
}

impl Viewers {
    fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), count: 0 }
    }

    fn set(&mut self, count: u64) {
        let total: &AtomicU64 = self.room.viewers();
        total.fetch_add(count, Ordering::Relaxed);
        total.fetch_sub(self.count, Ordering::Relaxed);
        self.count = count;
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        self.set(0);
    }
}
