//! What a home serves to other nodes: replication out to edges, and pushes taken from ingests.
//!
//! In: `Subscribe`, `Fetch` and `Contribute` streams from the cluster's QUIC endpoint. Out: each
//! subscription is one [`subscriber`] task; a fetch is answered from the room's feed; a contribution
//! is an ordinary push into the room. Which rooms this node is the
//! home of, the [`crate::registry`] says; nothing here decides it.

mod segment;
mod subscriber;

use std::sync::Arc;
use std::time::Duration;

use tracing::{Instrument, debug, debug_span};
use wire::endpoint::Peer;
use wire::error::ResetCode;
use wire::replica::{Fetch, FetchReply, MAX_REQUEST_BYTES};
use wire::service::{Service, Serving, Stream, StreamKind};
use wire::stream::{Receiver, Sender};

use crate::contribute;
use crate::error::Error;
use crate::registry::Registry;
use crate::room::Metrics;

/// How long a peer may take to say what it wants on a stream it opened.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The service that feeds edges.
#[derive(Debug)]
pub(crate) struct Replicate {
    rooms: Arc<Registry>,
    metrics: Arc<Metrics>,
}

impl Replicate {
    pub(crate) fn new(rooms: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        Self { rooms, metrics }
    }

    async fn fetch(&self, mut sender: Sender, mut receiver: Receiver) -> Result<(), Error> {
        let fetch: Fetch = receiver.read_answer(MAX_REQUEST_BYTES, REQUEST_TIMEOUT).await?;
        let feed = self.rooms.get(&fetch.room).map(|room| room.feed().clone());
        let msn = media::manifest::Msn(fetch.msn);
        let found = feed.filter(|feed| {
            let epoch = media::manifest::Epoch(fetch.epoch.0);
            feed.segment_frames(msn, u32::MAX).is_some_and(|s| s.is_named(epoch))
        });
        let Some(feed) = found else {
            sender.write_message(&FetchReply::Gone).await?;
            sender.finish();
            return Ok(());
        };
        sender.write_message(&FetchReply::Found).await?;
        segment::pump(&feed, msn, fetch.first_frame, &mut sender).await
    }
}

impl Service for Replicate {
    fn kinds(&self) -> &'static [StreamKind] {
        &[StreamKind::Subscribe, StreamKind::Fetch, StreamKind::Contribute]
    }

    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving {
        let kind = stream.kind;
        let span = debug_span!("replicate", peer = %peer.node(), %kind);
        Box::pin(
            async move {
                let served = match (kind, stream.both()) {
                    (StreamKind::Subscribe, Ok((sender, receiver))) => {
                        subscriber::run(&self.rooms, &self.metrics, peer, sender, receiver).await
                    }
                    (StreamKind::Contribute, Ok((sender, receiver))) => {
                        contribute::receive(&self.rooms, &peer, sender, receiver).await
                    }
                    (_, Ok((sender, receiver))) => self.fetch(sender, receiver).await,
                    (_, Err(e)) => Err(e.into()),
                };
                if let Err(error) = served {
                    debug!(%error, "stream ended");
                }
            }
            .instrument(span),
        )
    }
}

/// Why a segment's stream is given up by its sender.
const GONE: ResetCode = ResetCode::OutOfWindow;
