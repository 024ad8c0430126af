//! What this edge has of a room, for a new home that takes the room over.
//!
//! In: `Donate` streams that homes open. Out: the published manifest of the room's feed, and the frames
//! of its segments. Which home may ask is not checked: every node of the cluster may see what viewers
//! see.

use std::sync::Arc;
use std::time::Duration;

use media::feed::Feed;
use media::manifest::{Entry, Msn, encode};
use media::track::TrackId;
use tracing::debug;
use wire::RoomId;
use wire::endpoint::Peer;
use wire::replica::{Donate, Donated, Fetch, FrameRecord, MAX_REQUEST_BYTES};
use wire::service::{Service, Serving, Stream, StreamKind};
use wire::stream::{Receiver, Sender};

use super::error::Error;
use super::{Inner, Phase};

/// How long a home may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers homes.
#[derive(Debug)]
pub(super) struct Donations(pub(super) std::sync::Weak<Inner>);

impl Donations {
    fn feed(&self, room: &RoomId) -> Option<Feed> {
        let inner = self.0.upgrade()?;
        let slot = inner.rooms.get(room).map(|slot| Arc::clone(&slot))?;
        match &*slot.phase.borrow() {
            Phase::Serving(feed) => Some(feed.clone()),
            _ => None,
        }
    }

    async fn answer(&self, mut sender: Sender, mut receiver: Receiver) -> Result<(), Error> {
        match receiver.read_answer(MAX_REQUEST_BYTES, REQUEST_TIMEOUT).await? {
            Donate::Manifest(room) => {
                let donated = match self.feed(&room) {
                    Some(feed) => {
                        let entries: Vec<Entry> = feed.manifest().dump();
                        Donated::Manifest(entries.iter().map(encode).collect::<Result<_, _>>()?)
                    }
                    None => Donated::Gone,
                };
                sender.write_message(&donated).await?;
            }
            Donate::Segment(fetch) => self.segment(fetch, &mut sender).await?,
            _ => sender.write_message(&Donated::Gone).await?,
        }
        sender.finish();
        Ok(())
    }

    async fn segment(&self, fetch: Fetch, sender: &mut Sender) -> Result<(), Error> {
        let found = self
            .feed(&fetch.room)
            .and_then(|feed| feed.segment_frames(Msn(fetch.msn), fetch.first_frame))
            .filter(|segment| segment.epoch.0 == fetch.epoch.0);
        let Some(segment) = found else {
            sender.write_message(&Donated::Gone).await?;
            return Ok(());
        };
        sender.write_message(&Donated::Segment).await?;
        for frame in segment.frames {
            let record = FrameRecord {
                track: match frame.track {
                    TrackId::Video => 0,
                    TrackId::Audio => 1,
                },
                key: frame.key,
                dts: frame.dts,
                cts: frame.cts,
                payload: frame.payload,
            };
            sender.write_frame_parts(&[record.header(), record.payload]).await?;
        }
        Ok(())
    }
}

impl Service for Donations {
    fn kinds(&self) -> &'static [StreamKind] {
        &[StreamKind::Donate]
    }

    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving {
        Box::pin(async move {
            let answered = match stream.both() {
                Ok((sender, receiver)) => self.answer(sender, receiver).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = answered {
                debug!(home = %peer.node(), %error, "a home was not told what is here");
            }
        })
    }
}
