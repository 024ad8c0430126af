//! Gets the bytes of one segment again, when a stream that carried them was lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use media::feed::Feed;
use media::manifest::{Epoch, Msn};
use tokio::time::timeout;
use tracing::debug;
use wire::endpoint::Peer;
use wire::replica::{FetchReply, MAX_REQUEST_BYTES};
use wire::service::StreamKind;

use super::error::Error;
use super::{Slot, sink};
use crate::room::Fetch;

/// How long one fetch may take; a viewer's request is held no longer anyway.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the home may take to say whether it has the bytes.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Fetches for one room.
#[derive(Debug)]
pub(super) struct Fetcher {
    slot: Arc<Slot>,
    feed: Feed,
}

impl Fetcher {
    pub(super) fn new(slot: Arc<Slot>, feed: Feed) -> Self {
        Self { slot, feed }
    }
}

impl Fetch for Fetcher {
    fn fetch(&self, epoch: Epoch, msn: Msn) -> BoxFuture<'static, bool> {
        let (slot, feed) = (Arc::clone(&self.slot), self.feed.clone());
        Box::pin(async move {
            let Some(peer) = slot.peer.lock().clone() else { return false };
            let fetched = timeout(FETCH_TIMEOUT, run(&slot, &peer, &feed, epoch, msn)).await;
            match fetched {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    debug!(%msn, %error, "fetch failed");
                    false
                }
                Err(_) => false,
            }
        })
    }
}

async fn run(slot: &Slot, peer: &Peer, feed: &Feed, epoch: Epoch, msn: Msn) -> Result<bool, Error> {
    let (mut sender, mut receiver) = peer.open_bi(StreamKind::Fetch).await?;
    let first_frame = feed.frames_of(msn);
    // Asked for by the name of the whole segment, it may have been opened under another epoch.
    let opened = feed.said().segment(msn).map_or(epoch, |segment| segment.open.epoch);
    let epoch = wire::Epoch(epoch.0);
    let ask = wire::replica::Fetch { room: slot.room.clone(), epoch, msn: msn.0, first_frame };
    sender.write_message(&ask).await?;
    sender.finish();
    match receiver.read_answer(MAX_REQUEST_BYTES, REPLY_TIMEOUT).await? {
        FetchReply::Found => {
            sink::fill(feed, (opened, msn), first_frame, &mut receiver, || true).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}
