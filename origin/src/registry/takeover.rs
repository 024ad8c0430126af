//! Taking a room over from an earlier home, out of what its subscribers have.
//!
//! In: subscribers that come to a node which has just become the home, and say what they have. Out: the
//! past of the stream from the one that has most, and its bytes, which go into the new feed while the
//! stream goes on. Which one that is, is settled when as many have come as the earlier home had, or
//! [`SETTLE_TIME`] after the first, which is waited for longer: without one the stream's past is lost.

use std::sync::Arc;
use std::time::Duration;

use media::feed::Feed;
use media::frame::Frame;
use media::manifest::{Entry, Manifest, Msn, decode};
use media::track::TrackId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info};
use wire::RoomId;
use wire::endpoint::Peer;
use wire::replica::{
    Donate, Donated, Fetch, FrameRecord, MAX_CONTROL_BYTES, MAX_RECORD_BYTES, Resume,
};
use wire::service::StreamKind;

use crate::error::Error;
use crate::room::{Past, Room};

/// How long further subscribers of the earlier home are waited for.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// How long the first of them is waited for: one whose own control node has died with the home learns of
/// the new one only when it has missed the heartbeats of both. A push waits less than it may.
const FIRST_TIME: Duration = Duration::from_millis(1_500);

/// How long one of them may take to tell its manifest.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one of them may take for the bytes of one segment.
const SEGMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Subscribers that are asked for the past, the one with most first.
const MAX_DONORS: usize = 4;

/// Subscribers remembered while a room is being settled: as many as a home serves.
const MAX_CANDIDATES: usize = 2_048;

/// A subscriber that has something of the earlier home.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    peer: Arc<Peer>,
    resume: Resume,
    came: Instant,
}

impl Candidate {
    pub(crate) fn new(peer: Arc<Peer>, resume: Resume) -> Self {
        Self { peer, resume, came: Instant::now() }
    }

    fn rank(&self) -> (wire::Epoch, u64, u32) {
        (self.resume.epoch, self.resume.msn, self.resume.parts)
    }

    fn age_ms(&self) -> u64 {
        let here = u64::try_from(self.came.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.resume.age_ms.saturating_add(here)
    }
}

/// Those who have come.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    come: Mutex<Vec<Candidate>>,
    news: Notify,
}

impl Candidates {
    /// Notes one; over [`MAX_CANDIDATES`] it is not, and only subscribes.
    pub(crate) fn add(&self, candidate: Candidate) {
        let mut come = self.come.lock();
        come.retain(|known| known.peer.node() != candidate.peer.node());
        if come.len() < MAX_CANDIDATES {
            come.push(candidate);
        }
        drop(come);
        self.news.notify_one();
    }

    /// Waits until all that are expected have come, or long enough; the one that has most is first.
    async fn settled(&self) -> Vec<Candidate> {
        let begun = Instant::now();
        while !self.is_complete() {
            let first = self.come.lock().iter().map(|candidate| candidate.came).min();
            let deadline = first.map_or(begun + FIRST_TIME, |came| came.max(begun) + SETTLE_TIME);
            if timeout_at(deadline, self.news.notified()).await.is_err() {
                break;
            }
        }
        let mut come = std::mem::take(&mut *self.come.lock());
        come.sort_by_key(|candidate| std::cmp::Reverse(candidate.rank()));
        come
    }

    fn is_complete(&self) -> bool {
        let come = self.come.lock();
        let expected = come.iter().map(|candidate| candidate.resume.subscribers).max();
        expected
            .is_some_and(|expected| come.len() >= usize::try_from(expected).unwrap_or(usize::MAX))
    }
}

/// What was left of the room, and who had it.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    pub(crate) past: Option<Past>,
    donors: Vec<Candidate>,
}

/// Waits for the subscribers of the earlier home and gets the past from the one that has most.
pub(crate) async fn settle(room: &RoomId, candidates: &Candidates) -> Inheritance {
    let mut donors = candidates.settled().await;
    debug!(%room, candidates = donors.len(), "settled");
    donors.truncate(MAX_DONORS);
    for (index, donor) in donors.iter().enumerate() {
        match timeout(MANIFEST_TIMEOUT, manifest(room, donor)).await {
            Ok(Ok(Some(manifest))) => {
                let (donor, head) = (donor.peer.node(), manifest.head());
                info!(%room, %donor, msn = %head.msn, parts = head.parts, "stream taken over");
                let past = Past { manifest, age_ms: donors[index].age_ms() };
                donors.drain(..index);
                return Inheritance { past: Some(past), donors };
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => debug!(donor = %donor.peer.node(), %error, "no past from this one"),
            Err(_) => debug!(donor = %donor.peer.node(), "no past from this one in time"),
        }
    }
    Inheritance::default()
}

async fn manifest(room: &RoomId, donor: &Candidate) -> Result<Option<Manifest>, Error> {
    let (mut sender, mut receiver) = donor.peer.open_bi(StreamKind::Donate).await?;
    sender.write_message(&Donate::Manifest(room.clone())).await?;
    sender.finish();
    let answer = receiver.read_answer(MAX_CONTROL_BYTES, MANIFEST_TIMEOUT).await?;
    let Donated::Manifest(encoded) = answer else { return Ok(None) };
    let mut entries = encoded.iter().map(|bytes| decode(bytes));
    let Some(Entry::Header(header)) = entries.next().transpose()? else { return Ok(None) };
    let mut manifest = Manifest::new(header);
    for entry in entries {
        manifest.apply(&entry?).map_err(|error| Error::Past(error.to_string()))?;
    }
    Ok(Some(manifest))
}

impl Inheritance {
    /// Brings the bytes that the past lists into the room's feed, the newest segments first, until
    /// all are there, nobody has them, or the room closes.
    pub(crate) async fn bring(self, room: Arc<Room>) {
        let closed = room.closed().clone();
        let bring = async {
            let feed = room.feed();
            let past = feed.said();
            for donor in &self.donors {
                for segment in past.segments().iter().rev().filter(|s| s.duration.is_some()) {
                    let msn = segment.open.msn;
                    if feed.frames_of(msn) >= segment.frames() {
                        continue;
                    }
                    let fetch = Fetch {
                        room: room.id().clone(),
                        epoch: wire::Epoch(segment.open.epoch.0),
                        msn: msn.0,
                        first_frame: feed.frames_of(msn),
                    };
                    let brought = timeout(SEGMENT_TIMEOUT, bytes(donor, feed, fetch)).await;
                    if let Ok(Err(error)) = brought {
                        debug!(donor = %donor.peer.node(), %msn, %error, "bytes not brought");
                    }
                }
            }
        };
        closed.run_until_cancelled(bring).await;
    }
}

async fn bytes(donor: &Candidate, feed: &Feed, fetch: Fetch) -> Result<(), Error> {
    let (msn, mut index) = (Msn(fetch.msn), fetch.first_frame);
    let epoch = media::manifest::Epoch(fetch.epoch.0);
    let (mut sender, mut receiver) = donor.peer.open_bi(StreamKind::Donate).await?;
    sender.write_message(&Donate::Segment(fetch)).await?;
    sender.finish();
    if receiver.read_answer::<Donated>(MAX_CONTROL_BYTES, MANIFEST_TIMEOUT).await?
        != Donated::Segment
    {
        return Ok(());
    }
    while let Some(record) = receiver.read_frame(MAX_RECORD_BYTES).await? {
        let FrameRecord { track, key, dts, cts, payload } = FrameRecord::decode(record)?;
        let track = match track {
            0 => TrackId::Video,
            1 => TrackId::Audio,
            other => return Err(Error::Past(format!("unknown track {other}"))),
        };
        let frame = Frame { track, dts, cts, key, payload };
        feed.push_of(epoch, msn, index, frame).map_err(|error| Error::Past(error.to_string()))?;
        index += 1;
    }
    Ok(())
}
