//! Takes the segment streams that homes open, and puts their frames into the right feed.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use media::feed::Feed;
use media::frame::Frame;
use media::manifest::{Epoch, Msn};
use media::track::TrackId;
use tokio::time::timeout;
use tracing::debug;
use wire::NodeId;
use wire::endpoint::Peer;
use wire::error::ResetCode;
use wire::replica::{FrameRecord, MAX_RECORD_BYTES, MAX_SEGMENT_HEADER_BYTES, SegmentHeader};
use wire::service::{Service, Serving, Stream, StreamKind};
use wire::stream::Receiver;

use super::error::Error;

/// How long a segment's bytes wait for the entry that opens it, which comes on another stream.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// How long a stream may take to say what it carries.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The subscriptions that await bytes, by their id.
#[derive(Debug, Default)]
pub(super) struct Sinks {
    by_subscription: DashMap<u64, Sink>,
}

#[derive(Debug, Clone)]
struct Sink {
    home: NodeId,
    feed: Feed,
}

/// Keeps a subscription's bytes welcome; dropped, its streams are stopped.
#[derive(Debug)]
pub(super) struct Welcome {
    sinks: Arc<Sinks>,
    subscription: u64,
}

impl Sinks {
    /// Bytes of `subscription`, from `home`, go into `feed`.
    pub(super) fn welcome(
        self: &Arc<Self>,
        subscription: u64,
        home: NodeId,
        feed: Feed,
    ) -> Welcome {
        self.by_subscription.insert(subscription, Sink { home, feed });
        Welcome { sinks: Arc::clone(self), subscription }
    }

    async fn take(&self, peer: &Peer, mut receiver: Receiver) -> Result<(), Error> {
        let header: SegmentHeader =
            receiver.read_answer(MAX_SEGMENT_HEADER_BYTES, HEADER_TIMEOUT).await?;
        let sink = self.by_subscription.get(&header.subscription).map(|sink| sink.clone());
        let Some(sink) = sink.filter(|sink| sink.home == *peer.node()) else {
            receiver.stop(ResetCode::Cancelled);
            return Ok(());
        };
        let wanted = || self.by_subscription.contains_key(&header.subscription);
        let segment = (Epoch(header.epoch.0), Msn(header.msn));
        fill(&sink.feed, segment, header.first_frame, &mut receiver, wanted).await
    }
}

impl Drop for Welcome {
    fn drop(&mut self) {
        self.sinks.by_subscription.remove(&self.subscription);
    }
}

impl Service for Sinks {
    fn kinds(&self) -> &'static [StreamKind] {
        &[StreamKind::Segment]
    }

    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving {
        Box::pin(async move {
            if let Err(error) = self.take(&peer, stream.receiver).await {
                debug!(peer = %peer.node(), %error, "segment stream ended early");
            }
        })
    }
}

/// Reads frame records into a segment of `feed`, named by the epoch that opened it and its number, the
/// first at index `next`, until the end of the stream.
///
/// # Errors
/// When the stream breaks, or says what contradicts the feed.
pub(super) async fn fill(
    feed: &Feed,
    segment: (Epoch, Msn),
    mut next: u32,
    receiver: &mut Receiver,
    wanted: impl Fn() -> bool,
) -> Result<(), Error> {
    while let Some(record) = receiver.read_frame(MAX_RECORD_BYTES).await? {
        if !wanted() {
            receiver.stop(ResetCode::Cancelled);
            return Ok(());
        }
        insert(feed, segment, next, frame(FrameRecord::decode(record)?)?).await?;
        next += 1;
    }
    Ok(())
}

async fn insert(
    feed: &Feed,
    (epoch, msn): (Epoch, Msn),
    index: u32,
    frame: Frame,
) -> Result<(), Error> {
    if feed.push_of(epoch, msn, index, frame.clone())? {
        return Ok(());
    }
    let mut activity = feed.activity();
    let opened = async {
        loop {
            activity.borrow_and_update();
            if feed.push_of(epoch, msn, index, frame.clone())? {
                return Ok(());
            }
            if activity.changed().await.is_err() {
                return Err(Error::NeverOpened(msn));
            }
        }
    };
    timeout(OPEN_WAIT, opened).await.unwrap_or(Err(Error::NeverOpened(msn)))
}

fn frame(record: FrameRecord) -> Result<Frame, Error> {
    let track = match record.track {
        0 => TrackId::Video,
        1 => TrackId::Audio,
        other => return Err(Error::UnknownTrack(other)),
    };
    Ok(Frame { track, dts: record.dts, cts: record.cts, key: record.key, payload: record.payload })
}
