//! The task of one room's upstream: find the home, subscribe, follow it, resume after a loss.
//!
//! In: placement from the control plane, the manifest from the home. Out: a filled feed and the
//! slot's phase. Heartbeats of the home, not QUIC's idle time-out, tell a dead link. Retries have
//! one owner, this loop: capped and jittered.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Grant, RoomWatch};
use media::feed::Feed;
use media::manifest::{Entry, Epoch, Header, RENDER_VERSION, Status, decode};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, debug, info, info_span, warn};
use wire::replica::{
    BEAT_INTERVAL_MS, BEATS_MISSED, FromEdge, FromHome, Have, MAX_CONTROL_BYTES, Resume, Subscribe,
};
use wire::service::StreamKind;
use wire::stream::{Receiver, Sender};

use super::error::Error;
use super::sink::Welcome;
use super::{Inner, MAX_UNKNOWN, Phase, Slot, UNKNOWN_TTL};

/// The first pause after a failed try; doubles up to [`MAX_PAUSE`], each drawn from half to all.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between tries.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// How long an ended stream is kept for those who still read it.
const ENDED_LINGER: Duration = Duration::from_secs(60);

/// How long a room keeps its feed while placement no longer knows it: a home being replaced.
const LOST_LINGER: Duration = Duration::from_secs(60);

/// How long a link stays up without a holder.
const IDLE_LINGER: Duration = Duration::from_secs(1);

/// How often at most the home is told a new number of viewers.
const VIEWERS_INTERVAL: Duration = Duration::from_secs(1);

/// Without a beat for so long the link is dead.
const BEAT_TIMEOUT: Duration = Duration::from_millis(BEAT_INTERVAL_MS * (BEATS_MISSED as u64 + 1));

/// How long a home may take to accept: it may be one that takes the room over, and waits for what its
/// subscribers have.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the bytes of a stream that is over may pause on their way.
const BYTES_TIMEOUT: Duration = Duration::from_secs(5);

/// How one session with a home ended, when not by an error.
enum Ended {
    /// The stream is over.
    Finished,
    /// The node is not the home.
    Elsewhere,
    /// The home has too many subscribers.
    Busy,
    /// Placement names another home or epoch.
    Moved,
}

/// Serves the slot until nobody holds it or the stream is over.
pub(super) async fn run(inner: Arc<Inner>, slot: Arc<Slot>) {
    let span = info_span!("upstream", room = %slot.room);
    let shutdown = inner.shutdown.clone();
    let work = async {
        let link = Link {
            watch: inner.client.watch_room(&slot.room),
            inner: &inner,
            slot: &slot,
            feed: None,
            last_part: Instant::now(),
            subscribers: 1,
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = idle(&slot) => debug!("nobody watches; upstream closed"),
            () = link.run() => {}
        }
    };
    work.instrument(span).await;
    inner.forget(&slot);
}

/// Ends when the slot has had no holder for [`IDLE_LINGER`].
async fn idle(slot: &Slot) {
    let mut holders = slot.holders.subscribe();
    loop {
        if holders.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        // A room that is remembered as unknown has its own, longer life.
        let linger =
            if matches!(*slot.phase.borrow(), Phase::Unknown) { UNKNOWN_TTL } else { IDLE_LINGER };
        if timeout(linger, holders.wait_for(|count| *count > 0)).await.is_err() {
            return;
        }
    }
}

struct Link<'a> {
    inner: &'a Arc<Inner>,
    slot: &'a Arc<Slot>,
    watch: RoomWatch,
    feed: Option<Feed>,
    last_part: Instant,
    /// How many subscribers the home said it has.
    subscribers: u32,
}

impl Link<'_> {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let placement = match self.inner.client.locate(&self.slot.room).await {
                // The control node asked may be behind the one that is watched.
                Ok(location) => {
                    let watched = self.watch.current().and_then(|watched| watched.placement);
                    let is_newer = |grant: &Grant| {
                        location.placement.as_ref().is_some_and(|found| found.epoch < grant.epoch)
                    };
                    watched.filter(is_newer).or(location.placement.clone())
                }
                Err(error) => {
                    debug!(%error, "placement does not answer");
                    self.rest(&mut pause).await;
                    continue;
                }
            };
            let Some(grant) = placement else {
                if self.await_placement().await {
                    pause = FIRST_PAUSE;
                    continue;
                }
                return;
            };
            let started = Instant::now();
            match self.session(&grant).await {
                Ok(Ended::Finished) => {
                    info!("the stream has ended");
                    self.after_the_end(grant.epoch).await;
                    return;
                }
                Ok(Ended::Moved) => pause = FIRST_PAUSE,
                Ok(Ended::Elsewhere | Ended::Busy) => self.rest(&mut pause).await,
                Err(Error::OtherStream) => {
                    info!("the stream is over and another has begun");
                    self.slot.superseded.cancel();
                    return;
                }
                Err(error) => {
                    if started.elapsed() > MAX_PAUSE {
                        pause = FIRST_PAUSE;
                        warn!(home = %grant.home, %error, "lost the home; resubscribing");
                    } else {
                        debug!(home = %grant.home, %error, "cannot subscribe");
                    }
                    if error.is_contradiction() {
                        // What this edge holds and what the home says cannot both be true. Readers
                        // of the old feed are let go and start over with a new one.
                        warn!(%error, "the feed is given up");
                        self.slot.superseded.cancel();
                        return;
                    }
                    self.rest(&mut pause).await;
                }
            }
        }
    }

    /// Pauses before the next try, or until placement says something new.
    async fn rest(&mut self, pause: &mut Duration) {
        let half = *pause / 2;
        let jittered = half + rand::rng().random_range(Duration::ZERO..=half);
        tokio::select! {
            () = sleep(jittered) => {}
            _ = self.watch.changed() => {}
        }
        *pause = (*pause * 2).min(MAX_PAUSE);
    }

    /// The room has no home. Returns true when it has got one.
    async fn await_placement(&mut self) -> bool {
        let first_time = self.feed.is_none();
        let linger = if first_time { UNKNOWN_TTL } else { LOST_LINGER };
        let _counted = if first_time {
            let Some(counted) = Counted::take(self.inner) else {
                self.slot.phase.send_replace(Phase::Unknown);
                return false;
            };
            self.slot.phase.send_replace(Phase::Unknown);
            Some(counted)
        } else {
            None
        };
        let appeared = async {
            loop {
                if self.watch.changed().await.placement.is_some() {
                    return;
                }
            }
        };
        let appeared = timeout(linger, appeared).await.is_ok();
        if appeared && first_time {
            self.slot.phase.send_replace(Phase::Seeking);
        }
        appeared
    }

    /// Keeps an ended stream readable until the room goes on under another epoch.
    async fn after_the_end(&mut self, epoch: wire::Epoch) {
        let again = async {
            loop {
                let location = self.watch.changed().await;
                if location.placement.is_some_and(|grant| grant.epoch > epoch) {
                    return;
                }
            }
        };
        if timeout(ENDED_LINGER, again).await.is_ok() {
            self.slot.superseded.cancel();
        }
    }

    async fn session(&mut self, grant: &Grant) -> Result<Ended, Error> {
        // A home that does not answer must not keep this edge from the next.
        let mut watch = self.inner.client.watch_room(&self.slot.room);
        let subscribed = tokio::select! {
            biased;
            () = moved(&mut watch, grant.epoch) => return Ok(Ended::Moved),
            subscribed = self.subscribe(grant) => subscribed?,
        };
        match subscribed {
            Ok((feed, mut sender, mut receiver, _welcome)) => {
                self.follow(&feed, grant, &mut sender, &mut receiver).await
            }
            Err(ended) => Ok(ended),
        }
    }

    async fn subscribe(
        &self,
        grant: &Grant,
    ) -> Result<Result<(Feed, Sender, Receiver, Welcome), Ended>, Error> {
        let peer = self.inner.links.get(&grant.home, grant.home_addr).await?;
        *self.slot.peer.lock() = Some(Arc::clone(&peer));
        let (mut sender, mut receiver) = peer.open_bi(StreamKind::Subscribe).await?;
        let subscription = self.inner.subscription_id();
        let feed = self.feed.clone().unwrap_or_else(|| self.empty_feed());
        let home = grant.home.clone();
        let welcome = self.inner.sinks.welcome(subscription, home, feed.clone());
        let room = self.slot.room.clone();
        sender.write_message(&Subscribe { room, subscription, resume: self.resume() }).await?;
        let said = receiver.read_answer(MAX_CONTROL_BYTES, ANSWER_TIMEOUT).await?;
        let epoch = match said {
            FromHome::Accepted { epoch } => epoch,
            FromHome::Busy => return Ok(Err(Ended::Busy)),
            _ => return Ok(Err(Ended::Elsewhere)),
        };
        let known = feed.said().header().epoch.0;
        if epoch.0 < known {
            return Err(Error::StaleEpoch { found: epoch.0, known });
        }
        if epoch.0 > known && feed.said().status() == Status::Ended {
            return Err(Error::OtherStream);
        }
        info!(home = %grant.home, %epoch, "subscribed");
        Ok(Ok((feed, sender, receiver, welcome)))
    }

    async fn follow(
        &mut self,
        feed: &Feed,
        grant: &Grant,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<Ended, Error> {
        let mut viewers = self.slot.viewers.subscribe();
        viewers.mark_changed();
        let mut viewers_due = Instant::now();
        let mut dead = Instant::now() + BEAT_TIMEOUT;
        loop {
            tokio::select! {
                said = receiver.read_message::<FromHome>(MAX_CONTROL_BYTES) => {
                    dead = Instant::now() + BEAT_TIMEOUT;
                    match said? {
                        Some(FromHome::Manifest(batch)) => self.apply(feed, &batch)?,
                        Some(FromHome::Finished) => {
                            await_bytes(feed).await;
                            return Ok(Ended::Finished);
                        }
                        Some(FromHome::NotHome { .. }) | None => {
                            return Ok(if feed.said().status() == Status::Ended {
                                Ended::Finished
                            } else {
                                Ended::Elsewhere
                            });
                        }
                        Some(FromHome::Beat { subscribers, .. }) => self.subscribers = subscribers,
                        Some(_) => {}
                    }
                }
                location = self.watch.changed() => {
                    // Placement that forgets the room, or a control plane without a leader, stops
                    // nothing: the home goes on until it says otherwise.
                    if location.placement.is_some_and(|now| now.epoch > grant.epoch) {
                        return Ok(Ended::Moved);
                    }
                }
                () = changed_at(&mut viewers, viewers_due) => {
                    let count = *viewers.borrow_and_update();
                    sender.write_message(&FromEdge::Viewers(count)).await?;
                    viewers_due = Instant::now() + VIEWERS_INTERVAL;
                }
                () = tokio::time::sleep_until(dead) => return Err(Error::NoBeat),
            }
        }
    }

    fn apply(&mut self, feed: &Feed, batch: &[bytes::Bytes]) -> Result<(), Error> {
        let entries = batch.iter().map(|b| decode(b)).collect::<Result<Vec<_>, _>>()?;
        if entries.iter().any(|e| matches!(e, Entry::Part(_))) {
            self.last_part = Instant::now();
        }
        feed.apply(entries)?;
        if self.feed.is_none() {
            self.feed = Some(feed.clone());
            self.slot.phase.send_replace(Phase::Serving(feed.clone()));
        }
        Ok(())
    }

    fn resume(&self) -> Option<Resume> {
        let feed = self.feed.as_ref()?;
        let (msn, frames) = feed.resume_point()?;
        let said = feed.said();
        let epoch = said.segment(msn).map_or(said.header().epoch, |segment| segment.open.epoch);
        let head = feed.manifest().head();
        Some(Resume {
            epoch: wire::Epoch(said.header().epoch.0),
            msn: head.msn.0,
            parts: head.parts,
            age_ms: u64::try_from(self.last_part.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes: Have { epoch: wire::Epoch(epoch.0), msn: msn.0, frames },
            subscribers: self.subscribers,
        })
    }

    fn empty_feed(&self) -> Feed {
        // Epoch 0 is below every grant: the home's header, the first thing it says, replaces this.
        let header = Header {
            epoch: Epoch(0),
            generation: 0,
            render_version: RENDER_VERSION,
            constants: None,
            bandwidth_bps: 0,
            average_bandwidth_bps: 0,
            frame_rate_milli: None,
        };
        Feed::new(header, self.inner.limits)
    }
}

/// Ends when placement has another epoch than `epoch`. One that forgets the room, or a control plane
/// without a leader, stops nothing.
async fn moved(watch: &mut RoomWatch, epoch: wire::Epoch) {
    while watch.changed().await.placement.is_none_or(|now| now.epoch <= epoch) {}
}

/// Ends when everything the home has said is published, or when no more bytes come. The home's last
/// word overtakes the bytes before it, which are welcome only as long as the session is.
async fn await_bytes(feed: &Feed) {
    let mut activity = feed.activity();
    while feed.manifest().status() != Status::Ended {
        if !matches!(timeout(BYTES_TIMEOUT, activity.changed()).await, Ok(Ok(()))) {
            debug!("bytes of the ended stream are missing");
            return;
        }
    }
}

/// Ends when the value has changed, but not before `due`.
async fn changed_at(value: &mut watch::Receiver<u64>, due: Instant) {
    if value.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    value.mark_changed();
    tokio::time::sleep_until(due).await;
}

/// A place among the rooms remembered as unknown, given back on drop.
struct Counted<'a>(&'a Inner);

impl<'a> Counted<'a> {
    fn take(inner: &'a Inner) -> Option<Self> {
        use std::sync::atomic::Ordering::Relaxed;
        let before = inner.unknown.fetch_add(1, Relaxed);
        let counted = Self(inner);
        (before < MAX_UNKNOWN).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.unknown.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
