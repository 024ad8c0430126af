//! One live connection per remote node, dialled when first asked for.
//!
//! In: a node id and its address, from placement. Out: a [`Peer`] that is up. However many ask at
//! once, one of them dials. A failed dial is remembered for [`FAILURE_MEMORY`], so that a crowd
//! behind one dead node costs one dial; backing off beyond that, with jitter, is the caller's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Error, NodeId,
    endpoint::{Endpoint, Peer},
    error::CloseCode,
};

/// How long everybody who asks is given the last dial's error instead of a new dial.
pub const FAILURE_MEMORY: Duration = Duration::from_millis(250);
/// Most nodes linked to or remembered; beyond, [`Error::Full`]. Far above any cluster's size.
pub const MAX_LINKS: usize = 4096;

/// The outgoing connections of a node. Clones share them.
#[derive(Debug, Clone)]
pub struct Links {
    endpoint: Endpoint,
    links: Arc<Mutex<HashMap<NodeId, Arc<Link>>>>,
}

/// The way to one node. The lock is held while dialling: the others wait for the outcome.
#[derive(Debug, Default)]
struct Link {
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    /// Never dialled.
    #[default]
    Fresh,
    /// Connected, at least when last looked at.
    Up { peer: Arc<Peer>, dialled: SocketAddr },
    /// The last dial failed.
    Failed { error: Error, address: SocketAddr, at: Instant },
}

impl Links {
    /// Links over `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, links: Arc::default() }
    }

    /// The endpoint that dials.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The connection to `node`, dialled at `address` unless one is up. When placement gives
    /// another address than before, the old connection is closed and the new address dialled.
    ///
    /// Dropping the future lets the next one who waits dial.
    ///
    /// # Errors
    /// Those of [`Endpoint::connect`]; the same error again within [`FAILURE_MEMORY`];
    /// [`Error::Full`] beyond [`MAX_LINKS`].
    pub async fn get(&self, node: &NodeId, address: SocketAddr) -> Result<Arc<Peer>, Error> {
        let link = self.link(node)?;
        let mut state = link.state.lock().await;
        match &*state {
            State::Up { peer, dialled } if !peer.is_closed() => {
                if *dialled == address {
                    return Ok(Arc::clone(peer));
                }
                peer.close(CloseCode::Replaced, "the node has moved to another address");
            }
            State::Failed { error, address: failed, at }
                if *failed == address && at.elapsed() < FAILURE_MEMORY =>
            {
                return Err(error.clone());
            }
            _ => {}
        }
        match self.endpoint.connect(node, address).await {
            Ok(peer) => {
                *state = State::Up { peer: Arc::clone(&peer), dialled: address };
                Ok(peer)
            }
            Err(error) => {
                *state = State::Failed { error: error.clone(), address, at: Instant::now() };
                Err(error)
            }
        }
    }

    /// Closes the connection to a node that has left the cluster, if there is one, and forgets it.
    pub fn forget(&self, node: &NodeId) {
        let link = self.links().remove(node);
        // While somebody dials, the lock is taken: that connection is theirs to close.
        if let Some(link) = link
            && let Ok(state) = link.state.try_lock()
            && let State::Up { peer, .. } = &*state
        {
            peer.close(CloseCode::Unneeded, "the node has left the cluster");
        }
    }

    fn link(&self, node: &NodeId) -> Result<Arc<Link>, Error> {
        let mut links = self.links();
        if let Some(link) = links.get(node) {
            return Ok(Arc::clone(link));
        }
        if links.len() >= MAX_LINKS {
            return Err(Error::Full { what: "links to nodes", limit: MAX_LINKS });
        }
        let link = Arc::<Link>::default();
        links.insert(node.clone(), Arc::clone(&link));
        Ok(link)
    }

    fn links(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
