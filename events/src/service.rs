//! The ledger for other nodes: answers the asks on their events streams.
//!
//! In: streams of kind `Events`. Out: answers, each as soon as it is there. At most
//! [`MAX_IN_FLIGHT`] asks of a stream are open; a peer that asks on waits. A message that cannot be
//! read ends its stream, nothing else.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use wire::events::{MAX_ASK_BYTES, MAX_IN_FLIGHT, Request, Response};
use wire::service::Serving;
use wire::{NodeId, Peer, Service, Stream, StreamKind};

use crate::Store;

/// Serves a [`Store`] to the cluster. Every node of the cluster may ask: its certificate says who it
/// is.
#[derive(Debug)]
pub struct LedgerService {
    store: Store,
}

impl LedgerService {
    /// Serves `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn serve_asks(&self, peer: &NodeId, stream: Stream) -> Result<(), wire::Error> {
        let (mut sender, mut receiver) = stream.both()?;
        let mut open = FuturesUnordered::new();
        let mut is_ended = false;
        while !is_ended || !open.is_empty() {
            tokio::select! {
                biased;
                Some(response) = open.next(), if !open.is_empty() => {
                    sender.write_message(&response).await?;
                }
                request = receiver.read_message::<Request>(MAX_ASK_BYTES),
                    if !is_ended && open.len() < MAX_IN_FLIGHT =>
                {
                    match request? {
                        Some(Request { id, ask }) => open.push(async move {
                            Response { id, answer: self.store.answer(peer, ask).await }
                        }),
                        None => is_ended = true,
                    }
                }
            }
        }
        sender.finish();
        Ok(())
    }
}

impl Service for LedgerService {
    fn kinds(&self) -> &'static [StreamKind] {
        &[StreamKind::Events]
    }

    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving {
        Box::pin(async move {
            if let Err(error) = self.serve_asks(peer.node(), stream).await {
                tracing::debug!(node = %peer.node(), %error, "events stream ended");
            }
        })
    }
}
